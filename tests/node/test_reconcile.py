"""What a node answers when a coordinator compares."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from fsn.core.ids import PeerId, ReplicaId
from fsn.core.merkle import merkle_root
from fsn.core.reconciliation import HeldReplica, PrefixSum, replica_digest
from fsn.node.chunkstore.base import ChunkStore
from fsn.node.chunkstore.memory import MemoryStore
from fsn.node.handlers import ChunkHandlers
from fsn.p2p.wire.codec import encode
from fsn.p2p.wire.framing import MAX_FRAME_BYTES
from fsn.p2p.wire.limits import MAX_FIRST_BYTES, MAX_LISTED, MAX_SUMS
from fsn.p2p.wire.messages import Reconcile, Reconciled, ReconcileLevel
from tests.node.store_contract import SPREAD, content, put_spread

COORDINATOR = PeerId("coordinator")


async def asked(store: ChunkStore, message: Reconcile) -> Reconciled:
    answer = await ChunkHandlers(store, is_draining=lambda: False).reconcile(COORDINATOR, message)
    assert isinstance(answer, Reconciled)
    encode(1, answer)  # it can be sent
    return answer


@pytest.fixture
def store() -> Iterator[ChunkStore]:
    """An empty one."""
    yield MemoryStore(capacity_bytes=1 << 30)


async def test_sums_narrow_down(store: ChunkStore) -> None:
    """By the first byte, then within some of them by two."""
    await put_spread(store)
    first = await asked(store, Reconcile(ReconcileLevel.FIRST_BYTE))
    assert {prefix: each.count for prefix, each in first.sums.items()} == {0: 3, 1: 2, 255: 1}
    second = await asked(store, Reconcile(ReconcileLevel.TWO_BYTES, (1, 255)))
    assert {prefix: each.count for prefix, each in second.sums.items()} == {0x0100: 1, 0x01FF: 1, 0xFFFF: 1}


async def test_replicas_are_listed_page_by_page(store: ChunkStore) -> None:
    """Each with its digest and size, after the one named, and whether there are more."""
    await put_spread(store)
    found = await asked(store, Reconcile(ReconcileLevel.REPLICAS, (0, 1), SPREAD[0]))
    data = content(1, 104)
    assert found.replicas[0] == HeldReplica(SPREAD[1], replica_digest(SPREAD[1], merkle_root(data), 104), 104)
    assert ([held.replica for held in found.replicas], found.more) == ([SPREAD[1], SPREAD[2]], False)


async def test_a_long_list_comes_in_pages(store: ChunkStore) -> None:
    """A page is full and says that there is more; the last one says that there is none."""
    for number in range(MAX_LISTED + 1):
        data = number.to_bytes(4, "big")
        await store.store(ReplicaId(UUID(int=number)), merkle_root(data), data)
    first = await asked(store, Reconcile(ReconcileLevel.REPLICAS, (0,)))
    assert (len(first.replicas), first.more) == (MAX_LISTED, True)
    rest = await asked(store, Reconcile(ReconcileLevel.REPLICAS, (0,), first.replicas[-1].replica))
    assert (len(rest.replicas), rest.more) == (1, False)


def test_the_longest_answers_fit_a_frame() -> None:
    """Sums of as many prefixes as may be asked for, and a full page, stay below 1 MiB."""
    most = PrefixSum(2**63 - 1, 2**63 - 1, 2**64 - 1, 2**64 - 1)
    sums = Reconciled(sums=dict.fromkeys(range(65536 - MAX_SUMS, 65536), most))
    page = Reconciled(
        replicas=tuple(HeldReplica(ReplicaId(UUID(int=number)), bytes(16), 2**20) for number in range(MAX_LISTED))
    )
    assert MAX_SUMS == MAX_FIRST_BYTES * 256
    assert max(len(encode(1, each)) for each in (sums, page)) < MAX_FRAME_BYTES
