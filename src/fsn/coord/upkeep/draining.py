"""Draining: nodes on their way out are watched until nothing counts on them; repair makes the copies and lets their replicas go."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs
import structlog

from fsn.coord.database.drains import (
    Drain,
    DrainingReplica,
    advance_drain,
    are_deletions_queued,
    claim_drain,
    drain_page,
    end_drain,
    finish_pass,
    is_being_scanned,
    lock_drain,
)
from fsn.coord.database.node_states import change_status
from fsn.coord.database.pool import Pool
from fsn.coord.database.repairs import queue_chunks, queue_node
from fsn.core.ids import PeerId
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell, Rest

__all__ = ["Draining"]

log = structlog.get_logger()

PAGE_REPLICAS: Final = 1000
LEASE: Final = timedelta(minutes=2)
TICK_SECONDS: Final = 10.0
SHORTEST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=30)
PAUSE_FACTOR: Final = 10
"""A pass over 4 million replicas takes minutes; between two passes ten times as long goes by."""
LATE_REPLICAS_AFTER: Final = timedelta(minutes=5)
"""A chunk that was on its way to the node when it declared its drain may be recorded after the node has left: it is looked for then."""
GONE_AFTER: Final = timedelta(days=7)
"""A node that is silent for so long does not come back to delete what it was told to, or to be asked to stay beyond its deadline."""
MOST_REASON: Final = 300


@attrs.frozen
class Draining:
    """Counts what is left on draining nodes, page by page, and lets a node go when nothing is, or at its deadline. Any number of
    coordinators may; they share the nodes by leases."""

    db: Pool
    clock: Clock
    by: PeerId
    bell: Bell
    deletions_due: Bell
    scans_due: Bell
    repairs_due: Bell
    name: str = "draining"

    async def step(self) -> Rest | None:
        """One page of one node."""
        now = self.clock()
        drain = await claim_drain(self.db, self.by, now, now + LEASE, LONGEST_PAUSE + LEASE)
        if drain is None:
            return Rest(TICK_SECONDS, self.bell)
        if drain.status != "draining":  # judged meanwhile
            await self._forget(drain)
            return None
        page = await drain_page(self.db, drain, PAGE_REPLICAS)
        await self._queue_forgotten(drain, page)
        counted = _counted(drain, page)
        if len(page) == PAGE_REPLICAS:
            await advance_drain(self.db, drain, self.by, counted, self.clock())
        else:
            await self._end_pass(drain, counted)
        return None

    async def _queue_forgotten(self, drain: Drain, page: Sequence[DrainingReplica]) -> None:
        """Chunks that repair does not know of: recorded after its scan, or of an upload that was under way then."""
        forgotten = [(each.file, each.index) for each in page if not each.is_queued]
        if forgotten and not await is_being_scanned(self.db, drain.node):
            await queue_chunks(self.db, forgotten, reason="draining", at=self.clock())
            self.repairs_due.ring()

    async def _end_pass(self, drain: Drain, counted: Drain) -> None:
        now = self.clock()
        if (reason := await self._may_leave(drain, counted, now)) is not None:
            await self._leave(drain, reason, now)
            return
        pause = min(max(PAUSE_FACTOR * (now - drain.pass_began_at), SHORTEST_PAUSE), LONGEST_PAUSE)
        again_at = now + pause
        if drain.deadline is not None and now < drain.deadline:
            again_at = min(again_at, drain.deadline)
        await finish_pass(self.db, drain, self.by, counted, again_at=again_at)
        log.debug("drain_counted", node=str(drain.node), left=counted.pass_replicas, only_here=counted.pass_only_here)

    async def _may_leave(self, drain: Drain, counted: Drain, now: datetime) -> str | None:
        """Why the node may be counted as left now; None while it may not."""
        is_gone = drain.absent_since is not None and now - drain.absent_since >= GONE_AFTER
        if not counted.pass_replicas:
            if not await are_deletions_queued(self.db, drain.node):
                return "drained: everything is elsewhere"
            self.deletions_due.ring()
            return (
                "drained: everything is elsewhere; silent since, so what it was to delete may lie there"
                if is_gone
                else None
            )
        if drain.deadline is None or drain.pass_began_at < drain.deadline:
            return None
        if counted.pass_only_here and not is_gone:
            return None
        lost = f", {counted.pass_only_here} of them the only ones" if counted.pass_only_here else ""
        return f"left at its deadline; {counted.pass_replicas} replicas were not copied{lost}"

    async def _leave(self, drain: Drain, reason: str, now: datetime) -> None:
        """All of it, or nothing: when the drain was cancelled, or declared anew, after this pass had begun, the node stays."""
        async with self.db.transaction() as connection:
            if not await lock_drain(connection, drain):
                return
            await change_status(connection, drain.node, "left", reason=reason, at=now, coordinator=self.by)
            await end_drain(connection, drain.node)
            late = timedelta(0) if drain.deadline and now >= drain.deadline else LATE_REPLICAS_AFTER
            await queue_node(connection, drain.node, reason="left", at=now + late)
        self.scans_due.ring()
        log.info("node_left", node=str(drain.node), reason=reason)

    async def _forget(self, drain: Drain) -> None:
        async with self.db.transaction() as connection:
            await end_drain(connection, drain.node)


def _counted(drain: Drain, page: Sequence[DrainingReplica]) -> Drain:
    """The pass with one page more."""
    failures = [each.failure for each in page if each.failure]
    return attrs.evolve(
        drain,
        cursor=page[-1].replica if page else drain.cursor,
        pass_replicas=drain.pass_replicas + len(page),
        pass_bytes=drain.pass_bytes + sum(each.size_bytes for each in page),
        pass_only_here=drain.pass_only_here + sum(not each.has_other for each in page),
        pass_waits_for=failures[0][:MOST_REASON] if failures else drain.pass_waits_for,
    )
