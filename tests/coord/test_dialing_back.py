"""Dialling nodes as strangers would: what is dialled, what is not, how often, and what the catalogue keeps of it."""

from collections.abc import Sequence
from datetime import timedelta

import attrs
import pytest
import trio
import trio.testing

from fsn.coord.database.base import Connect
from fsn.coord.database.dial_backs import DialedNode, dialed_node, reached_nodes, record_dial_back
from fsn.coord.database.pool import Pool, PoolConfig
from fsn.coord.dialing_back import DIAL_SECONDS, ELSEWHERE, PAUSE_SECONDS, DialingBack
from fsn.core.errors import PeerRefused
from fsn.core.ids import NodeId, PeerId
from fsn.core.reachability import DialOutcome, DialResult
from fsn.p2p.client import open_requester
from fsn.p2p.wire.messages import DialBack, DialedBack, Refusal, RefusalCode
from fsn.runtime.clock import system_clock
from fsn.runtime.identity import Identity
from tests.coord.network import CONFIG, open_network
from tests.coord.test_membership import Network, network

__all__ = ["network"]

HOME = "198.51.100.7"
PUBLIC = "8.8.8.8"


@attrs.define
class Dialler:
    """Notes what it is to dial; each dial ends as the test wants it."""

    ends: dict[str, DialOutcome] = attrs.field(factory=dict)
    comes_from: str | None = HOME
    dialled: list[str] = attrs.field(factory=list)
    peer: PeerId = PeerId("us")

    def connected_address(self, peer: PeerId) -> str | None:
        return self.comes_from

    async def probe(self, peer: PeerId, address: str) -> DialResult:
        self.dialled.append(address)
        await trio.lowlevel.checkpoint()
        if address not in self.ends:
            await trio.sleep_forever()
        return DialResult(address, self.ends[address])


async def resolve(name: str) -> Sequence[str]:
    """The names that these tests use."""
    return {"home.example": (HOME,), "inside.example": ("10.0.0.1",)}.get(name, ())


@attrs.define
class Asked:
    """A registered node, and who dials it back."""

    node: PeerId
    id: NodeId
    dialler: Dialler
    dialing: DialingBack

    async def ask(self, *addresses: str) -> DialedBack:
        """What the coordinator answers."""
        answer = await self.dialing.dial_back(self.node, DialBack(addresses))
        assert isinstance(answer, DialedBack)
        return answer


@pytest.fixture
async def asked(network: Network) -> Asked:
    """A node that may ask now."""
    member = await network.beat(await network.join())
    dialler = Dialler()
    return Asked(
        member.peer,
        member.node,
        dialler,
        DialingBack(network.db, network.membership, dialler, network.wall, resolve=resolve),
    )


