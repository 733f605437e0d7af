"""Repairing: chunks with too few replicas are read, sealed anew and stored beside the remaining ones; surplus is let go."""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import structlog
import trio

from fsn.coord.catalog import PlacedReplica, StoredChunk, StoredFile
from fsn.coord.config import RepairConfig
from fsn.coord.database.chunk_states import ChunkState, chunk_states
from fsn.coord.database.files import files_by_id
from fsn.coord.database.pool import Pool
from fsn.coord.database.repairs import QueuedRepair, claim_repairs
from fsn.coord.fetching import Fetcher
from fsn.coord.keyring import Keyring
from fsn.coord.metrics import CoordinatorMetrics
from fsn.coord.replication import Replicator
from fsn.coord.upkeep.outlook import Outlook, Outlooks
from fsn.coord.upkeep.repair_recording import Attempt, RepairRecorder
from fsn.core.errors import FsnError
from fsn.core.ids import FileId, PeerId, ReplicaId
from fsn.core.keys import FileKey
from fsn.core.repair import LONGEST_BACKOFF_SECONDS, Plan
from fsn.runtime.clock import Clock
from fsn.runtime.groups import sole_error
from fsn.runtime.supervise import Bell, Rest
from fsn.runtime.window import Window

__all__ = ["Repairing"]

log = structlog.get_logger()

BATCH_CHUNKS: Final = 256
"""Claimed at once: one statement for so many."""
ROUND_SECONDS: Final = 30.0
"""A step begins no further chunk after so long; what it has claimed and not begun goes back."""
LEASE: Final = timedelta(minutes=4)
"""Longer than a round and the slowest chunk after it. Too short is harmless: who comes second finds the chunk whole."""
LATEST: Final = timedelta(seconds=LONGEST_BACKOFF_SECONDS) + timedelta(hours=1)
"""Nothing pauses for longer than this."""
BUSY_SECONDS: Final = 0.1
"""How often repair looks whether user traffic has ended."""


class Repairing:
    """Works the queue off, the chunks with the fewest replicas first. Any number of coordinators may."""

    name = "repairing"

    def __init__(
        self,
        db: Pool,
        outlooks: Outlooks,
        fetcher: Fetcher,
        replicator: Replicator,
        keyring: Keyring,
        recorder: RepairRecorder,
        *,
        by: PeerId,
        clock: Clock,
        config: RepairConfig,
        repairs_due: Bell,
        is_busy: Callable[[], bool],
        metrics: CoordinatorMetrics,
    ) -> None:
        self.db = db
        self.outlooks = outlooks
        self.fetcher = fetcher
        self.replicator = replicator
        self.keyring = keyring
        self.recorder = recorder
        self.config = config
        self.is_busy = is_busy
        self.metrics = metrics
        self.window = Window(config.window_bytes)
        self.active = 0
        """Chunks in repair now."""
        self._by = by
        self._clock = clock
        self._repairs_due = repairs_due

    async def step(self) -> Rest | None:
        """Claim a batch of chunks and see to them, for half a minute at most, and the slowest chunk after it."""
        now = self._clock()
        claimed = await claim_repairs(self.db, self._by, now, now + LEASE, now + LATEST, BATCH_CHUNKS)
        if not claimed:
            return Rest(self.config.tick_seconds, self._repairs_due)
        outlook = await self.outlooks.current()
        states = await chunk_states(self.db, [repair.key for repair in claimed])
        files = await files_by_id(self.db, sorted({repair.file for repair in claimed}))
        await _Round(self, outlook, files, [(repair, states.get(repair.key)) for repair in claimed]).run()
        return None


