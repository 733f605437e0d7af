"""The chunk store on a file system: quota, then group commit, then the disk; reads in threads of their own."""

import errno
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from fsn.core.errors import Corrupt, DiskFull, NotFound
from fsn.core.ids import ReplicaId
from fsn.core.merkle import merkle_root
from fsn.core.reconciliation import PrefixSum
from fsn.node.chunkstore.aside import Aside
from fsn.node.chunkstore.aside_rows import AsideRows
from fsn.node.chunkstore.base import (
    ChunkStore,
    Ended,
    RecoveryReport,
    StoredChunk,
    Totals,
    TrashedChunk,
    check_chunk,
    cut,
)
from fsn.node.chunkstore.batch import BatchWriter, Deleted, NewChunk
from fsn.node.chunkstore.committing import GroupCommit
from fsn.node.chunkstore.files import Files, disk_errors, read_errors
from fsn.node.chunkstore.index import Index, open_index
from fsn.node.chunkstore.layout import Layout
from fsn.node.chunkstore.quota import DEFAULT_RESERVE_BYTES, Quota
from fsn.node.chunkstore.recovery import recover
from fsn.runtime.clock import Clock, system_clock
from fsn.runtime.threads import run_in_thread

__all__ = ["DiskStore", "open_disk_store"]

log = structlog.get_logger()

_FOR_EVER: Final = 2**62
DELETIONS_AT_ONCE: Final = 256
"""Deletions in one batch: each may touch a folder of its own, and a sync takes 0.2 ms on a fast disk, 10 ms on a slow one."""


