"""What is counted of a node's work."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from fsn.core.errors import DiskFull, NotFound
from fsn.core.ids import PeerId
from fsn.core.merkle import merkle_root
from fsn.node.chunkstore.disk import open_disk_store
from fsn.node.handlers import ChunkHandlers
from fsn.node.metrics import NodeMetrics
from fsn.p2p.server import RequestHandler
from fsn.p2p.wire.messages import DeleteChunks, RetrieveChunk, StoreChunk
from tests.node.store_contract import content, replica

PEER = PeerId("12D3KooWTest")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def handlers(registry: CollectorRegistry, tmp_path: Path) -> AsyncIterator[dict[type, RequestHandler]]:
    """Of a node with room for 1,000 bytes, whose work is counted in `registry`."""
    metrics = NodeMetrics(registry)
    async with open_disk_store(tmp_path, capacity_bytes=1000, reserve_bytes=0, note_batch=metrics.note_batch) as store:
        yield dict(ChunkHandlers(store, is_draining=lambda: False, metrics=metrics).by_request())


async def test_requests_are_counted_by_kind_and_outcome(
    handlers: dict[type, RequestHandler], registry: CollectorRegistry
) -> None:
    """What went well with its time and bytes; what was refused by its code."""
    data = content(1, 600)
    store = StoreChunk(replica(1), merkle_root(data), data)
    await handlers[StoreChunk](PEER, store)
    await handlers[RetrieveChunk](PEER, RetrieveChunk(replica(1), 100, 50))
    other = content(2, 600)
    with pytest.raises(DiskFull):
        await handlers[StoreChunk](PEER, StoreChunk(replica(2), merkle_root(other), other))
    await handlers[DeleteChunks](PEER, DeleteChunks((replica(1),)))
    with pytest.raises(NotFound):
        await handlers[RetrieveChunk](PEER, RetrieveChunk(replica(1)))

    def requests(request: str, outcome: str) -> float | None:
        return registry.get_sample_value("fsn_node_requests_total", {"request": request, "outcome": outcome})

    assert [requests(kind, "ok") for kind in ("store", "retrieve", "delete")] == [1, 1, 1]
    assert (requests("store", "full"), requests("retrieve", "not_found")) == (1, 1)
    assert registry.get_sample_value("fsn_node_request_seconds_count", {"request": "store"}) == 1
    assert registry.get_sample_value("fsn_node_stored_bytes_total") == 600
    assert registry.get_sample_value("fsn_node_retrieved_bytes_total") == 50
    assert registry.get_sample_value("fsn_node_batch_chunks_sum") == 1
    assert registry.get_sample_value("fsn_node_batch_seconds_count") == 1


async def test_a_request_whose_time_is_over_or_that_meets_a_bug_is_counted(registry: CollectorRegistry) -> None:
    """As `late` and as `internal`; both go on to whoever called."""
    metrics = NodeMetrics(registry)

    async def slow(_: PeerId, request: RetrieveChunk) -> None:
        await trio.sleep_forever()

    async def broken(_: PeerId, request: RetrieveChunk) -> None:
        raise ZeroDivisionError

    with trio.move_on_after(0) as scope:
        await metrics.counted("retrieve", slow)(PEER, RetrieveChunk(replica(1)))  # type: ignore[arg-type]
    assert scope.cancelled_caught
    with pytest.raises(ZeroDivisionError):
        await metrics.counted("retrieve", broken)(PEER, RetrieveChunk(replica(1)))  # type: ignore[arg-type]
    for outcome in ("late", "internal"):
        labels = {"request": "retrieve", "outcome": outcome}
        assert registry.get_sample_value("fsn_node_requests_total", labels) == 1