async def test_the_address_that_a_node_comes_from_is_dialled(
    asked: Asked, network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """A listener on every interface is looked for there; the catalogue keeps that the node was reached, and where."""
    there = f"/ip4/{HOME}/tcp/4001"
    asked.dialler.ends[there] = DialOutcome.REACHED
    answer = await asked.ask("/ip4/0.0.0.0/tcp/4001")
    assert answer == DialedBack(HOME, (DialResult(there, DialOutcome.REACHED),))
    assert await dialed_node(network.db, asked.id) == DialedNode("direct", "reached", network.wall())
    assert [(found.peer, found.addresses) for found in await reached_nodes(network.db, 10)] == [(asked.node, (there,))]


async def test_who_is_not_reached_is_kept_too(
    asked: Asked, network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """With the most telling outcome; an older finding does not replace a newer one."""
    asked.dialler.ends[f"/ip4/{HOME}/tcp/1"] = DialOutcome.REFUSED
    await asked.ask(f"/ip4/{HOME}/tcp/1")
    found = DialedNode("own_connection", "refused", network.wall())
    assert await dialed_node(network.db, asked.id) == found
    older = DialedNode("direct", "reached", network.wall() - timedelta(hours=1))
    await record_dial_back(network.db, asked.id, older, ["/x"], tested_by=PeerId("other"))
    assert await dialed_node(network.db, asked.id) == found
    assert await reached_nodes(network.db, 10) == []


async def test_a_private_network_is_not_looked_around_in(asked: Asked, mock_clock: trio.testing.MockClock) -> None:
    """Loopback, private addresses and names that lead to them are not dialled for somebody who comes from elsewhere."""
    answer = await asked.ask(
        "/ip4/127.0.0.1/tcp/5432", "/ip4/10.0.0.1/tcp/22", "/dns/inside.example/tcp/80", "/dns/nowhere.example/tcp/80"
    )
    assert asked.dialler.dialled == []
    assert {result.outcome for result in answer.results} == {DialOutcome.NOT_TRIED}
    assert all(result.detail for result in answer.results)


async def test_a_name_is_dialled_at_the_address_that_was_judged(
    asked: Asked, mock_clock: trio.testing.MockClock
) -> None:
    """It is resolved once; the answer names it as it was asked for."""
    asked.dialler.ends[f"/ip4/{HOME}/tcp/4001"] = DialOutcome.REACHED
    answer = await asked.ask("/dns4/home.example/tcp/4001")
    assert asked.dialler.dialled == [f"/ip4/{HOME}/tcp/4001"]
    assert answer.results == (DialResult("/dns4/home.example/tcp/4001", DialOutcome.REACHED),)


async def test_an_address_that_is_silent_has_five_seconds(asked: Asked, mock_clock: trio.testing.MockClock) -> None:
    """All of a request are dialled together, and each ends as it ends."""
    asked.dialler.ends[f"/ip4/{HOME}/tcp/2"] = DialOutcome.WRONG_PEER
    mock_clock.rate = 1000
    began = trio.current_time()
    answer = await asked.ask(f"/ip4/{HOME}/tcp/1", f"/ip4/{HOME}/tcp/2", f"/ip4/{HOME}/tcp/3")
    assert trio.current_time() - began >= DIAL_SECONDS
    outcomes = [result.outcome for result in answer.results]
    assert outcomes == [DialOutcome.NO_ANSWER, DialOutcome.WRONG_PEER, DialOutcome.NO_ANSWER]
    assert len(asked.dialler.dialled) == 3


async def test_a_node_waits_before_it_asks_again(asked: Asked, mock_clock: trio.testing.MockClock) -> None:
    """Within twenty seconds it is told how long."""
    await asked.ask()
    mock_clock.jump(5)
    answer = await asked.dialing.dial_back(asked.node, DialBack(()))
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.retry_after_ms) == (RefusalCode.BUSY, (PAUSE_SECONDS - 5) * 1000)
    mock_clock.jump(PAUSE_SECONDS - 5)
    await asked.ask()


async def test_addresses_elsewhere_are_dialled_sparingly(asked: Asked, mock_clock: trio.testing.MockClock) -> None:
    """Whoever stands there may never have heard of us: all nodes together get a few."""
    asked.dialler.ends = {f"/ip4/{PUBLIC}/tcp/{port}": DialOutcome.REFUSED for port in range(8)}
    for _ in range(5):
        await asked.ask(*asked.dialler.ends)
        asked.dialing._asked_at.clear()  # as if they were many nodes
    assert len(asked.dialler.dialled) == ELSEWHERE.burst


async def test_a_stranger_is_not_dialled(asked: Asked, mock_clock: trio.testing.MockClock) -> None:
    """Registered nodes only."""
    answer = await asked.dialing.dial_back(Identity.generate().peer, DialBack((f"/ip4/{HOME}/tcp/1",)))
    assert isinstance(answer, Refusal)
    assert answer.code == RefusalCode.NOT_AUTHORISED
    assert asked.dialler.dialled == []


async def test_a_coordinator_dials_its_nodes(database_dsn: str, connect: Connect) -> None:
    """Asked over the wire, it finds the node under a connection of its own; who was dialled just now waits."""
    with trio.fail_after(60):
        db = Pool(database_dsn, PoolConfig(size=4), connect)
        async with open_network(db, CONFIG, nodes=1) as network:
            [member] = network.nodes
            transport, peer = network.services.transport, member.identity.peer
            at_node = network.memory.transport(peer)
            async with open_requester(at_node) as requester:
                request = DialBack(tuple(at_node.addresses))
                answer = await requester.request(transport.peer, request, within_seconds=20)
                assert answer == DialedBack("127.0.0.1", (DialResult(f"/memory/{peer}", DialOutcome.REACHED),))
                with pytest.raises(PeerRefused, match="once in 20 s"):
                    await requester.request(transport.peer, request, within_seconds=20)
            assert member.node is not None
            found = await network.services.registrar.reachability(member.node)
            assert found is not None
            assert (found.reach, found.outcome) == ("direct", "reached")
            assert abs((found.tested_at - system_clock()).total_seconds()) < 60
        db.close()
