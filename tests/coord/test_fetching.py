"""Fetching a chunk: from one node as a rule, from a second one too when the first is late, from the next when one fails."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import attrs
import pytest
import trio

from fsn.coord.catalog import StoredChunk, StoredFile
from fsn.coord.config import DownloadConfig
from fsn.coord.database.chunks import chunks_between
from fsn.coord.database.pool import Pool
from fsn.coord.fetching import Fetcher
from fsn.core.errors import NotFound, TooFewCopies
from fsn.core.ids import PeerId
from fsn.core.keys import FileKey
from fsn.core.patience import Patience
from fsn.p2p.client import open_requester
from fsn.p2p.server import serve_requests
from fsn.p2p.wire.messages import ChunkStored, Response, RetrieveChunk
from tests.coord.network import Member, Network

DATA = secrets.token_bytes(3000)
TEST_SECONDS = 20


@attrs.define
class Bench:
    """A fetcher, one chunk of a stored file, and the nodes that have it."""

    network: Network
    fetcher: Fetcher
    chunk: StoredChunk
    key: FileKey
    asked: list[Member] = attrs.field(factory=list)

    async def fetch(self) -> bytes:
        """Fetch it."""
        with trio.fail_after(TEST_SECONDS):
            return await self.fetcher.fetch(self.chunk, self.key)

    @property
    def holders(self) -> list[Member]:
        """The nodes with a replica."""
        nodes = {node for _, node in self.chunk.replicas}
        return [member for member in self.network.nodes if member.node in nodes]

    def behave(self, member: Member, handler: Callable[[RetrieveChunk], Awaitable[Response]]) -> None:
        """Let a node answer retrieves so from now on."""

        async def noting(_: PeerId, message: RetrieveChunk) -> Response:
            self.asked.append(member)
            return await handler(message)

        transport = self.network.memory.transport(member.identity.peer)
        serve_requests(transport, {RetrieveChunk: noting}, may_ask=lambda _: True)


async def _never(_: RetrieveChunk) -> Response:
    await trio.sleep_forever()


async def _not_there(message: RetrieveChunk) -> Response:
    await trio.lowlevel.checkpoint()
    raise NotFound(f"replica {message.replica.hex} is not stored here")


async def _nonsense(message: RetrieveChunk) -> Response:
    await trio.lowlevel.checkpoint()
    return ChunkStored(message.replica)


@asynccontextmanager
async def open_bench(network: Network, pool: Pool, config: DownloadConfig) -> AsyncIterator[Bench]:
    """A stored chunk and a fetcher for it."""
    user = (await network.user()).user.id

    async def body() -> AsyncIterator[bytes]:
        yield DATA

    file: StoredFile = await network.services.uploads.store_stream(user, "f", len(DATA), None, body())
    (chunk,) = await chunks_between(pool, file.id, 0, 0)
    async with open_requester(network.services.transport) as requester:
        fetcher = Fetcher(network.services.membership, requester, chance=Random(3), config=config)
        yield Bench(network, fetcher, chunk, network.services.downloads.keyring.open(file))


@pytest.fixture
async def bench(network: Network, pool: Pool) -> AsyncIterator[Bench]:
    """One that asks a second node after a second, as long as it knows fewer than eight answers."""
    async with open_bench(network, pool, DownloadConfig(hedge_seconds=0.1)) as bench:
        yield bench


async def test_one_node_is_asked_as_a_rule(bench: Bench) -> None:
    """The bytes come from one node, and nobody else is troubled."""
    assert await bench.fetch() == DATA
    assert bench.fetcher.hedges == 0


async def test_a_second_node_is_asked_when_the_first_is_late(bench: Bench) -> None:
    """The bytes come all the same; the late one is asked last from now on, until it is trusted again."""
    frozen = bench.holders[0]
    bench.behave(frozen, _never)
    while not bench.asked:
        bench.fetcher.patience = Patience(3.0, 0.1)
        assert await bench.fetch() == DATA
    assert bench.fetcher.hedges == 1
    for _ in range(4):
        assert await bench.fetch() == DATA
    assert bench.asked == [frozen]
    assert all(member.reads == 0 for member in bench.network.services.membership.online())


async def test_two_frozen_nodes_of_three_cost_two_waits(bench: Bench) -> None:
    """The third gives the chunk."""
    for member in bench.holders[:2]:
        bench.behave(member, _never)
    while not bench.asked:
        bench.fetcher.patience = Patience(3.0, 0.1)
        assert await bench.fetch() == DATA
    for _ in range(4):
        assert await bench.fetch() == DATA
    assert len(bench.asked) <= 2


@pytest.mark.parametrize("behaviour", [_not_there, _nonsense])
async def test_the_next_is_asked_at_once_when_one_fails(
    network: Network, pool: Pool, behaviour: Callable[[RetrieveChunk], Awaitable[Response]]
) -> None:
    """Nobody waits for the time of a late answer to pass."""
    async with open_bench(network, pool, DownloadConfig(hedge_seconds=60)) as bench:
        for member in bench.holders[:2]:
            bench.behave(member, behaviour)
        for _ in range(5):
            assert await bench.fetch() == DATA
        assert bench.fetcher.hedges == 0
        assert bench.asked


async def test_when_nobody_gives_it_the_numbers_are_told(bench: Bench) -> None:
    """TooFewCopies."""
    for member in bench.holders:
        bench.behave(member, _not_there)
    with pytest.raises(TooFewCopies, match="3 replicas, 3 on nodes that are connected"):
        await bench.fetch()
    assert len(bench.asked) == 3


async def test_a_cancelled_fetch_leaves_nothing(bench: Bench) -> None:
    """No read is counted any more."""
    for member in bench.holders:
        bench.behave(member, _never)
    with trio.move_on_after(0.1) as scope:
        await bench.fetch()
    assert scope.cancelled_caught
    assert all(member.reads == 0 for member in bench.network.services.membership.online())
