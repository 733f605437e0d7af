"""Bad weather over memory: delay, narrow links, silent cuts that are noticed, partitions, NAT, addresses that change. In virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import attrs
import pytest
import trio
from trio.testing import MockClock

from fsn.core.errors import Unreachable
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.memory import MemoryNetwork, Nat, Place
from fsn.p2p.transport.memory_links import DIAL_SECONDS, NOTICE_SECONDS
from fsn.runtime.identity import Identity
from tests.p2p.transport.contract import ECHO, assert_echoes, echo

A, B = (Identity(bytes([number]) * 32).peer for number in range(2))


@attrs.frozen
class Pair:
    """Two peers who know each other's address."""

    network: MemoryNetwork
    a: Transport
    b: Transport

    async def connect(self) -> float:
        """Dial b; how long it took."""
        began = trio.current_time()
        await self.a.connect(B, self.b.addresses)
        return trio.current_time() - began

    async def echo_seconds(self, size_bytes: int = 1) -> float:
        """How long it takes until bytes are back."""
        stream = await self.a.open_stream(B, ECHO)
        began = trio.current_time()
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(size_bytes))
            left = size_bytes
            while left:
                left -= len(await stream.receive_some())
            return trio.current_time() - began


@asynccontextmanager
async def open_pair(**at_b: object) -> AsyncIterator[Pair]:
    """a at a perfect place, b at one with these properties."""
    network = MemoryNetwork(Random(3))
    place = network.place(B)
    for name, value in at_b.items():
        setattr(place, name, value)
    async with network.open_transport(A) as a, network.open_transport(B) as b:
        b.serve(ECHO, echo)
        yield Pair(network, a, b)


async def test_a_perfect_network_takes_no_time(autojump_clock: MockClock) -> None:
    """Without places nothing takes time."""
    async with open_pair() as pair:
        assert await pair.connect() == 0
        assert await pair.echo_seconds(10**6) == 0


async def test_latency(autojump_clock: MockClock) -> None:
    """Dialling takes three turns, an echo one."""
    async with open_pair(latency_seconds=0.05) as pair:
        assert await pair.connect() == pytest.approx(0.3)
        assert await pair.echo_seconds() == pytest.approx(0.1)


async def test_a_narrow_link_is_shared(autojump_clock: MockClock) -> None:
    """A megabyte there and back over 100 kB/s each way: the ways do not disturb each other, two streams share one."""
    async with open_pair(bytes_per_second=100_000.0) as pair:
        await pair.connect()
        alone = await pair.echo_seconds(1_000_000)
        assert 10 <= alone < 14
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.echo_seconds, 500_000)
            nursery.start_soon(pair.echo_seconds, 500_000)
        assert 10 <= trio.current_time() - began < 14


async def test_loss_costs_time_and_nothing_else(autojump_clock: MockClock) -> None:
    """Lost packets come again; all bytes arrive, in order."""
    async with open_pair(loss=0.05, latency_seconds=0.01, jitter_seconds=0.01) as pair:
        await pair.connect()
        assert await pair.echo_seconds(200_000) > 0.2
        await assert_echoes(pair.a, pair.b)


async def test_a_silent_cut_is_noticed(autojump_clock: MockClock) -> None:
    """Nobody is told; both ends give up after the time that the real transport's options take. Dialling again fails until it is mended."""
    async with open_pair() as pair:
        await pair.connect()
        stream = await pair.a.open_stream(B, ECHO)
        pair.network.silence(A, B)
        began = trio.current_time()
        await stream.send_all(b"hello?")
        assert pair.a.is_connected(B)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert trio.current_time() - began == pytest.approx(NOTICE_SECONDS)
        assert not pair.b.is_connected(A)
        with pytest.raises(Unreachable):
            await pair.connect()
        assert trio.current_time() - began == pytest.approx(NOTICE_SECONDS + DIAL_SECONDS)
        pair.network.mend()
        await pair.connect()
        await assert_echoes(pair.a, pair.b)


