"""Group commit: stores and deletions that are asked for at the same time share one batch, one wait and one index transaction."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, TypeGuard

import attrs
import structlog
import trio

from fsn.core.errors import DiskFull, FsnError, StorageError, Unavailable
from fsn.core.ids import ReplicaId
from fsn.node.chunkstore.batch import BatchWriter, Deleted, NewChunk, Outcome, Stored
from fsn.node.chunkstore.quota import Quota, Reservation
from fsn.runtime.threads import run_in_thread
from fsn.runtime.window import Window

__all__ = ["MAX_BATCH_BYTES", "MAX_BATCH_CHUNKS", "GroupCommit"]

log = structlog.get_logger()

MAX_BATCH_CHUNKS: Final = 64
MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
"""A batch ends at 64 chunks of 256 KiB: more would save little per chunk and let the first of them wait longer."""

MAX_QUEUED_BYTES: Final = 2 * MAX_BATCH_BYTES
"""One batch on its way to the disk and one gathering; whoever comes later waits for room."""


@attrs.define(eq=False)
class _Store:
    """A chunk that waits for the disk. Its reservation is settled by the writer's side, whoever has stopped waiting."""

    chunk: NewChunk
    reservation: Reservation
    done: trio.Event = attrs.field(factory=trio.Event)
    outcome: Outcome | None = None


@attrs.define(eq=False)
class _Change:
    """A deletion, or another change of what is there, that waits its turn behind the stores asked for before it."""

    work: Callable[[], Deleted]
    done: trio.Event = attrs.field(factory=trio.Event)
    outcome: Deleted | FsnError | None = None


def _is_failure(outcome: object) -> TypeGuard[StorageError]:
    return isinstance(outcome, StorageError) and not isinstance(outcome, DiskFull)


_Job = _Store | _Change
_Batch = list[_Store] | _Change


