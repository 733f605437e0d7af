"""Downloads: the chunks of a range, read ahead within a window, each from whichever node answers rightly."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import attrs
import structlog
import trio

from fsn.coord.catalog import StoredChunk, StoredFile
from fsn.coord.config import DownloadConfig
from fsn.coord.database.chunks import chunks_between
from fsn.coord.database.pool import Pool
from fsn.coord.keyring import Keyring
from fsn.coord.membership import Member, Membership
from fsn.core.errors import Corrupt, FsnError, PeerError, ProtocolViolation, TooFewCopies
from fsn.core.ids import ReplicaId
from fsn.core.keys import FileKey
from fsn.core.sealing import open_replica
from fsn.p2p.client import Requester
from fsn.p2p.wire.messages import ChunkRetrieved, RetrieveChunk
from fsn.runtime.groups import sole_error

__all__ = ["Downloads"]

log = structlog.get_logger()

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
        membership: Membership,
        requester: Requester,
        keyring: Keyring,
        *,
        chance: Random,
        config: DownloadConfig,
    ) -> None:
        self._db = db
        self._membership = membership
        self._requester = requester
        self._keyring = keyring
        self._chance = chance
        self._config = config

    @asynccontextmanager
    async def open_range(self, file: StoredFile, begin: int, end: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes begin..end (end not included) of a ready file, in pieces of at most 256 KiB.

        The iterator raises TooFewCopies when no replica of a chunk can be read, Corrupt when the catalogue contradicts itself. Reads
        ahead of the caller within the window; stops when the block is left.
        """
        key = self._keyring.open(file)
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
            slot.data = await self._fetch(slot.chunk, key)
        except FsnError as error:
            slot.failure = error
        slot.ready.set()

    async def _fetch(self, chunk: StoredChunk, key: FileKey) -> bytes:
        """The chunk's plaintext from the first replica that gives it."""
        reachable = self._reachable(chunk)
        for replica, member in reachable:
            try:
                return await self._fetch_from(chunk, replica, member, key)
            except (PeerError, Corrupt) as error:
                log.warning(
                    "retrieve_failed",
                    node=str(member.node),
                    replica=replica.hex,
                    chunk=chunk.id.hex,
                    reason=error.message,
                )
        raise TooFewCopies(
            f"chunk {chunk.index} cannot be read now: it has {len(chunk.replicas)} replicas, {len(reachable)} on nodes that are"
            " connected, and none of these gave it",
            wanted=1,
            found=0,
        )

    def _reachable(self, chunk: StoredChunk) -> list[tuple[ReplicaId, Member]]:
        """The replicas on connected nodes: the least busy node first, by lot among equals."""
        found = []
        for replica, node in chunk.replicas:
            member = self._membership.member(node)
            if member is not None and self._membership.is_connected(member):
                found.append((member.reads, self._chance.random(), replica, member))
        found.sort(key=lambda item: item[:2])
        return [(replica, member) for _, _, replica, member in found]

    async def _fetch_from(self, chunk: StoredChunk, replica: ReplicaId, member: Member, key: FileKey) -> bytes:
        with self._membership.reading(member):
            answer = await self._requester.request(
                member.peer, RetrieveChunk(replica), within_seconds=self._config.retrieve_seconds
            )
        if not isinstance(answer, ChunkRetrieved):
            raise ProtocolViolation(f"{member.peer} answered a retrieve with {type(answer).__name__}")
        return open_replica(key, chunk=chunk.id, replica=replica, size_bytes=chunk.size_bytes, data=answer.data)


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
