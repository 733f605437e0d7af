"""One chunk onto its nodes: replacements, and no sealed bytes forgotten on a node."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from uuid import UUID, uuid4

import attrs
import pytest
import trio

from fsn.coord.catalog import PlacedReplica
from fsn.coord.config import PlacementConfig, UploadConfig
from fsn.coord.database.pool import Pool
from fsn.coord.membership import Membership
from fsn.coord.recording import Recorder
from fsn.coord.replication import Replicator
from fsn.core.errors import Corrupt, NotFound, TooFewCopies, TooFewNodes, Unavailable
from fsn.core.ids import FileId, NodeId, PeerId, ReplicaId, chunk_id
from fsn.core.keys import FileKey
from fsn.core.sealing import open_replica
from fsn.p2p.client import open_requester
from fsn.p2p.server import serve_requests
from fsn.p2p.wire.messages import ChunkStored, Refusal, RefusalCode, Response, StoreChunk
from fsn.runtime.clock import system_clock
from fsn.runtime.supervise import Bell
from tests.coord.network import Member, Network

FILE = FileId(UUID(int=1))
KEY = FileKey(bytes(range(32)))
DATA = b"some bytes of a user" * 10
TEST_SECONDS = 20


class NotingRecorder(Recorder):
    """Writes nothing; remembers what was discarded."""

    def __init__(self, db: Pool) -> None:
        super().__init__(db, clock=system_clock, chance=Random(1), deletions_due=Bell())
        self.discarded: set[ReplicaId] = set()

    def discard(self, replicas: Sequence[PlacedReplica]) -> None:
        self.discarded |= {replica.id for replica in replicas}


@attrs.define
class Bench:
    """A replicator over the network's nodes, and what it discards."""

    network: Network
    replicator: Replicator
    recorder: NotingRecorder

    async def store(self, index: int = 0, copies: int = 3) -> tuple[PlacedReplica, ...]:
        """Store a chunk."""
        with trio.fail_after(TEST_SECONDS):
            return await self.replicator.store(FILE, KEY, index, chunk_id(FILE, index), DATA, copies)

    def behave(self, node: Member, handler: Callable[[PeerId, StoreChunk], Awaitable[Response]]) -> None:
        """Let a node answer stores so from now on."""
        transport = self.network.memory.transport(node.identity.peer)
        serve_requests(transport, {StoreChunk: handler}, may_ask=lambda _: True)

    async def lying(self) -> set[ReplicaId]:
        """What lies on the nodes."""
        return {replica for node in self.network.nodes for replica in await node.replicas()}


@asynccontextmanager
async def open_bench(
    network: Network, pool: Pool, membership: Any = None, store_seconds: float = 15
) -> AsyncIterator[Bench]:
    """A replicator."""
    recorder = NotingRecorder(pool)
    async with open_requester(network.services.transport) as requester:
        replicator = Replicator(
            membership or network.services.membership, requester, recorder, random_bytes=lambda count: uuid4().bytes[:count],
            upload=UploadConfig(store_seconds=store_seconds, chunk_seconds=15), placement=PlacementConfig(chunks_per_set=4),
        )  # fmt: skip
        yield Bench(network, replicator, recorder)


@pytest.fixture
async def bench(network: Network, pool: Pool) -> AsyncIterator[Bench]:
    """A replicator over four nodes."""
    async with open_bench(network, pool) as bench:
        yield bench


async def test_copies_lie_on_nodes_of_their_own(bench: Bench) -> None:
    """Numbered in order, each sealed on its own, each readable with the file's key; nothing is discarded."""
    replicas = await bench.store()
    assert [replica.number for replica in replicas] == [0, 1, 2]
    assert len({replica.node for replica in replicas}) == 3
    assert bench.recorder.discarded == set()
    found = []
    for node in bench.network.nodes:
        for replica in await node.replicas():
            data, _ = await node.store.retrieve(replica)
            found.append(bytes(data))
            plain = open_replica(KEY, chunk=chunk_id(FILE, 0), replica=replica, size_bytes=len(DATA), data=data)
            assert plain == DATA
    assert len(set(found)) == 3