class GroupCommit:
    """A queue before one writing thread. While a batch is written the next one gathers; no chunk ever waits for company."""

    def __init__(
        self, writer: BatchWriter, quota: Quota, count: int, note_batch: Callable[[int, float], None] = lambda *_: None
    ) -> None:
        """`note_batch` is told of each batch of stores: how many chunks, and in how many seconds they were durable."""
        self._writer = writer
        self._quota = quota
        self.trash_count = 0
        self._note_batch = note_batch
        self._window = Window(MAX_QUEUED_BYTES)
        self._pending: deque[_Job] = deque()
        self._wake = trio.Event()
        self._stopping = False
        # A limiter of its own: reads that fill trio's forty threads must not keep the writer waiting.
        self._thread = trio.CapacityLimiter(1)
        self.count = count
        """How many chunks are stored."""
        self.failure: str | None = None
        """Why the last batch could not be written; None when it could, or the disk was only full."""

    @property
    def queued_bytes(self) -> int:
        """Bytes of chunks that wait for the disk, or are on their way to it."""
        return self._window.taken_bytes

    async def store(self, chunk: NewChunk, reservation: Reservation) -> None:
        """Return when `chunk` is durable; raises its error. Takes the reservation over. Cancelled: all of the chunk or nothing is kept."""
        try:
            await self._window.acquire(len(chunk.data))
        except BaseException:
            reservation.release()
            raise
        job = _Store(chunk, reservation)
        await self._wait(job)
        if isinstance(job.outcome, FsnError):
            raise type(job.outcome)(job.outcome.message) from job.outcome  # one error may stand for a whole batch

    async def delete(self, replicas: Sequence[ReplicaId]) -> Mapping[ReplicaId, str]:
        """Return when the replicas are gone for good; those that failed, with the reason."""
        return (await self.change(partial(self._writer.delete, replicas))).failed

    async def change(self, work: Callable[[], Deleted]) -> Deleted:
        """Return what `work` returned in the writing thread, counted; raises its error."""
        job = _Change(work)
        await self._wait(job)
        if isinstance(job.outcome, FsnError):
            raise job.outcome
        assert job.outcome is not None
        return job.outcome

    async def run(self) -> None:
        """Write batches until `stop`, and what is queued by then; cancelled, finish the batch under way and refuse the rest."""
        try:
            while batch := await self._next_batch():
                await self._write(batch)
        finally:
            self._stopping = True
            self._settle(self._pending)
            self._pending.clear()

    def stop(self) -> None:
        """Take nothing new; `run` returns when the queue is empty."""
        self._stopping = True
        self._wake.set()

    async def _wait(self, job: _Job) -> None:
        if self._stopping:
            self._settle([job])
        else:
            self._pending.append(job)
            self._wake.set()
        try:
            await job.done.wait()
        finally:
            if job in self._pending:  # cancelled before its turn
                self._pending.remove(job)
                self._settle([job])

    async def _next_batch(self) -> _Batch | None:
        while True:
            # Cancelled here, nothing has left the queue; and who waits in it may have been cancelled meanwhile: look after it.
            await trio.lowlevel.checkpoint()
            if self._pending:
                return self._take_stores() or self._take_change()
            if self._stopping:
                return None
            self._wake = trio.Event()
            await self._wake.wait()

    def _take_stores(self) -> list[_Store]:
        """The stores at the head of the queue: distinct ids, bounded in number and bytes."""
        taken: dict[ReplicaId, _Store] = {}
        size_bytes = 0
        while self._pending and isinstance(job := self._pending[0], _Store) and job.chunk.replica not in taken:
            size_bytes += len(job.chunk.data)
            if taken and (len(taken) == MAX_BATCH_CHUNKS or size_bytes > MAX_BATCH_BYTES):
                break
            taken[job.chunk.replica] = job
            self._pending.popleft()
        return list(taken.values())

    def _take_change(self) -> _Change | None:
        job = self._pending[0]
        if not isinstance(job, _Change):
            return None
        self._pending.popleft()
        return job

    async def _write(self, batch: _Batch) -> None:
        jobs = batch if isinstance(batch, list) else [batch]
        try:
            # A thread cannot be cancelled, and its outcome must reach those who wait: the shield is as long as one batch.
            with trio.CancelScope(shield=True):
                await self._in_thread(batch)
        except FsnError as error:
            for job in jobs:
                job.outcome = error
        finally:
            self._note_failure(jobs)
            self._settle(jobs)

    def _note_failure(self, jobs: Sequence[_Job]) -> None:
        """Log that the disk or the index has begun to fail, or works again: once, not for each chunk."""
        failure = next((job.outcome.message for job in jobs if _is_failure(job.outcome)), None)
        if failure and not self.failure:
            log.error("chunk_store_failing", reason=failure)
        elif self.failure and not failure:
            log.info("chunk_store_works_again")
        self.failure = failure

    async def _in_thread(self, batch: _Batch) -> None:
        if isinstance(batch, _Change):
            batch.outcome = await run_in_thread(batch.work, limiter=self._thread)
            return
        chunks, began = [job.chunk for job in batch], time.perf_counter()
        outcomes = await run_in_thread(self._writer.store, chunks, limiter=self._thread)
        self._note_batch(len(chunks), time.perf_counter() - began)
        for job in batch:
            job.outcome = outcomes[job.chunk.replica]

    def _settle(self, jobs: Iterable[_Job]) -> None:
        """End jobs with the outcome they have; without one they are refused."""
        for job in jobs:
            if job.outcome is None:
                job.outcome = Unavailable("the chunk store is closing")
            if isinstance(job, _Store):
                self._settle_store(job)
            elif isinstance(job.outcome, Deleted):
                self._quota.give_back(job.outcome.freed.size_bytes)
                self.count -= job.outcome.freed.count
                self._quota.trash_bytes += job.outcome.trashed.size_bytes
                self.trash_count += job.outcome.trashed.count
            job.done.set()

    def _settle_store(self, job: _Store) -> None:
        self._window.release(len(job.chunk.data))
        if job.outcome is Stored.NEW:
            job.reservation.commit()
            self.count += 1
        else:
            job.reservation.release()
