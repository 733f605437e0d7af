"""Finding chunks that want repair: silences that outlast the grace, nodes that are back, and the replicas of one node, page by page."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import attrs
import structlog

from fsn.coord.config import RepairConfig
from fsn.coord.database.chunk_states import chunk_states
from fsn.coord.database.pool import Pool
from fsn.coord.database.repair_scans import (
    RepairScan,
    ScannedReplica,
    WatchedSilence,
    advance_scan,
    claim_scan,
    finish_scan,
    node_replicas,
    queue_returned,
    queue_silent,
    watched_silences,
)
from fsn.coord.database.repairs import FoundChunk, queue_found, wake_repairs
from fsn.coord.upkeep.outlook import Outlook, Outlooks
from fsn.core.ids import NodeId, PeerId
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell, Rest

__all__ = ["Scanning", "SilenceWatching"]

log = structlog.get_logger()

FEW, ALL = 1, 2
"""The stages of a silence: first the chunks with few other replicas are made good, then all."""
PAGE_REPLICAS: Final = 1000
PAGE_SILENCES: Final = 10_000
LEASE: Final = timedelta(minutes=2)


@attrs.frozen
class SilenceWatching:
    """Queues nodes for a scan whose silence has outlasted the grace, and those that are back after that."""

    db: Pool
    outlooks: Outlooks
    clock: Clock
    config: RepairConfig
    scans_due: Bell
    name: str = "silence_watching"

    async def step(self) -> Rest:
        """Look once."""
        outlook = await self.outlooks.look()
        overdue = () if outlook.paused_because else _overdue(outlook)
        queued = await queue_silent(self.db, overdue, reason="silent", at=self.clock()) if overdue else ()
        back = await self._queue_returned(outlook)
        if queued or back:
            log.info("nodes_to_scan", silent=len(queued), back=len(back))
            self.scans_due.ring()
        return Rest(self.config.tick_seconds)

    async def _queue_returned(self, outlook: Outlook) -> Sequence[NodeId]:
        back: list[NodeId] = []
        page: Sequence[WatchedSilence] = await watched_silences(self.db, limit=PAGE_SILENCES)
        while page:
            ended = [each for each in page if each.node not in outlook.silences]
            back += await queue_returned(self.db, ended, reason="back", at=self.clock()) if ended else ()
            page = await watched_silences(self.db, after=page[-1].node, limit=PAGE_SILENCES)
        return back


def _overdue(outlook: Outlook) -> list[WatchedSilence]:
    found = []
    for silence in outlook.silences.values():
        if silence.watched_seconds >= outlook.grace.long_seconds:
            found.append(WatchedSilence(silence.node, ALL, silence.since))
        elif silence.watched_seconds >= outlook.grace.short_seconds:
            found.append(WatchedSilence(silence.node, FEW, silence.since))
    return found


@attrs.frozen
class Scanning:
    """Looks at all replicas of a queued node, a page a step, and queues the chunks that want repair; coordinators share the nodes."""

    db: Pool
    outlooks: Outlooks
    clock: Clock
    config: RepairConfig
    by: PeerId
    scans_due: Bell
    repairs_due: Bell
    name: str = "scanning"

    async def step(self) -> Rest | None:
        """Look at one page of one node's replicas."""
        now = self.clock()
        scan = await claim_scan(self.db, self.by, now, now + LEASE)
        if scan is None:
            return Rest(self.config.tick_seconds, self.scans_due)
        page = await node_replicas(self.db, scan.node, scan.cursor, PAGE_REPLICAS)
        if page:
            await self._scan(scan, page)
        if len(page) < PAGE_REPLICAS:
            await finish_scan(self.db, scan, self.clock())
            log.info("node_scanned", node=str(scan.node), reason=scan.reason)
        return None

    async def _scan(self, scan: RepairScan, page: Sequence[ScannedReplica]) -> None:
        outlook = await self.outlooks.current()
        states = await chunk_states(self.db, sorted({(each.file, each.index) for each in page}))
        plans = {key: outlook.plan(state) for key, state in states.items()}
        found = [FoundChunk(*key, found.live) for key, found in plans.items() if not found.is_settled]
        async with self.db.transaction() as connection:
            if await advance_scan(connection, scan, page[-1].replica):
                await queue_found(connection, found, reason=scan.reason, at=self.clock())
                await wake_repairs(connection, list(states), self.clock())  # a chunk that nobody could read, say
        self.repairs_due.ring()
        if found:
            log.info(
                "chunks_to_repair", node=str(scan.node), reason=scan.reason, chunks=len(found), looked_at=len(page)
            )
