"""The memory transport keeps the transport contract, and breaks when it is told to."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from fsn.core.errors import ConfigError, Unreachable
from fsn.core.reachability import DialOutcome
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.memory import MemoryNetwork, Nat
from fsn.runtime.identity import Identity
from tests.p2p.transport.contract import ECHO, OpenPair, Pair, TransportContract, assert_echoes, echo, stream_pair


@asynccontextmanager
async def memory_pair() -> AsyncIterator[Pair]:
    """Two transports of one memory network."""
    network = MemoryNetwork()
    a, b = Identity.generate().peer, Identity.generate().peer
    async with AsyncExitStack() as stack:
        transport_a = await stack.enter_async_context(network.open_transport(a))
        transport_b = await stack.enter_async_context(network.open_transport(b))

        async def kill_b() -> None:
            network.kill(b)

        async def reopen_b() -> Transport:
            return await stack.enter_async_context(network.open_transport(b))

        yield Pair(transport_a, transport_b, kill_b, reopen_b)


class TestMemoryTransport(TransportContract):
    """The contract, over memory."""

    @pytest.fixture
    def open_pair(self) -> OpenPair:
        """Pairs of transports, each in a network of their own."""
        return memory_pair


async def test_a_cut_breaks_one_connection() -> None:
    """A cut breaks the streams between two peers, leaves others alone, and can be mended by connecting again."""
    network = MemoryNetwork()
    a, b, c = (Identity.generate().peer for _ in range(3))
    with trio.fail_after(5):
        async with (
            network.open_transport(a) as at_a,
            network.open_transport(b) as at_b,
            network.open_transport(c) as at_c,
        ):
            for there in (at_b, at_c):
                there.serve(ECHO, echo)
                await at_a.connect(there.peer, there.addresses)
            stream = await at_a.open_stream(b, ECHO)
            network.cut(a, b)
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            assert not at_a.is_connected(b)
            await assert_echoes(at_a, at_c)
            await at_a.connect(b, at_b.addresses)
            await assert_echoes(at_a, at_b)


async def test_a_killed_peer_is_unreachable() -> None:
    """Nobody connects to or from a peer that was killed."""
    async with memory_pair() as pair:
        await pair.kill_b()
        with pytest.raises(Unreachable):
            await pair.connect()
        with pytest.raises(Unreachable):
            await pair.b.connect(pair.a.peer, pair.a.addresses)


async def test_a_peer_joins_once() -> None:
    """The same peer cannot be in a network twice."""
    network = MemoryNetwork()
    peer = Identity.generate().peer
    async with network.open_transport(peer):
        with pytest.raises(ConfigError):
            async with network.open_transport(peer):
                pass


async def test_a_killed_peer_that_leaves_late_takes_nobody_along() -> None:
    """The same peer may join again before what was killed has left."""
    network, leave, has_left = MemoryNetwork(), trio.Event(), trio.Event()
    a, b = Identity.generate().peer, Identity.generate().peer

    async def live(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with network.open_transport(b):
            task_status.started()
            await leave.wait()
        has_left.set()

    with trio.fail_after(5):
        async with network.open_transport(a) as at_a, trio.open_nursery() as nursery:
            await nursery.start(live)
            network.kill(b)
            async with network.open_transport(b) as again:
                leave.set()
                await has_left.wait()
                await at_a.connect(b, again.addresses)
                assert at_a.is_connected(b)


async def test_leaving_breaks_streams() -> None:
    """Leaving `open_transport` ends its handlers and breaks its streams at the other end."""
    with trio.fail_after(5):
        network = MemoryNetwork()
        a, b = Identity.generate().peer, Identity.generate().peer
        async with network.open_transport(a) as at_a:
            async with network.open_transport(b) as at_b:
                ours, _ = await stream_pair(Pair(at_a, at_b, trio.lowlevel.checkpoint, None))  # type: ignore[arg-type]
            with pytest.raises(trio.BrokenResourceError):
                await ours.receive_some()


async def test_a_probe_gets_through_where_a_stranger_would(autojump_clock: trio.testing.MockClock) -> None:
    """Behind a NAT nobody answers, also while the peer has a connection to who dials; a full cone lets in as long as it has one."""
    network = MemoryNetwork()
    a, b = Identity.generate().peer, Identity.generate().peer
    async with network.open_transport(a) as at_a, network.open_transport(b) as at_b:
        network.place(b).address = "192.0.2.7"
        await at_b.connect(a, at_a.addresses)
        (address,) = at_b.addresses
        for nat, is_reached in (
            (Nat.RESTRICTED, False),
            (Nat.SYMMETRIC, False),
            (Nat.FULL_CONE, True),
            (Nat.OPEN, True),
        ):
            network.place(b).nat = nat
            with trio.move_on_after(100) as scope:
                assert (await at_a.probe(b, address)).outcome == DialOutcome.REACHED
            assert scope.cancelled_caught is not is_reached
        assert at_a.connected_address(b) == "192.0.2.7"
        assert at_a.is_connected(b)