class DiskStore(ChunkStore):
    """Chunks as files, one SQLite row each. Made by `open_disk_store`."""

    def __init__(
        self,
        layout: Layout,
        files: Files,
        index: Index,
        quota: Quota,
        commit: GroupCommit,
        writer: BatchWriter,
        aside: Aside,
        recovery: RecoveryReport,
    ) -> None:
        self._layout = layout
        self._files = files
        self._index = index
        self._quota = quota
        self._commit = commit
        self._writer = writer
        self._aside = aside
        self._recovery = recovery
        self._making_room = trio.Lock()

    async def store(self, replica: ReplicaId, root: bytes, data: bytes | memoryview) -> None:
        """See `ChunkStore.store`. Durable: file, name and row are synced."""
        check_chunk(root, data)
        try:
            reservation = self._quota.reserve(len(data))
        except DiskFull:
            if await self._is_stored(replica, root):
                return
            raise
        try:
            await self._make_room()
        except BaseException:
            reservation.release()
            raise
        await self._commit.store(NewChunk(replica, root, data), reservation)

    async def retrieve(self, replica: ReplicaId, offset: int = 0, length: int = 0) -> tuple[bytes, int]:
        """See `ChunkStore.retrieve`."""
        return await run_in_thread(self._retrieve, replica, offset, length)

    async def delete(self, replicas: Iterable[ReplicaId]) -> Mapping[ReplicaId, str]:
        """See `ChunkStore.delete`. In slices, so that stores get their turn between them."""
        return await self._in_slices(replicas, self._writer.delete)

    async def trash(self, replicas: Iterable[ReplicaId]) -> Mapping[ReplicaId, str]:
        """See `ChunkStore.trash`."""
        return await self._in_slices(replicas, self._aside.trash)

    async def list_trash(self, after: ReplicaId | None = None, limit: int = 100) -> Sequence[TrashedChunk]:
        """See `ChunkStore.list_trash`."""
        return await run_in_thread(self._aside.rows.page, after, limit)

    async def restore(self, replicas: Iterable[ReplicaId]) -> Mapping[ReplicaId, str]:
        """See `ChunkStore.restore`. Raises `DiskFull` before anything of a slice is restored."""
        failed: dict[ReplicaId, str] = {}
        for some in _slices(replicas):
            found = await run_in_thread(self._aside.rows.find_trash, some)
            reservation = self._quota.reserve(sum(each.chunk.size_bytes for each in found.values()))
            try:
                failed.update((await self._commit.change(partial(self._aside.restore, some))).failed)
            finally:
                reservation.release()
        return failed

    async def empty_trash(self, before: int | None = None) -> Totals:
        """See `ChunkStore.empty_trash`."""
        limit = _FOR_EVER if before is None else before
        gone = (await self._commit.change(partial(self._aside.empty, limit))).trashed
        return Totals(-gone.count, -gone.size_bytes)

    def trash_totals(self) -> Totals:
        """See `ChunkStore.trash_totals`."""
        return Totals(self._commit.trash_count, self._quota.trash_bytes)

    async def check(self, replica: ReplicaId) -> str | None:
        """See `ChunkStore.check`. Raises `StorageError` when the disk fails otherwise."""
        reason = await run_in_thread(self._examine, replica)
        if reason is not None:
            await self._commit.change(partial(self._aside.set_aside, replica, reason))
        return reason

    async def losses(self, limit: int) -> Mapping[ReplicaId, str]:
        """See `ChunkStore.losses`."""
        return await run_in_thread(self._aside.rows.losses, limit)

    async def forget_losses(self, replicas: Iterable[ReplicaId]) -> None:
        """See `ChunkStore.forget_losses`."""
        await self._write(partial(self._aside.rows.forget_losses, replicas))

    async def note_challenges(self, ended: Mapping[ReplicaId, Ended]) -> None:
        """See `ChunkStore.note_challenges`; one transaction."""
        await self._write(partial(self._index.note_challenges, ended))

    async def recall(self, key: str) -> str | None:
        """See `ChunkStore.recall`."""
        return await run_in_thread(self._index.setting, key)

    async def remember(self, key: str, value: str) -> None:
        """See `ChunkStore.remember`."""
        await self._write(partial(self._index.set_setting, key, value))

    async def _write(self, work: Callable[[], None]) -> None:
        def write() -> Deleted:
            work()
            return Deleted(Totals(0, 0), {})

        await self._commit.change(write)

    async def _in_slices(
        self, replicas: Iterable[ReplicaId], work: Callable[[Sequence[ReplicaId]], Deleted]
    ) -> dict[ReplicaId, str]:
        failed: dict[ReplicaId, str] = {}
        for some in _slices(replicas):
            failed.update((await self._commit.change(partial(work, some))).failed)
        return failed

    async def _make_room(self) -> None:
        """Remove trash that is in the way, the oldest first."""
        while self._quota.excess_bytes():
            async with self._making_room:
                before = self._quota.trash_bytes
                if wanted := self._quota.excess_bytes():
                    await self._commit.change(partial(self._aside.empty, _FOR_EVER, wanted))
                    log.info("trash_gave_room", size_bytes=before - self._quota.trash_bytes)
                    if self._quota.trash_bytes == before:
                        return  # the index knows no more of it

    def _examine(self, replica: ReplicaId) -> str | None:
        row = self._index.find(replica)
        if row is None:
            return None
        try:
            with read_errors(path := self._layout.final(replica)):
                data = self._files.read(path, 0, row.size_bytes + 1)
        except Corrupt as error:
            return None if self._index.find(replica) is None else cut_reason(error)
        if len(data) == row.size_bytes and merkle_root(data) == row.root:
            return None
        return None if self._index.find(replica) is None else "other bytes than were stored"

    async def list(self, after: ReplicaId | None = None, limit: int = 100) -> Sequence[StoredChunk]:
        """See `ChunkStore.list`."""
        return await run_in_thread(self._index.page, after, limit)

    async def sums(self, within: Sequence[int] | None = None) -> Mapping[int, PrefixSum]:
        """See `ChunkStore.sums`."""
        return await run_in_thread(self._index.sums, within)

    async def list_within(
        self, prefixes: Sequence[int], after: ReplicaId | None = None, limit: int = 100
    ) -> Sequence[StoredChunk]:
        """See `ChunkStore.list_within`."""
        return await run_in_thread(self._index.page_within, prefixes, after, limit)

    def totals(self) -> Totals:
        """See `ChunkStore.totals`."""
        return Totals(self._commit.count, self._quota.used_bytes)

    def free_bytes(self) -> int:
        """See `ChunkStore.free_bytes`; one `statvfs`."""
        return self._quota.free_bytes()

    @property
    def failure(self) -> str | None:
        """Why the last batch could not be written, in words; None while the disk and the index do what they are asked (or are full)."""
        return self._commit.failure

    @property
    def recovery(self) -> RecoveryReport:
        """See `ChunkStore.recovery`."""
        return self._recovery

    @property
    def queued_bytes(self) -> int:
        """Bytes of chunks that are not durable yet."""
        return self._commit.queued_bytes

    async def _is_stored(self, replica: ReplicaId, root: bytes) -> bool:
        row = await run_in_thread(self._index.find, replica)
        if row is None or row.root != root:
            return False
        path = self._layout.final(replica)
        with disk_errors(path):
            return await run_in_thread(self._files.size, path) == row.size_bytes

    def _retrieve(self, replica: ReplicaId, offset: int, length: int) -> tuple[bytes, int]:
        row = self._index.find(replica)
        if row is None:
            raise NotFound(f"replica {replica.hex} is not stored here")
        offset, length = cut(row.size_bytes, offset, length)
        path = self._layout.final(replica)
        with read_errors(path):
            data = self._files.read(path, offset, length)
        if len(data) != length:
            raise Corrupt(
                f"replica {replica.hex} must have {row.size_bytes} bytes; the file ends {length - len(data)} before that"
            )
        return data, row.size_bytes


