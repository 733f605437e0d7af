"""What a repair changes in the catalogue: under the chunk's lock, judged once more, many chunks in one transaction."""

from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Final

import attrs
import structlog

from fsn.coord.catalog import PlacedReplica
from fsn.coord.database.chunk_states import (
    ChunkState,
    NewCopy,
    insert_copies,
    lock_chunks,
    remove_replicas,
)
from fsn.coord.database.pool import Pool
from fsn.coord.database.repairs import QueuedRepair, RepairOutcome, settle_repairs
from fsn.coord.membership import Membership
from fsn.coord.metrics import CoordinatorMetrics
from fsn.coord.recording import SLOTS, Recorder
from fsn.coord.upkeep.outlook import Outlook, Outlooks
from fsn.core.ids import PeerId, ReplicaId
from fsn.core.placement import Candidate
from fsn.core.repair import Holder, backoff_seconds
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell

__all__ = ["Attempt", "RepairRecorder"]

log = structlog.get_logger()

LOOK_AGAIN: Final = timedelta(minutes=5)
"""Later: a file that is still coming in, or a pause."""


@attrs.frozen
class Attempt:
    """What was done about a claimed repair: copies that are durable on their nodes, or why there are none."""

    repair: QueuedRepair
    copies: tuple[PlacedReplica, ...] = ()
    failure: str | None = None
    is_untried: bool = False
    """There was no time for it."""


@attrs.define
class _Changes:
    """What one transaction writes."""

    outcomes: list[RepairOutcome] = attrs.field(factory=list)
    inserted: list[NewCopy] = attrs.field(factory=list)
    unwanted: list[PlacedReplica] = attrs.field(factory=list)
    leaving: list[ReplicaId] = attrs.field(factory=list)


class RepairRecorder:
    """Writes what repairs have done. A chunk never gets more replicas than it wants, whoever else repaired it meanwhile."""

    def __init__(
        self,
        db: Pool,
        outlooks: Outlooks,
        membership: Membership,
        recorder: Recorder,
        *,
        by: PeerId,
        clock: Clock,
        chance: Random,
        deletions_due: Bell,
        metrics: CoordinatorMetrics,
    ) -> None:
        self._db = db
        self._outlooks = outlooks
        self._membership = membership
        self._recorder = recorder
        self._by = by
        self._clock = clock
        self._chance = chance
        self._deletions_due = deletions_due
        self._metrics = metrics

    async def record(self, attempts: list[Attempt]) -> None:
        """Commit all `attempts` and take them out of the list. On failure and on cancellation they stay in it: `discard` them."""
        batch = list(attempts)
        outlook = await self._outlooks.current()
        changes = _Changes()
        async with self._db.transaction() as connection:
            states = await lock_chunks(connection, [attempt.repair.key for attempt in batch])
            for attempt in batch:
                self._judge(attempt, states.get(attempt.repair.key), outlook, changes)
            if changes.inserted:
                await insert_copies(connection, changes.inserted, self._clock())
            if changes.leaving:
                await remove_replicas(connection, changes.leaving, self._clock())
            await settle_repairs(connection, changes.outcomes, self._by, self._clock())
        del attempts[: len(batch)]
        self._recorder.discard(changes.unwanted)
        self._tell(changes)

    def discard(self, attempts: Sequence[Attempt]) -> None:
        """Have the copies of attempts that were not recorded deleted; those whose commit did happen are found out to be needed."""
        self._recorder.discard([copy for attempt in attempts for copy in attempt.copies])

    def _judge(self, attempt: Attempt, state: ChunkState | None, outlook: Outlook, changes: _Changes) -> None:
        """What becomes of one chunk, as it stands now."""
        if state is None or state.file_status != "ready":
            changes.unwanted += attempt.copies
            changes.outcomes.append(self._unready(attempt.repair, state))
            return
        holders = [outlook.holder(replica) for replica in state.replicas]
        missing = outlook.plan_of(holders, state.wanted).missing
        nodes = {replica.node for replica in state.replicas if not replica.is_lost}
        wanted = [copy for copy in attempt.copies if copy.node not in nodes][:missing]
        found = outlook.plan_of([*holders, *map(self._holder, wanted)], state.wanted)
        changes.unwanted += [copy for copy in attempt.copies if copy not in wanted]
        changes.inserted += [NewCopy(*state.key, copy, self._chance.randrange(SLOTS)) for copy in wanted]
        changes.leaving += [holder.mark for holder in found.leaving]
        changes.outcomes.append(self._outcome(attempt, found.missing, found.live, found.is_waiting))

    def _unready(self, repair: QueuedRepair, state: ChunkState | None) -> RepairOutcome:
        """A deleted file needs nothing; one that is coming in is left alone until it is ready or gone."""
        if state is None:
            return RepairOutcome(repair)
        return RepairOutcome(repair, self._clock() + LOOK_AGAIN, live=repair.live, failure="the file is coming in")

    def _outcome(self, attempt: Attempt, missing: int, live: int, is_waiting: bool) -> RepairOutcome:
        repair, now = attempt.repair, self._clock()
        if missing and attempt.copies:
            return RepairOutcome(repair, now, live=live)  # there is progress: go on at once
        if missing and attempt.is_untried:
            return RepairOutcome(repair, now, tries=repair.tries - 1, failure=repair.failure, live=live)
        if missing:
            again_at = now + timedelta(seconds=backoff_seconds(repair.tries))
            return RepairOutcome(repair, again_at, tries=repair.tries, failure=attempt.failure, live=live)
        if is_waiting:
            return RepairOutcome(
                repair, now + LOOK_AGAIN, tries=repair.tries - 1, failure="repair is paused", live=live
            )
        return RepairOutcome(repair)

    def _holder(self, copy: PlacedReplica) -> Holder[ReplicaId]:
        candidate = self._membership.candidate(copy.node) or Candidate(copy.node, str(copy.node), None, None, 0)
        return Holder(copy.id, "online", None, False, candidate)

    def _tell(self, changes: _Changes) -> None:
        if changes.leaving:
            self._deletions_due.ring()
        size_bytes = sum(copy.replica.sealed_bytes for copy in changes.inserted)
        self._metrics.repaired_bytes.inc(size_bytes)
        self._metrics.replicas_left.inc(len(changes.leaving))
        log.info(
            "repairs_recorded",
            chunks=sum(outcome.again_at is None for outcome in changes.outcomes),
            again=sum(outcome.again_at is not None for outcome in changes.outcomes),
            made=len(changes.inserted),
            made_bytes=size_bytes,
            left=len(changes.leaving),
            discarded=len(changes.unwanted),
        )