async def test_consecutive_chunks_stay_on_one_set(bench: Bench) -> None:
    """So many of them; then a set is chosen anew."""
    sets = [frozenset(replica.node for replica in await bench.store(index)) for index in range(40)]
    for start in range(0, 40, 4):
        assert len(set(sets[start : start + 4])) == 1
    assert len(set(sets)) > 1


async def test_a_node_that_answers_for_another_replica_is_replaced(bench: Bench) -> None:
    """ "Stored", but what? Its word is no promise for our bytes; what may lie there is discarded."""

    async def confused(_: PeerId, message: StoreChunk) -> Response:
        await trio.lowlevel.checkpoint()
        return ChunkStored(ReplicaId(UUID(int=5)))

    await _replaced(bench, confused, may_lie_there=True)


@pytest.mark.parametrize(
    ("refusal", "may_lie_there"),
    [
        (RefusalCode.FULL, False),
        (RefusalCode.DRAINING, False),
        (RefusalCode.NOT_AUTHORISED, False),
        (RefusalCode.INVALID, False),
        (RefusalCode.INTERNAL, True),
        (RefusalCode.BUSY, True),
        ("SOMETHING_NEW", True),
    ],
)
async def test_a_refusal_is_replaced(bench: Bench, refusal: str, may_lie_there: bool) -> None:
    """Another node is asked. A node that failed inside, or gave up, may have stored the bytes all the same: they are discarded."""

    async def refusing(_: PeerId, message: StoreChunk) -> Response:
        await trio.lowlevel.checkpoint()
        return Refusal(refusal, "no")

    await _replaced(bench, refusing, may_lie_there=may_lie_there)


@pytest.mark.parametrize("error", [Unavailable("busy"), Corrupt("wrong"), NotFound("what?")], ids=repr)
async def test_a_failure_inside_a_node_is_replaced(bench: Bench, error: Exception) -> None:
    """Whatever it is."""

    async def failing(_: PeerId, message: StoreChunk) -> Response:
        await trio.lowlevel.checkpoint()
        raise error

    await _replaced(bench, failing, may_lie_there=True)


async def test_a_node_that_hangs_is_replaced(network: Network, pool: Pool) -> None:
    """After its time; the bytes may lie there."""

    async def hanging(_: PeerId, message: StoreChunk) -> Response:
        await trio.sleep_forever()

    async with open_bench(network, pool, store_seconds=1.5) as bench:
        await _replaced(bench, hanging, may_lie_there=True)


async def _replaced(
    bench: Bench, handler: Callable[[PeerId, StoreChunk], Awaitable[Response]], *, may_lie_there: bool
) -> None:
    asked: list[ReplicaId] = []

    async def noting(peer: PeerId, message: StoreChunk) -> Response:
        asked.append(message.replica)
        return await handler(peer, message)

    bad = bench.network.nodes[0]
    bench.behave(bad, noting)
    replicas: tuple[PlacedReplica, ...] = ()
    for index in range(0, 400, 4):  # a new set each time: soon it is among the three of four
        replicas = await bench.store(index)
        if asked:
            break
    assert bad.node not in {replica.node for replica in replicas}
    assert len({replica.node for replica in replicas}) == 3
    assert len(asked) == 1
    assert asked[0] not in {replica.id for replica in replicas}
    assert bench.recorder.discarded == (set(asked) if may_lie_there else set())
    assert bad.node not in bench.network.services.membership.choose(3, 100)


async def test_a_node_that_is_slow_beside_the_others_is_replaced(network: Network, pool: Pool) -> None:
    """After ten times what chunks took lately, long before the deadline that holds for everybody."""

    async def hanging(_: PeerId, message: StoreChunk) -> Response:
        await trio.sleep_forever()

    async with open_bench(network, pool) as bench:
        for index in range(4):
            await bench.store(index)
        bench.replicator.patience.seconds = 1.0  # as it would be in a network that stores a chunk in 100 ms
        began = trio.current_time()
        await _replaced(bench, hanging, may_lie_there=True)
        assert trio.current_time() - began < 10