def _slices(replicas: Iterable[ReplicaId]) -> Iterator[list[ReplicaId]]:
    distinct = [*dict.fromkeys(replicas)]
    for start in range(0, len(distinct), DELETIONS_AT_ONCE):
        yield distinct[start : start + DELETIONS_AT_ONCE]


def cut_reason(error: Corrupt) -> str:
    """Without the path, which is the operator's business."""
    return "unreadable" if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO else "missing"


def _disk_free_bytes(files: Files, data_dir: Path) -> int:
    with disk_errors(data_dir):
        return files.free_bytes(data_dir)


@asynccontextmanager
async def open_disk_store(
    data_dir: Path,
    *,
    capacity_bytes: int,
    files: Files | None = None,
    clock: Clock = system_clock,
    reserve_bytes: int = DEFAULT_RESERVE_BYTES,
    note_batch: Callable[[int, float], None] = lambda *_: None,
) -> AsyncIterator[DiskStore]:
    """The store in the folder `data_dir` (which exists), recovered and ready; one at a time. On leaving, what was asked for is finished.

    Raises `StorageError` (also `DiskFull`) when index or disk cannot be brought to agree. A damaged index is put aside and made anew
    from the chunks. `note_batch` is told of each batch that was written: how many chunks, and how many seconds.
    """
    given, files = files, files or Files()
    layout = Layout(data_dir)
    index, is_rebuilt = await run_in_thread(open_index, layout)
    try:
        recovery = await run_in_thread(recover, layout, files, index, clock)
        recovery = attrs.evolve(recovery, index_rebuilt=is_rebuilt)
        totals = await run_in_thread(index.totals)
        quota = Quota(capacity_bytes, totals.size_bytes, lambda: _disk_free_bytes(files, data_dir), reserve_bytes)
        writer = BatchWriter(layout, files, index, clock)
        commit = GroupCommit(writer, quota, totals.count, note_batch)
        aside = Aside(layout, files, AsideRows(index), clock)
        trashed = await run_in_thread(aside.rows.trash_totals)
        commit.trash_count, quota.trash_bytes = trashed.count, trashed.size_bytes
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit.run)
            try:
                yield DiskStore(layout, files, index, quota, commit, writer, aside, recovery)
            finally:
                commit.stop()
    finally:
        index.close()
        if given is None:
            files.close()
