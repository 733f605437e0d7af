"""What a coordinator gets from a node, over the store in memory."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fsn.core.errors import Conflict, Corrupt, DiskFull, Invalid, NotFound, TooLarge
from fsn.core.ids import PeerId
from fsn.core.merkle import merkle_root
from fsn.node.chunkstore.base import MAX_CHUNK_BYTES
from fsn.node.chunkstore.disk import open_disk_store
from fsn.node.chunkstore.layout import Layout
from fsn.node.chunkstore.memory import MemoryStore
from fsn.node.handlers import ChunkHandlers
from fsn.p2p.server import refusal_for
from fsn.p2p.wire.messages import (
    ChunkRetrieved,
    ChunksDeleted,
    ChunkStored,
    DeleteChunks,
    Refusal,
    RefusalCode,
    RetrieveChunk,
    StoreChunk,
)
from tests.node.store_contract import content, replica

WHO = PeerId("coordinator")


def storing(number: int, data: bytes | None = None) -> StoreChunk:
    """A good request to store chunk `number`."""
    data = content(number) if data is None else data
    return StoreChunk(replica(number), merkle_root(data), data)


@pytest.fixture
def handlers() -> ChunkHandlers:
    """Over an empty store of a megabyte."""
    return ChunkHandlers(MemoryStore(capacity_bytes=1_000_000), is_draining=lambda: False)


async def test_store_retrieve_delete(handlers: ChunkHandlers) -> None:
    """A chunk is stored, comes back in whole and in part, and is gone after its deletion."""
    assert await handlers.store_chunk(WHO, storing(1)) == ChunkStored(replica(1))
    assert await handlers.retrieve_chunk(WHO, RetrieveChunk(replica(1))) == ChunkRetrieved(content(1), 1000)
    assert await handlers.retrieve_chunk(WHO, RetrieveChunk(replica(1), 5, 3)) == ChunkRetrieved(content(1)[5:8], 1000)
    assert await handlers.delete_chunks(WHO, DeleteChunks((replica(1), replica(2)))) == ChunksDeleted({})
    with pytest.raises(NotFound) as caught:
        await handlers.retrieve_chunk(WHO, RetrieveChunk(replica(1)))
    assert refusal_for(caught.value).code == RefusalCode.NOT_FOUND


async def test_a_full_node_says_so(handlers: ChunkHandlers) -> None:
    """No room is the refusal FULL."""
    await handlers.store_chunk(WHO, storing(1, b"x" * 900_000))
    with pytest.raises(DiskFull) as caught:
        await handlers.store_chunk(WHO, storing(2, b"y" * 200_000))
    assert refusal_for(caught.value).code == RefusalCode.FULL


async def test_bad_requests_are_invalid(handlers: ChunkHandlers) -> None:
    """A wrong root, other bytes under a known id, and too many bytes are the refusal INVALID."""
    with pytest.raises(Invalid):
        await handlers.store_chunk(WHO, StoreChunk(replica(1), merkle_root(b"other"), b"bytes"))
    await handlers.store_chunk(WHO, storing(1))
    with pytest.raises(Conflict) as caught:
        await handlers.store_chunk(WHO, storing(1, b"other bytes"))
    assert refusal_for(caught.value).code == RefusalCode.INVALID
    with pytest.raises(TooLarge) as large:
        await handlers.store_chunk(WHO, storing(2, bytes(MAX_CHUNK_BYTES + 1)))
    assert refusal_for(large.value).code == RefusalCode.INVALID


async def test_a_draining_node_takes_nothing_new() -> None:
    """While draining, storing is refused; reading and deleting go on."""
    store = MemoryStore(capacity_bytes=1_000_000)
    await ChunkHandlers(store, is_draining=lambda: False).store_chunk(WHO, storing(1))
    handlers = ChunkHandlers(store, is_draining=lambda: True)
    answer = await handlers.store_chunk(WHO, storing(2))
    assert isinstance(answer, Refusal)
    assert answer.code == RefusalCode.DRAINING
    assert await handlers.retrieve_chunk(WHO, RetrieveChunk(replica(1))) == ChunkRetrieved(content(1), 1000)
    assert await handlers.delete_chunks(WHO, DeleteChunks((replica(1),))) == ChunksDeleted({})


async def test_a_damaged_chunk_is_told_to_the_operator_too(tmp_path: Path) -> None:
    """The coordinator gets CORRUPT; the node's log names the chunk and the reason, without a stack trace."""
    async with open_disk_store(tmp_path, capacity_bytes=10**6, reserve_bytes=0) as store:
        handlers = ChunkHandlers(store, is_draining=lambda: False)
        await handlers.store_chunk(WHO, storing(1))
        Layout(tmp_path).final(replica(1)).unlink()
        with capture_logs() as logs, pytest.raises(Corrupt) as caught:
            await handlers.retrieve_chunk(WHO, RetrieveChunk(replica(1)))
    assert refusal_for(caught.value).code == RefusalCode.CORRUPT
    (line,) = logs
    assert (line["event"], line["log_level"], line["chunk"]) == ("chunk_damaged", "error", replica(1).hex)
    assert "exc_info" not in line