async def test_when_all_nodes_are_late_they_are_waited_for(network: Network, pool: Pool) -> None:
    """A network that turns slow in one moment still stores: who has nobody to be replaced by gets all the time there is."""

    def slow(node: Member) -> Callable[[PeerId, StoreChunk], Awaitable[Response]]:
        async def handle(_: PeerId, message: StoreChunk) -> Response:
            await trio.sleep(1)
            await node.store.store(message.replica, message.root, message.data)
            return ChunkStored(message.replica)

        return handle

    async with open_bench(network, pool) as bench:
        for node in network.nodes:
            bench.behave(node, slow(node))
        bench.replicator.patience.seconds = 0.3
        replicas = await bench.store()
        assert len({replica.node for replica in replicas}) == 3


async def test_too_few_copies_discard_what_was_stored(bench: Bench) -> None:
    """With two bad nodes of four three copies cannot be had: what lies on the good ones goes, and the numbers are told."""

    async def refusing(_: PeerId, message: StoreChunk) -> Response:
        await trio.lowlevel.checkpoint()
        return Refusal(RefusalCode.FULL, "no")

    for node in bench.network.nodes[:2]:
        bench.behave(node, refusing)
    with pytest.raises(TooFewCopies) as caught:
        await bench.store()
    assert caught.value.facts == {"wanted": 3, "found": 2}
    lying = await bench.lying()
    assert len(lying) == 2
    assert bench.recorder.discarded == lying


async def test_more_copies_than_nodes_is_told_before_anything_is_sent(bench: Bench) -> None:
    """TooFewNodes, and no bytes anywhere."""
    with pytest.raises(TooFewNodes):
        await bench.store(copies=5)
    assert await bench.lying() == set()


async def test_a_cancelled_store_discards_what_was_sent(bench: Bench) -> None:
    """Two copies acknowledged, the third under way: all three may lie there."""
    asked: set[ReplicaId] = set()
    is_hanging = trio.Event()

    async def hanging(_: PeerId, message: StoreChunk) -> Response:
        asked.add(message.replica)
        is_hanging.set()
        await trio.sleep_forever()

    bench.behave(bench.network.nodes[0], hanging)
    before: set[ReplicaId] = set()

    async def cancel_when_two_are_stored(storing: trio.CancelScope) -> None:
        await is_hanging.wait()
        while len(await bench.lying() - before) < 2:  # noqa: ASYNC110 - what is waited for happens on nodes
            await trio.sleep(0.01)
        storing.cancel()

    async with trio.open_nursery() as nursery:
        storing = trio.CancelScope()
        nursery.start_soon(cancel_when_two_are_stored, storing)
        with storing:
            for index in range(0, 400, 4):
                before = await bench.lying()
                await bench.store(index)
    assert storing.cancelled_caught
    assert bench.recorder.discarded == asked | (await bench.lying() - before)
    assert len(bench.recorder.discarded) == 3


class CancelsInTheEnd:
    """The membership, except that the caller is cancelled in the moment in which the last copy is acknowledged."""

    def __init__(self, inner: Membership, copies: int, scope: trio.CancelScope) -> None:
        self._inner = inner
        self._left = copies
        self._scope = scope

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def spend(self, node: NodeId, size_bytes: int) -> None:
        self._inner.spend(node, size_bytes)
        self._left -= 1
        if not self._left:
            self._scope.cancel()


async def test_cancelled_when_all_copies_are_stored_it_still_returns_them(network: Network, pool: Pool) -> None:
    """The caller has them in hand, and nothing is discarded behind his back."""
    scope = trio.CancelScope()
    membership = CancelsInTheEnd(network.services.membership, 3, scope)
    async with open_bench(network, pool, membership) as bench:
        replicas: tuple[PlacedReplica, ...] = ()
        with scope:
            replicas = await bench.store()
        assert scope.cancel_called
        assert {replica.id for replica in replicas} == await bench.lying()
        assert bench.recorder.discarded == set()
