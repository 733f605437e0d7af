"""Downloads: the chunks of a range, read ahead within a window, each from whichever node answers rightly."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from fsn.coord.catalog import StoredChunk, StoredFile
from fsn.coord.config import DownloadConfig
from fsn.coord.database.chunks import chunks_between
from fsn.coord.database.pool import Pool
from fsn.coord.fetching import Fetcher
from fsn.coord.keyring import Keyring
from fsn.core.errors import Corrupt, FsnError
from fsn.core.keys import FileKey
from fsn.runtime.groups import sole_error

__all__ = ["Downloads"]

PAGE_CHUNKS = 256
"""Chunks whose replicas are looked up in one query: 64 MiB of file."""


@attrs.define(eq=False)
class _Slot:
    """One chunk on its way."""

    chunk: StoredChunk
    ready: trio.Event = attrs.field(factory=trio.Event)
    data: bytes = b""
    failure: FsnError | None = None


class Downloads:
    """Reads files back. Bytes leave only after their GCM tag was checked: right bytes or an error, never wrong bytes."""

    def __init__(
        self,
        db: Pool,
        fetcher: Fetcher,
        keyring: Keyring,
        config: DownloadConfig,
    ) -> None:
        self._db = db
        self._fetcher = fetcher
        self.keyring = keyring
        self._config = config

    @asynccontextmanager
    async def open_range(self, file: StoredFile, begin: int, end: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes begin..end (end not included) of a ready file, in pieces of at most 256 KiB.

        The iterator raises TooFewCopies when no replica of a chunk can be read, Corrupt when the catalogue contradicts itself. Reads
        ahead of the caller within the window; stops when the block is left.
        """
        key = self.keyring.open(file)
        slots = max(1, self._config.window_bytes // file.chunk_bytes)
        send, receive = trio.open_memory_channel[_Slot](slots)
        with sole_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_ahead, file, key, begin, end, send, nursery)
                pieces = _pieces(receive, file.chunk_bytes, begin, end)
                try:
                    yield pieces
                finally:
                    nursery.cancel_scope.cancel()  # first: the reader ahead must not find its channel closed
                    await pieces.aclose()

    async def _read_ahead(
        self,
        file: StoredFile,
        key: FileKey,
        begin: int,
        end: int,
        slots: trio.MemorySendChannel[_Slot],
        nursery: trio.Nursery,
    ) -> None:
        """Start fetching chunk after chunk; the channel's size bounds how far ahead of the reader."""
        first, last = begin // file.chunk_bytes, (end - 1) // file.chunk_bytes
        with slots:
            for page in range(first, last + 1, PAGE_CHUNKS):
                page_end = min(page + PAGE_CHUNKS - 1, last)
                chunks = await chunks_between(self._db, file.id, page, page_end)
                if [chunk.index for chunk in chunks] != list(range(page, page_end + 1)):
                    raise Corrupt(f"the catalogue has {len(chunks)} of the chunks {page}..{page_end} of file {file.id}")
                for chunk in chunks:
                    slot = _Slot(chunk)
                    await slots.send(slot)
                    nursery.start_soon(self._fill, slot, key)

    async def _fill(self, slot: _Slot, key: FileKey) -> None:
        try:
            slot.data = await self._fetcher.fetch(slot.chunk, key)
        except FsnError as error:
            slot.failure = error
        slot.ready.set()


async def _pieces(
    slots: trio.MemoryReceiveChannel[_Slot], chunk_bytes: int, begin: int, end: int
) -> AsyncGenerator[bytes, None]:
    """The chunks' bytes in order, cut to the range."""
    with slots:
        async for slot in slots:
            await slot.ready.wait()
            if slot.failure is not None:
                raise slot.failure
            start = slot.chunk.index * chunk_bytes
            data, slot.data = slot.data, b""
            yield data if begin <= start and start + len(data) <= end else data[max(begin - start, 0) : end - start]
