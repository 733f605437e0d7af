"""Repair as a whole: its workers, wired; and what the doors show of it."""

from collections.abc import Callable, Mapping
from random import Random

import attrs

from fsn.coord.config import RepairConfig
from fsn.coord.database.pool import Pool
from fsn.coord.database.presence import Silence, silences
from fsn.coord.fetching import Fetcher
from fsn.coord.keyring import Keyring
from fsn.coord.membership import Membership
from fsn.coord.metrics import CoordinatorMetrics
from fsn.coord.recording import Recorder
from fsn.coord.replication import Replicator
from fsn.coord.upkeep.outlook import Outlooks
from fsn.coord.upkeep.repair_recording import RepairRecorder
from fsn.coord.upkeep.repairing import Repairing
from fsn.coord.upkeep.scanning import Scanning, SilenceWatching
from fsn.core.ids import NodeId, PeerId
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell, Worker

__all__ = ["Repair", "build_repair", "read_silences"]

PAGE_SILENCES = 10_000


@attrs.frozen
class Repair:
    """The workers, and what they know."""

    outlooks: Outlooks
    watching: SilenceWatching
    scanning: Scanning
    repairing: Repairing
    scans_due: Bell
    """Ring it after `queue_node`."""
    repairs_due: Bell
    """Ring it after `report_lost`."""

    @property
    def workers(self) -> list[Worker]:
        """To be supervised."""
        return [self.watching, self.scanning, self.repairing]


def build_repair(
    db: Pool,
    membership: Membership,
    fetcher: Fetcher,
    replicator: Replicator,
    keyring: Keyring,
    recorder: Recorder,
    *,
    by: PeerId,
    clock: Clock,
    chance: Random,
    config: RepairConfig,
    metrics: CoordinatorMetrics,
    scans_due: Bell,
    repairs_due: Bell,
    deletions_due: Bell,
    is_busy: Callable[[], bool],
) -> Repair:
    """Wire it; nothing runs yet."""

    async def silent_now() -> Mapping[NodeId, Silence]:
        return await read_silences(db, clock)

    outlooks = Outlooks(silent_now, lambda: membership.counts["online"], config, metrics)
    recording = RepairRecorder(
        db,
        outlooks,
        membership,
        recorder,
        by=by,
        clock=clock,
        chance=chance,
        deletions_due=deletions_due,
        metrics=metrics,
    )
    repairing = Repairing(
        db, outlooks, fetcher, replicator, keyring, recording,
        by=by, clock=clock, config=config, repairs_due=repairs_due, is_busy=is_busy, metrics=metrics,
    )  # fmt: skip
    return Repair(
        outlooks,
        SilenceWatching(db, outlooks, clock, config, scans_due),
        Scanning(db, outlooks, clock, config, by, scans_due, repairs_due),
        repairing,
        scans_due,
        repairs_due,
    )


async def read_silences(db: Pool, clock: Clock) -> Mapping[NodeId, Silence]:
    """All nodes that are silent now."""
    found: dict[NodeId, Silence] = {}
    now = clock()
    page = await silences(db, now, limit=PAGE_SILENCES)
    while page:
        found |= {silence.node: silence for silence in page}
        page = await silences(db, now, after=page[-1].node, limit=PAGE_SILENCES) if len(page) == PAGE_SILENCES else ()
    return found
