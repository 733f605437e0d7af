"""Worker that compares each node with the catalogue: losses are confirmed and reported, garbage is deleted once it has lasted."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Final

import attrs
import structlog

from fsn.coord.config import ReconciliationConfig
from fsn.coord.database.pool import Pool
from fsn.coord.database.reconciliations import (
    Found,
    Round,
    bring_forward,
    bytes_of_uploads,
    claim_round,
    end_round,
    extend_lease,
    forget_candidates,
    garbage_due,
    hold_garbage,
    note_garbage,
    postpone_round,
    queue_garbage,
    release_garbage,
    schedule_rounds,
    still_listed,
)
from fsn.coord.database.repairs import report_lost
from fsn.coord.membership import Membership
from fsn.coord.metrics import CoordinatorMetrics
from fsn.coord.upkeep.comparing import Comparison, prefix_of
from fsn.core.errors import PeerError
from fsn.core.held_time import Agreement, HeldDay, held_days
from fsn.core.ids import NodeId, PeerId, ReplicaId
from fsn.core.reconciliation import Difference, HeldReplica, PrefixSum, compare
from fsn.p2p.client import Requester
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell, Rest

__all__ = ["Reconciling"]

log = structlog.get_logger()

LEASE: Final = timedelta(minutes=10)
RETRY_AFTER: Final = timedelta(minutes=10)
SETTLE: Final = timedelta(minutes=1)
"""A node that is back is left alone for so long: it has repairs and deletions to catch up on."""
LOOK_SECONDS: Final = 30.0
AT_ONCE: Final = 1000
"""Replicas in one statement that reports or queues."""


class LeaseLost(Exception):
    """Another coordinator has taken the round over: it took too long."""


@attrs.define(eq=False)
class Reconciling:
    """One node a step. Several coordinators share the nodes by leases; each compares those that are connected to it."""

    db: Pool
    membership: Membership
    requester: Requester
    clock: Clock
    chance: Random
    config: ReconciliationConfig
    coordinator: PeerId
    deletions_due: Bell
    metrics: CoordinatorMetrics
    name: str = "reconciling"
    _scheduled: set[NodeId] = attrs.field(factory=set, init=False)
    _present: dict[NodeId, None] | None = attrs.field(default=None, init=False)

    async def step(self) -> Rest | None:
        """Compare the node that is due longest."""
        online = [member.node for member in self.membership.online()]
        await self._schedule(online)
        if not online:
            return Rest(LOOK_SECONDS)
        now = self.clock()
        taken = await claim_round(self.db, online, self.coordinator, now, LEASE, 2 * self.config.every + LEASE)
        if taken is None:
            return Rest(LOOK_SECONDS)
        await self._take(taken)
        return None

    async def _schedule(self, online: Sequence[NodeId]) -> None:
        """New nodes get a first round within the hour; those that are back after an absence, soon."""
        now = self.clock()
        new = [node for node in online if node not in self._scheduled]
        if new:
            await schedule_rounds(self.db, {node: now + timedelta(hours=1) * self.chance.random() for node in new})
            self._scheduled.update(new)
        back = [node for node in online if self._present is not None and node not in self._present]
        if back:
            await bring_forward(self.db, back, now + SETTLE, now - timedelta(hours=1))
        self._present = dict.fromkeys(online)

    async def _take(self, taken: Round) -> None:
        member = self.membership.member(taken.node)
        try:
            with self.metrics.reconciling():
                if member is not None:
                    await _Work(self, taken, member.peer).run()
        except PeerError as error:
            log.warning("reconciliation_failed", node=str(taken.node), reason=error.message)
            await postpone_round(self.db, taken.node, self.coordinator, self.clock() + RETRY_AFTER)
        except LeaseLost:
            log.warning("reconciliation_taken_over", node=str(taken.node))


@attrs.define(eq=False)
class _Work:
    """One round of one node."""

    by: Reconciling
    round: Round
    peer: PeerId
    lost: int = 0
    garbage: int = 0

    async def run(self) -> None:
        """Compare, act on what differs, write down what agrees."""
        began = self.by.clock()
        agreed = await self._comparison.run(self._judge)
        while await forget_candidates(self.by.db, self.round):
            await self._hold_on()
        queued = await self._delete_garbage(agreed)
        await self._end(agreed, began, queued)

    @property
    def _comparison(self) -> Comparison:
        return Comparison(self.by.db, self.by.requester, self.round.node, self.peer)

    async def _hold_on(self) -> None:
        if not await extend_lease(self.by.db, self.round.node, self.by.coordinator, self.by.clock() + LEASE):
            raise LeaseLost

    async def _judge(self, difference: Difference) -> None:
        await self._hold_on()
        for some in _slices(difference.garbage):
            self.garbage += await note_garbage(self.by.db, self.round, some, self.by.clock())
        for some in _slices((*difference.lost, *difference.damaged)):
            await self._confirm(some)

    async def _confirm(self, missed: Sequence[HeldReplica]) -> None:
        """Ask the catalogue and then the node again: a deletion or a repair may have come in between."""
        listed = await still_listed(self.by.db, self.round.node, [each.replica for each in missed])
        wanted = [each for each in missed if each.replica in listed]
        if wanted:
            prefixes = sorted({prefix_of(each.replica) for each in wanted})
            again = compare(wanted, await self._comparison.held(prefixes))
            await self._report("missing", again.lost)
            await self._report("damaged", again.damaged)

    async def _report(self, what: str, lost: Sequence[HeldReplica]) -> None:
        if not lost:
            return
        replicas: list[ReplicaId] = [each.replica for each in lost]
        count = await report_lost(self.by.db, replicas, reason=f"reconciliation: {what}", at=self.by.clock())
        self.lost += count
        self.by.metrics.count_differences(what, count)
        log.warning("differences_reported", node=str(self.round.node), replicas=count, found=what)

    async def _delete_garbage(self, agreed: PrefixSum) -> int:
        """Queue what has lasted, unless it is so much that a database may have been put back: then somebody must look first."""
        db, node, now = self.by.db, self.round.node, self.by.clock()
        before = now - timedelta(hours=self.by.config.garbage_after_hours)
        bound = self.by.config.garbage_bound(agreed.count)
        if not self.round.is_allowed and await garbage_due(db, self.round, before, bound + 1) > bound:
            log.error("garbage_held", node=str(node), garbage=self.garbage, agreed=agreed.count, bound=bound)
            await hold_garbage(db, node, now)
            return 0
        queued = 0
        while some := await queue_garbage(db, self.round, before, now, AT_ONCE):
            queued += some
            await self._hold_on()
        await release_garbage(db, node)
        return queued

    async def _end(self, agreed: PrefixSum, began: datetime, queued: int) -> None:
        by, done = self.by, self.round
        if queued:
            by.metrics.count_differences("garbage", queued)
            by.deletions_due.ring()
        earning = max(0, agreed.size_bytes - await bytes_of_uploads(by.db, done.node))
        days: tuple[HeldDay, ...] = ()
        if done.compared_at is not None:
            earlier = Agreement(int(done.compared_at.timestamp()), done.agreed_bytes)
            days = held_days(earlier, Agreement(int(began.timestamp()), earning))
        next_at = by.clock() + by.config.every * (0.9 + by.chance.random() / 5)
        found = Found(agreed, self.lost, self.garbage, earning)
        if not await end_round(by.db, done, by.coordinator, found, days, at=began, next_at=next_at):
            raise LeaseLost
        log.info(
            "node_reconciled",
            node=str(done.node),
            agreed=agreed.count,
            lost=self.lost,
            garbage=self.garbage,
            queued=queued,
        )


def _slices(replicas: Sequence[HeldReplica]) -> Sequence[Sequence[HeldReplica]]:
    return [replicas[start : start + AT_ONCE] for start in range(0, len(replicas), AT_ONCE)]
