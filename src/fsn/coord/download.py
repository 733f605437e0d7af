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

FIRST_CHUNKS = 4
"""Fetched ahead of a reader of whom nothing is known yet."""
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
        self.fetching = 0
        """Chunks on their way to readers now."""

    @asynccontextmanager
    async def open_range(self, file: StoredFile, begin: int, end: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes begin..end (end not included) of a ready file, in pieces of at most 256 KiB.

        The iterator raises TooFewCopies when no replica of a chunk can be read, Corrupt when the catalogue contradicts itself. Reads
        ahead of the caller, as far as his pace deserves, within the window; stops when the block is left.
        """
        key = self.keyring.open(file)
        ahead = _Ahead(max(1, self._config.window_bytes // file.chunk_bytes))
        with sole_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_ahead, file, key, begin, end, ahead, nursery)
                pieces = _pieces(ahead, file.chunk_bytes, begin, end)
                try:
                    yield pieces
                finally:
                    nursery.cancel_scope.cancel()
                    await pieces.aclose()

    async def _read_ahead(
        self, file: StoredFile, key: FileKey, begin: int, end: int, ahead: "_Ahead", nursery: trio.Nursery
    ) -> None:
        """Start fetching chunk after chunk."""
        first, last = begin // file.chunk_bytes, (end - 1) // file.chunk_bytes
        with ahead.send:
            for page in range(first, last + 1, PAGE_CHUNKS):
                page_end = min(page + PAGE_CHUNKS - 1, last)
                chunks = await chunks_between(self._db, file.id, page, page_end)
                if [chunk.index for chunk in chunks] != list(range(page, page_end + 1)):
                    raise Corrupt(f"the catalogue has {len(chunks)} of the chunks {page}..{page_end} of file {file.id}")
                for chunk in chunks:
                    slot = _Slot(chunk)
                    await ahead.put(slot)
                    nursery.start_soon(self._fill, slot, key)

    async def _fill(self, slot: _Slot, key: FileKey) -> None:
        self.fetching += 1
        try:
            slot.data = await self._fetcher.fetch(slot.chunk, key)
        except FsnError as error:
            slot.failure = error
        finally:
            self.fetching -= 1
        slot.ready.set()


class _Ahead:
    """The chunks between the one who fetches and the one who reads, in order.

    A client that finds its next chunk waiting is slow enough: a few are kept ready for it. When it has to wait though it has taken all
    that was fetched ahead, twice as many are from then on, `most` in the end; so fast clients get full speed, and fifty slow ones do not
    hold fifty windows.
    """

    def __init__(self, most: int) -> None:
        self.send, self.receive = trio.open_memory_channel[_Slot](most)
        self._most = most
        self._depth = min(FIRST_CHUNKS, most)
        self._room = trio.Semaphore(self._depth)
        self._taken = 0  # since the depth is what it is: the first ones may be waited for by anybody

    async def put(self, slot: _Slot) -> None:
        """Wait for room."""
        await self._room.acquire()
        self.send.send_nowait(slot)

    async def take(self, slot: _Slot) -> bytes:
        """The bytes of the slot once they are there; makes room for another. Raises its failure."""
        self._taken += 1
        if not slot.ready.is_set():
            if self._taken > self._depth:
                self._grow()
            await slot.ready.wait()
        if slot.failure is not None:
            raise slot.failure
        data, slot.data = slot.data, b""
        self._room.release()
        return data

    def _grow(self) -> None:
        more = min(self._depth, self._most - self._depth)
        self._depth += more
        self._taken = 0
        for _ in range(more):
            self._room.release()


async def _pieces(ahead: _Ahead, chunk_bytes: int, begin: int, end: int) -> AsyncGenerator[bytes, None]:
    """The chunks' bytes in order, cut to the range."""
    async for slot in ahead.receive:
        data = await ahead.take(slot)
        start = slot.chunk.index * chunk_bytes
        yield data if begin <= start and start + len(data) <= end else data[max(begin - start, 0) : end - start]