async def test_a_short_cut_is_survived(autojump_clock: MockClock) -> None:
    """What was under way arrives when the way is open again, and the connection lives on."""
    async with open_pair() as pair:
        await pair.connect()
        stream = await pair.a.open_stream(B, ECHO)
        pair.network.partition([A], [B])
        await stream.send_all(b"hello")
        await trio.sleep(NOTICE_SECONDS / 2)
        pair.network.mend()
        assert await stream.receive_some() == b"hello"
        await trio.sleep(2 * NOTICE_SECONDS)
        assert pair.a.is_connected(B)
        await stream.aclose()


async def test_a_paused_process_is_given_up_by_nobody(autojump_clock: MockClock) -> None:
    """Its kernel answers: only who waits for bytes notices."""
    async with open_pair() as pair:
        await pair.connect()
        stream = await pair.a.open_stream(B, ECHO)
        pair.network.place(B).is_paused = True
        pair.network.weather()
        await stream.send_all(b"hello")
        with trio.move_on_after(1000) as waiting:
            await stream.receive_some()
        assert waiting.cancelled_caught
        pair.network.place(B).is_paused = False
        pair.network.weather()
        assert await stream.receive_some() == b"hello"
        await stream.aclose()


async def test_a_machine_without_power_is_noticed_late(autojump_clock: MockClock) -> None:
    """Others believe in the connection for a while; the machine may be back before."""
    network = MemoryNetwork()
    async with network.open_transport(A) as a:
        async with network.open_transport(B) as b:
            await a.connect(B, b.addresses)
            network.power_off(B)
            assert a.is_connected(B)
        await trio.sleep(NOTICE_SECONDS / 2)
        assert a.is_connected(B)
        async with network.open_transport(B) as again:
            again.serve(ECHO, echo)
            await again.connect(A, a.addresses)  # A learns so that the old connection is dead
            await assert_echoes(a, again)


async def test_a_power_cut_is_noticed_by_the_other_end(autojump_clock: MockClock) -> None:
    """After the transport's time-out the connection is gone."""
    network = MemoryNetwork()
    async with network.open_transport(A) as a, network.open_transport(B) as b:
        await a.connect(B, b.addresses)
        network.power_off(B)
        began = trio.current_time()
        await a.wait_disconnected(B)
        assert trio.current_time() - began == pytest.approx(NOTICE_SECONDS)


@pytest.mark.parametrize("nat", [Nat.RESTRICTED, Nat.PORT_RESTRICTED, Nat.SYMMETRIC])
async def test_behind_a_nat_nobody_gets_in(autojump_clock: MockClock, nat: Nat) -> None:
    """A dial ends in the void; what the peer dialled itself is used both ways."""
    async with open_pair(nat=nat) as pair:
        with pytest.raises(Unreachable):
            await pair.connect()
        await pair.b.connect(A, pair.a.addresses)
        await assert_echoes(pair.a, pair.b)


async def test_a_full_cone_lets_in_who_knows_the_mapping(autojump_clock: MockClock) -> None:
    """As long as the peer has a connection to anybody."""
    third = Identity(b"3" * 32).peer
    async with open_pair(nat=Nat.FULL_CONE) as pair, pair.network.open_transport(third) as c:
        with pytest.raises(Unreachable):
            await pair.connect()
        await pair.b.connect(third, c.addresses)
        await pair.connect()
        await assert_echoes(pair.a, pair.b)


async def test_an_address_of_yesterday_leads_nowhere(autojump_clock: MockClock) -> None:
    """A peer that has moved is found at its new address, and seen to come from there."""
    async with open_pair(address="9.9.9.9") as pair:
        old = tuple(pair.b.addresses)
        assert old == (f"/ip4/9.9.9.9/memory/{B}",)
        await pair.connect()
        assert pair.a.connected_address(B) == "9.9.9.9"
        pair.network.readdress(B, "8.8.8.8")
        await pair.a.wait_disconnected(B)
        with pytest.raises(Unreachable):
            await pair.a.connect(B, old)
        await pair.connect()
        assert pair.a.connected_address(B) == "8.8.8.8"


async def test_a_place_is_perfect_by_default() -> None:
    """Nothing of it delays or stops a byte."""
    assert not Place().is_silent
    assert Place().send(5.0, 10**9) == 5.0
