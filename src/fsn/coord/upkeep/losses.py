"""Losses that reads come upon, told to the catalogue many at a time: a download does not wait for that."""

from collections import defaultdict
from typing import Final

import structlog

from fsn.coord.database.pool import Pool
from fsn.coord.database.repairs import report_lost
from fsn.coord.metrics import CoordinatorMetrics
from fsn.core.ids import ReplicaId
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell, Rest

__all__ = ["LossReporting"]

log = structlog.get_logger()

MOST_NOTED: Final = 10_000
"""More are not remembered; whoever reads them next comes upon them again."""
BATCH: Final = 1000
REST_SECONDS: Final = 60.0


class LossReporting:
    """Takes notes of lost replicas and reports them; what is noted when the process ends is found again by the next read."""

    name = "loss_reporting"

    def __init__(self, db: Pool, *, clock: Clock, repairs_due: Bell, metrics: CoordinatorMetrics) -> None:
        self._db = db
        self._clock = clock
        self._repairs_due = repairs_due
        self._metrics = metrics
        self._noted: dict[ReplicaId, str] = {}
        self._bell = Bell()

    def note(self, replica: ReplicaId, reason: str) -> None:
        """A replica is lost; does not wait."""
        if len(self._noted) < MOST_NOTED:
            self._noted.setdefault(replica, reason)
            self._bell.ring()

    async def step(self) -> Rest | None:
        """Report a batch; what could not be written is noted still."""
        batch = dict(list(self._noted.items())[:BATCH])
        if not batch:
            return Rest(REST_SECONDS, self._bell)
        by_reason: dict[str, list[ReplicaId]] = defaultdict(list)
        for replica, reason in batch.items():
            by_reason[reason].append(replica)
        for reason, replicas in by_reason.items():
            count = await report_lost(self._db, replicas, reason=reason, at=self._clock())
            for replica in replicas:
                self._noted.pop(replica, None)
            if count:
                self._metrics.replicas_lost.inc(count)
                log.warning("replicas_lost", reason=reason, replicas=count)
                self._repairs_due.ring()
        return None
