"""The whole upload from one stream of bytes: cut into chunks, sealed, placed, stored, recorded; a small file in one piece."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from fsn.coord.admission import Admission
from fsn.coord.catalog import ChunkRecord, StoredFile, Upload, WholeFile
from fsn.coord.recording import Recorder
from fsn.coord.replication import Replicator
from fsn.coord.sessions import Sessions
from fsn.core.chunking import CHUNK_BYTES, Chunker
from fsn.core.errors import Invalid
from fsn.core.ids import UserId, chunk_id
from fsn.core.sealing import fingerprint
from fsn.runtime.groups import sole_error
from fsn.runtime.window import Window

__all__ = ["ChunkWriter", "StreamedUploads"]

SMALL_CHUNKS = 4
"""A file of up to so many chunks (1 MiB) is kept in memory until all its replicas are durable, and recorded in one piece: one
commit, shared with others, in place of three, its cost charged in the same, and nothing to clean up when the client leaves before."""
ABORTING_SECONDS = 10.0
LOOK_BYTES = 64 << 20
"""A stream of unknown size has nothing set aside: so often it is looked at whether what has come can still be paid."""


@attrs.frozen
class ChunkWriter:
    """The way of one chunk: fingerprint, sealed copies on nodes, record. All uploads share its window."""

    replicator: Replicator
    recorder: Recorder
    window: Window

    async def store(self, upload: Upload, index: int, data: memoryview | bytes) -> ChunkRecord:
        """The chunk's record, all its replicas durable, not recorded yet."""
        file, chunk = upload.file, chunk_id(upload.file.id, index)
        async with self.window.holding(len(data)):
            mark = fingerprint(upload.key, data)
            with self.replicator.metrics.storing_chunk():
                replicas = await self.replicator.store(file.id, upload.key, index, chunk, data, file.pieces)
        return ChunkRecord(file.id, index, chunk, len(data), mark, replicas)

    async def store_and_record(self, upload: Upload, index: int, data: memoryview | bytes) -> None:
        """Return when the chunk counts. Raises TooFewNodes, TooFewCopies, Conflict, Unavailable."""
        await self.recorder.record(await self.store(upload, index, data))


class StreamedUploads:
    """Uploads that are one request."""

    def __init__(self, admission: Admission, writer: ChunkWriter, sessions: Sessions) -> None:
        self._admission = admission
        self._writer = writer
        self._sessions = sessions
        self._window_bytes = admission.config.window_bytes

    async def store_stream(
        self, user: UserId, filename: str, size_bytes: int | None, replicas: int | None, body: AsyncIterator[bytes]
    ) -> StoredFile:
        """Store `body` as a file; on return it is ready, every replica durable.

        `size_bytes` is what the client declared, None when it did not. On failure or cancellation nothing of it stays: the file was
        never there, or is dropped. Memory is bounded by the window, whatever the size.
        """
        upload = await self._admission.admit(user, filename, size_bytes, replicas)
        chunks = _Chunks(body)
        head = await chunks.take(SMALL_CHUNKS)
        if chunks.is_finished:
            _check_length(size_bytes, chunks.received)
            if size_bytes is None:
                await self._admission.check_credits(user, chunks.received, upload.file.pieces)
            return await self._store_small(upload, head, chunks.received)
        async with self._sessions.streaming(upload), self._dropped_unless_done(upload):
            await self._store_large(upload, head, chunks)
            _check_length(size_bytes, chunks.received)
            return await self._sessions.finish(upload, chunks.received)

    async def _store_small(self, upload: Upload, chunks: Sequence[memoryview], size_bytes: int) -> StoredFile:
        cost = await self._admission.cost(size_bytes, upload.file.pieces)
        records: list[ChunkRecord] = []

        async def store(index: int, chunk: memoryview) -> None:
            records.append(await self._writer.store(upload, index, chunk))

        is_stored = False
        try:
            with sole_error():
                async with trio.open_nursery() as nursery:
                    for index, chunk in enumerate(chunks):
                        nursery.start_soon(store, index, chunk)
            is_stored = True
        finally:
            if not is_stored:
                self._writer.recorder.discard([replica for record in records for replica in record.replicas])
        file = attrs.evolve(upload.file, size_bytes=size_bytes, status="ready", ready_at=self._admission.clock())
        await self._writer.recorder.record_whole(WholeFile(file, tuple(records), cost))
        return file

    async def _store_large(self, upload: Upload, head: Sequence[memoryview], chunks: "_Chunks") -> None:
        """Store the chunks, a window of them at a time."""
        window, index, look_at = Window(self._window_bytes), 0, 0

        async def store(index: int, chunk: memoryview) -> None:
            try:
                await self._writer.store_and_record(upload, index, chunk)
            finally:
                window.release(len(chunk))

        with sole_error():
            async with trio.open_nursery() as nursery:
                while head:
                    for chunk in head:
                        await window.acquire(len(chunk))
                        nursery.start_soon(store, index, chunk)
                        index += 1
                    if upload.file.size_bytes is None and chunks.received >= look_at:
                        look_at = chunks.received + LOOK_BYTES
                        await self._admission.check_credits(upload.file.user_id, chunks.received, upload.file.pieces)
                    head = await chunks.take(1)
                    self._admission.check_size(chunks.received)

    @asynccontextmanager
    async def _dropped_unless_done(self, upload: Upload) -> AsyncIterator[None]:
        is_done = False
        try:
            yield
            is_done = True
        finally:
            if not is_done:
                with trio.CancelScope(shield=True), trio.move_on_after(ABORTING_SECONDS):
                    await self._sessions.drop(upload)


class _Chunks:
    """A body as chunks, a few at a time."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self.received = 0
        """Bytes that have come."""
        self.is_finished = False
        """Whether the body has ended and all its chunks were taken."""
        self._body = aiter(body)
        self._chunker = Chunker()
        self._ready: list[memoryview] = []
        self._has_ended = False

    async def take(self, count: int) -> list[memoryview]:
        """At least `count` whole chunks, more if more have come; fewer, the last one perhaps shorter, when the body has ended."""
        while len(self._ready) < count + 1 and not self._has_ended:
            piece = await anext(self._body, None)
            if piece is None:
                self._has_ended = True
                last = self._chunker.finish()
                self._ready += [] if last is None else [last]
            else:
                self.received += len(piece)
                self._ready += self._chunker.feed(piece)
        taken, self._ready = self._ready[:count], self._ready[count:]
        self.is_finished = self._has_ended and not self._ready
        return taken


def _check_length(declared: int | None, received: int) -> None:
    if declared is not None and received != declared:
        raise Invalid(f"{declared} bytes were announced; {received} came", code="size_mismatch")


assert SMALL_CHUNKS * CHUNK_BYTES <= 1 << 20
