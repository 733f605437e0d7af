"""The chunk store on a file system: quota, then group commit, then the disk; reads in threads of their own."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from fsn.core.errors import Corrupt, DiskFull, NotFound
from fsn.core.ids import ReplicaId
from fsn.core.reconciliation import PrefixSum
from fsn.node.chunkstore.base import ChunkStore, RecoveryReport, StoredChunk, Totals, check_chunk, cut
from fsn.node.chunkstore.batch import BatchWriter, NewChunk
from fsn.node.chunkstore.committing import GroupCommit
from fsn.node.chunkstore.files import Files, disk_errors, read_errors
from fsn.node.chunkstore.index import Index, open_index
from fsn.node.chunkstore.layout import Layout
from fsn.node.chunkstore.quota import DEFAULT_RESERVE_BYTES, Quota
from fsn.node.chunkstore.recovery import recover
from fsn.runtime.clock import Clock, system_clock
from fsn.runtime.threads import run_in_thread

__all__ = ["DiskStore", "open_disk_store"]

DELETIONS_AT_ONCE: Final = 256
"""Deletions in one batch: each may touch a folder of its own, and a sync takes 0.2 ms on a fast disk, 10 ms on a slow one."""


class DiskStore(ChunkStore):
    """Chunks as files, one SQLite row each. Made by `open_disk_store`."""

    def __init__(
        self, layout: Layout, files: Files, index: Index, quota: Quota, commit: GroupCommit, recovery: RecoveryReport
    ) -> None:
        self._layout = layout
        self._files = files
        self._index = index
        self._quota = quota
        self._commit = commit
        self._recovery = recovery

    async def store(self, replica: ReplicaId, root: bytes, data: bytes | memoryview) -> None:
        """See `ChunkStore.store`. Durable: file, name and row are synced."""
        check_chunk(root, data)
        try:
            reservation = self._quota.reserve(len(data))
        except DiskFull:
            if await self._is_stored(replica, root):
                return
            raise
        await self._commit.store(NewChunk(replica, root, data), reservation)

    async def retrieve(self, replica: ReplicaId, offset: int = 0, length: int = 0) -> tuple[bytes, int]:
        """See `ChunkStore.retrieve`."""
        return await run_in_thread(self._retrieve, replica, offset, length)

    async def delete(self, replicas: Iterable[ReplicaId]) -> Mapping[ReplicaId, str]:
        """See `ChunkStore.delete`. In slices, so that stores get their turn between them."""
        distinct = [*dict.fromkeys(replicas)]
        failed: dict[ReplicaId, str] = {}
        for start in range(0, len(distinct), DELETIONS_AT_ONCE):
            failed.update(await self._commit.delete(distinct[start : start + DELETIONS_AT_ONCE]))
        return failed

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
        commit = GroupCommit(BatchWriter(layout, files, index, clock), quota, totals.count, note_batch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit.run)
            try:
                yield DiskStore(layout, files, index, quota, commit, recovery)
            finally:
                commit.stop()
    finally:
        index.close()
        if given is None:
            files.close()
