"""Workers that look after what a node stores: every chunk is read once a month, losses are reported, the trash is emptied in time."""

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final, Protocol
from uuid import UUID

import attrs
import structlog
import trio

from fsn.core.errors import PeerError
from fsn.core.ids import PeerId, ReplicaId
from fsn.node.chunkstore.base import ChunkStore
from fsn.node.config import UpkeepConfig
from fsn.p2p.wire.limits import MAX_LOSSES
from fsn.p2p.wire.messages import LossesReported, ReportLosses, Request, Response
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell, Rest

__all__ = ["LossReporting", "ScrubStatus", "Scrubbing", "TrashEmptying"]

log = structlog.get_logger()

SETTING: Final = "scrub"
"""Where the cursor is kept in the index."""
KEEP_SECONDS: Final = 60.0
"""How often it is written down: what was read since the last time is read again after a crash."""
LOOK_SECONDS: Final = 60.0
BUSY_SECONDS: Final = 2.0
REPORT_SECONDS: Final = 10.0
_IDS: Final = 2**128


class Requests(Protocol):
    """What we need of a `fsn.p2p.client.Requester`."""

    async def request(self, peer: PeerId, message: Request, *, within_seconds: float) -> Response:
        """The peer's answer; raises `PeerError`."""


@attrs.define
class ScrubStatus:
    """How far the reading has come. Times in unix seconds; `ended_at` is that of the round before."""

    started_at: int
    cursor: str = ""
    """The last replica that was read, 32 hex digits; empty at the beginning of a round."""
    checked: int = 0
    lost: int = 0
    hurries: bool = False
    ended_at: int | None = None

    @property
    def share(self) -> float:
        """How much of the round is done: ids are random, so the cursor tells."""
        return int(self.cursor, 16) / _IDS if self.cursor else 0.0


@attrs.define(eq=False)
class Scrubbing:
    """Reads one chunk a step and compares it with its Merkle root, evenly over the round, only when nothing is being stored."""

    store: ChunkStore
    config: UpkeepConfig
    clock: Clock
    lost: Bell
    name: str = "scrubbing"
    bell: Bell = attrs.field(factory=Bell)
    status: ScrubStatus | None = None
    _kept_at: float = -KEEP_SECONDS

    @property
    def _now(self) -> int:
        return int(self.clock().timestamp())

    async def step(self) -> Rest | None:
        """Check the next chunk if it is due."""
        status = self.status = self.status or await self._load()
        if self.store.queued_bytes:
            return Rest(BUSY_SECONDS)
        if early := self._early_seconds(status):
            return Rest(min(early, LOOK_SECONDS), self.bell)
        after = ReplicaId(UUID(hex=status.cursor)) if status.cursor else None
        found = await self.store.list(after, 1)
        if not found:
            return await self._end_round(status)
        reason = await self.store.check(found[0].replica)
        status.cursor = found[0].replica.hex
        status.checked += 1
        if reason is not None:
            status.lost += 1
            log.error("chunk_lost", chunk=status.cursor, size_bytes=found[0].size_bytes, reason=reason)
            self.lost.ring()
        await self._keep(status)
        return Rest(found[0].size_bytes / self.config.scrub_bytes_per_second)

    def hurry(self) -> None:
        """Begin a round now, as fast as the settings allow."""
        ended = self.status.ended_at if self.status else None
        self.status = ScrubStatus(self._now, hurries=True, ended_at=ended)
        self._kept_at = -KEEP_SECONDS
        self.bell.ring()

    def _early_seconds(self, status: ScrubStatus) -> float:
        """Seconds until the round's share of time has come up to its share of chunks; 0 when it has."""
        if status.hurries:
            return 0.0
        whole = timedelta(days=self.config.scrub_days).total_seconds()
        passed = self._now - status.started_at
        if passed < 0:  # the clock was ahead when it began
            status.started_at, passed = self._now, 0
        # A round that has ended waits, with its cursor at the end, until its time is over.
        return max(0.0, status.share * whole - passed)

    async def _end_round(self, status: ScrubStatus) -> Rest:
        whole = timedelta(days=self.config.scrub_days).total_seconds()
        left = 0.0 if status.hurries else status.started_at + whole - self._now
        if left > 0 and status.cursor:
            return Rest(min(left, LOOK_SECONDS), self.bell)
        if status.checked:
            log.info("scrub_round_ended", checked=status.checked, lost=status.lost)
        self.status = ScrubStatus(self._now, ended_at=self._now)
        self._kept_at = -KEEP_SECONDS
        await self._keep(self.status)
        return Rest(LOOK_SECONDS, self.bell)

    async def _keep(self, status: ScrubStatus) -> None:
        if trio.current_time() - self._kept_at >= KEEP_SECONDS:
            self._kept_at = trio.current_time()
            await self.store.remember(SETTING, json.dumps(attrs.asdict(status)))

    async def _load(self) -> ScrubStatus:
        try:
            return ScrubStatus(**json.loads(await self.store.recall(SETTING) or ""))
        except (ValueError, TypeError):  # none yet, or one of another version: begin anew
            return ScrubStatus(self._now)


@attrs.define(eq=False)
class LossReporting:
    """Tells a coordinator of losses, until one has acknowledged them: all coordinators share what they know."""

    store: ChunkStore
    requests: Requests
    connected: Callable[[], Iterable[PeerId]]
    bell: Bell
    name: str = "loss_reporting"

    async def step(self) -> Rest | None:
        """Report some to the first coordinator that takes them."""
        losses = await self.store.losses(MAX_LOSSES)
        if not losses:
            return Rest(LOOK_SECONDS, self.bell)
        for peer in self.connected():
            try:
                answer = await self.requests.request(peer, ReportLosses(losses), within_seconds=REPORT_SECONDS)
            except PeerError as error:
                log.warning("losses_not_reported", coordinator=peer, losses=len(losses), reason=error.message)
                continue
            if isinstance(answer, LossesReported):
                await self.store.forget_losses(losses)
                log.info("losses_reported", coordinator=peer, losses=len(losses))
                return None
        return Rest(LOOK_SECONDS)


@attrs.define(eq=False)
class TrashEmptying:
    """Garbage leaves the trash when it has lain there long enough."""

    store: ChunkStore
    config: UpkeepConfig
    clock: Clock
    name: str = "trash_emptying"

    async def step(self) -> Rest | None:
        """Remove some."""
        before = self.clock() - timedelta(days=self.config.trash_days)
        removed = await self.store.empty_trash(int(before.timestamp()))
        if not removed.count:
            return Rest(600)
        log.info("trash_emptied", replicas=removed.count, size_bytes=removed.size_bytes)
        return None