class _Round:
    """One batch. Workers take chunk after chunk; what they have done is recorded beside them, many in one transaction."""

    def __init__(
        self,
        repairing: Repairing,
        outlook: Outlook,
        files: dict[FileId, StoredFile],
        claimed: Sequence[tuple[QueuedRepair, ChunkState | None]],
    ) -> None:
        self._with = repairing
        self._outlook = outlook
        self._files = files
        self._waiting = deque(claimed)
        self._deadline = trio.current_time() + ROUND_SECONDS
        self._done: list[Attempt] = []
        self._news = trio.Event()
        self._keys: dict[FileId, FileKey] = {}
        self._is_last = False

    async def run(self) -> None:
        """Return when every chunk has an outcome and all outcomes are recorded. Copies that could not be recorded are discarded."""
        try:
            with sole_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._record_all)
                    async with trio.open_nursery() as working:
                        for _ in range(min(self._with.config.chunks_at_once, len(self._waiting))):
                            working.start_soon(self._work)
                    self._tell(None)
        finally:
            self._with.recorder.discard(self._done)

    async def _work(self) -> None:
        while self._waiting:
            await self._give_way()
            if not self._waiting:
                return
            repair, state = self._waiting.popleft()
            if trio.current_time() >= self._deadline:
                self._tell(Attempt(repair, is_untried=True))
                continue
            self._with.active += 1
            try:
                self._tell(await self._attempt(repair, state))
            finally:
                self._with.active -= 1

    async def _give_way(self) -> None:
        """While users' files come in or go out only few chunks are in repair."""
        config = self._with.config
        while self._with.active >= config.busy_chunks_at_once and self._with.is_busy():
            if trio.current_time() >= self._deadline:
                return
            await trio.sleep(BUSY_SECONDS)

    async def _attempt(self, repair: QueuedRepair, state: ChunkState | None) -> Attempt:
        """Make the copies that a chunk misses; everything else is the recording's affair."""
        if state is None or state.file_status != "ready" or (file := self._files.get(repair.file)) is None:
            return Attempt(repair)
        found = self._outlook.plan(state)
        if not found.missing:
            return Attempt(repair)
        try:
            with self._with.metrics.repairing_chunk():
                return Attempt(repair, await self._copy(file, state, found))
        except FsnError as error:
            log.warning("repair_failed", chunk=state.id.hex, live=found.live, tries=repair.tries, reason=error.message)
            return Attempt(repair, failure=error.message)

    async def _copy(self, file: StoredFile, state: ChunkState, found: Plan[ReplicaId]) -> tuple[PlacedReplica, ...]:
        key = self._keys.get(file.id) or self._keys.setdefault(file.id, self._with.keyring.open(file))
        async with self._with.window.holding(state.size_bytes):
            plaintext = await self._with.fetcher.fetch(_readable(state, found), key)
            return await self._with.replicator.store_beside(
                key,
                state.id,
                plaintext,
                numbers=_free_numbers(state, found),
                beside=tuple(holder.candidate.node for holder in found.counting),
                without=frozenset(replica.node for replica in state.replicas if not replica.is_lost),
                rather_not=frozenset(replica.node for replica in state.replicas if replica.is_lost),
            )

    def _tell(self, attempt: Attempt | None) -> None:
        """Hand an attempt over to be recorded; None: that was the last."""
        if attempt is None:
            self._is_last = True
        else:
            self._done.append(attempt)
        self._news.set()

    async def _record_all(self) -> None:
        while self._done or not self._is_last:
            await self._news.wait()
            self._news = trio.Event()
            while self._done:
                await self._with.recorder.record(self._done)


def _readable(state: ChunkState, found: Plan[ReplicaId]) -> StoredChunk:
    """The chunk as the fetcher takes it: replicas that are lost, as far as is known, last."""
    return StoredChunk(
        state.index,
        state.id,
        state.size_bytes,
        tuple((holder.mark, holder.candidate.node) for holder in found.sources),
        tuple((holder.mark, holder.candidate.node) for holder in found.last_resort),
    )


def _free_numbers(state: ChunkState, found: Plan[ReplicaId]) -> list[int]:
    """Which pieces of the scheme are missing."""
    counting = {holder.mark for holder in found.counting}
    taken = {replica.number for replica in state.replicas if replica.id in counting}
    return [number for number in range(state.wanted + len(taken)) if number not in taken][: found.missing]
