"""The worker that says that this coordinator is there, notices when it was not, and looks after what others have left behind."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import structlog
import trio

from fsn.coord.config import MembershipConfig
from fsn.coord.database.coordinators import (
    begin_watch,
    bury,
    enter,
    forget_coordinators,
    leave,
    list_coordinators,
    restart_presences,
    stay,
)
from fsn.coord.database.node_states import change_status, last_transition, maintenance_over, transitions_since
from fsn.coord.database.pool import Pool
from fsn.coord.database.presence import judge_by_presence
from fsn.coord.liveness.coordinators import Coordinators
from fsn.coord.membership import Membership
from fsn.core.errors import Unavailable
from fsn.core.ids import PeerId
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Rest

__all__ = ["Watching"]

log = structlog.get_logger()

BATCH: Final = 1000
DRIFT_SECONDS: Final = 2.0
"""A clock on the wall that went so much more or less than time itself was set."""
FORGET_AFTER: Final = timedelta(days=30)
LEAVE_SECONDS: Final = 2.0


class Watching:
    """Keeps this coordinator's row and watch; a watch is what makes a node's absence count.

    One checkpoint after another, `checkpoint_seconds` apart. After a gap of `stall_seconds` (stopped, stalled, without a database), or
    when the clock was set, the old watch has ended at its last checkpoint and a new one begins `settle_seconds` from now, when nodes
    have had the time to come back.
    """

    name: Final = "watching"

    def __init__(
        self,
        db: Pool,
        us: PeerId,
        membership: Membership,
        *,
        clock: Clock,
        config: MembershipConfig,
        addresses: Callable[[], tuple[str, ...]],
    ) -> None:
        self._db = db
        self._us = us
        self._membership = membership
        self._clock = clock
        self._config = config
        self._addresses = addresses
        self._last: tuple[datetime, float] | None = None
        self._watches_from: float = 0.0
        self._seen_transition: int | None = None
        self.others = Coordinators(us, dead_seconds=config.dead_seconds)

    async def enter(self) -> None:
        """Before the doors open: what the last run of this coordinator heard is over."""
        await enter(self._db, self._us, self._addresses(), self._clock())

    async def leave(self) -> None:
        """After the doors are closed: nobody need wait to find out. Not when the database is away."""
        with trio.move_on_after(LEAVE_SECONDS), suppress(Unavailable):
            await leave(self._db, self._us, self._clock())

    async def step(self) -> Rest:
        """A checkpoint, and a look at the others."""
        at, now = self._clock(), trio.current_time()
        if self._was_away(at, now) or not await stay(self._db, self._us, self._addresses(), at):
            await self._begin(at, now)
        self._last = at, now
        await self._look_at_coordinators(now)
        await self._look_at_nodes(at, now)
        return Rest(self._config.checkpoint_seconds)

    @property
    def is_settled(self) -> bool:
        """Whether nodes have had the time to come back since this coordinator started, or was away."""
        return self._last is not None and self._last[1] >= self._watches_from

    def _was_away(self, at: datetime, now: float) -> bool:
        return self._last is None or now - self._last[1] > self._config.stall_seconds or self._drift(at, now) != 0

    def _drift(self, at: datetime, now: float) -> float:
        """How far the clock was set since the last checkpoint; 0 for what is no more than inexact."""
        if self._last is None:
            return 0.0
        drift = (at - self._last[0]).total_seconds() - (now - self._last[1])
        return drift if abs(drift) > DRIFT_SECONDS else 0.0

    async def _begin(self, at: datetime, now: float) -> None:
        if self._last is not None:
            away_seconds, set_seconds = now - self._last[1], self._drift(at, now)
            log.warning("coordinator_was_away", seconds=round(away_seconds, 1), clock_set_seconds=round(set_seconds, 1))
            if set_seconds:
                await restart_presences(self._db, self._us)
            # Others may have taken us for dead and ended what we hear.
            self._membership.forget_recorded(since=at if set_seconds else None)
            self._membership.changed.ring()
        self._watches_from = now + self._config.settle_seconds
        self.others.resume(now)
        begins_at = at + timedelta(seconds=self._config.settle_seconds)
        await begin_watch(self._db, self._us, self._addresses(), at, begins_at)

    async def _look_at_coordinators(self, now: float) -> None:
        self.others.look(await list_coordinators(self._db), now)
        for record in self.others.dead(now):
            if await bury(self._db, record):
                log.warning("coordinator_missing", coordinator=record.peer, alive_at=record.alive_at.isoformat())
            self.others.note_buried(record)
        await forget_coordinators(self._db, self._clock() - FORGET_AFTER)

    async def _look_at_nodes(self, at: datetime, now: float) -> None:
        for node in await maintenance_over(self._db, at, BATCH):
            reason = "the declared maintenance is over"
            await change_status(self._db, node, "online", reason=reason, at=at, coordinator=self._us)
        if now >= self._watches_from:
            await judge_by_presence(self._db, self._us, at, BATCH)
        if self._seen_transition is None:
            self._seen_transition = await last_transition(self._db)
        for transition in await transitions_since(self._db, self._seen_transition, BATCH):
            self._membership.note_status(transition.node, transition.end)
            self._seen_transition = transition.id
