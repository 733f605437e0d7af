"""QUIC keeps the transport contract on loopback, comes second to TCP, and takes what a daemon must take."""

import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any

import attrs
import pytest
import trio

from fsn.core.errors import ConfigError, Unreachable
from fsn.core.ids import PeerId
from fsn.p2p.client import open_requester
from fsn.p2p.config import P2pConfig
from fsn.p2p.server import serve_requests
from fsn.p2p.transport.addresses import QUIC, TCP, parse_address
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.libp2p import Libp2pTransport, open_libp2p_transport
from fsn.p2p.transport.quic_connection import QuicConnection
from fsn.p2p.transport.quic_endpoint import FREE_HANDSHAKES
from fsn.p2p.wire.messages import Heartbeat, HeartbeatAnswer
from fsn.runtime.identity import Identity
from tests.p2p.transport.contract import (
    ECHO,
    OpenPair,
    Pair,
    TransportContract,
    assert_echoes,
    echo,
    noise,
    receive_all,
    send_and_end,
    stream_pair,
    wait_connected,
)
from tests.p2p.transport.pairs import LOOPBACK, open_ours, open_ours_on_quic, open_pair_of

REFUSED = "/ip4/127.0.0.1/tcp/1"


def quic_pair() -> AbstractAsyncContextManager[Pair]:
    """Two transports of ours that reach each other over UDP only."""
    return open_pair_of(open_ours_on_quic, open_ours_on_quic)


class TestQuicTransport(TransportContract):
    """The whole contract, over QUIC; with less data, for it takes a hundred times the CPU of TCP."""

    bulk = 1024 * 1024
    local_address = None  # a QUIC connection goes on from whatever address the machine has

    @pytest.fixture
    def open_pair(self) -> OpenPair:
        """Pairs of transports on loopback."""
        return quic_pair

    @pytest.mark.slow
    async def test_the_stream_contract_of_trio(self, open_pair: OpenPair) -> None:
        """The same; its many clogged streams are 20 MB."""
        await super().test_the_stream_contract_of_trio(open_pair)


@pytest.mark.slow  # in virtual time: test_quic_connection.py
async def test_a_slow_reader_gets_every_byte() -> None:
    """6 MiB are written over real sockets while the reader waits; what arrives is what was sent."""
    data = noise(6 * 1024 * 1024)
    with trio.fail_after(100):
        async with quic_pair() as pair:
            ours, theirs = await stream_pair(pair)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_and_end, ours, data)
                await trio.sleep(0.3)
                assert await receive_all(theirs) == data


# --- beside TCP


async def test_tcp_carries_when_both_answer() -> None:
    """A peer that listens on both is connected by TCP, in whichever order its addresses come; both sides say so."""
    with trio.fail_after(30):
        async with open_ours(Identity.generate()) as a, open_ours(Identity.generate()) as b:
            await a.connect(b.peer, [*reversed(b.addresses)])
            await wait_connected(b, a)
            assert a.carrier(b.peer) == TCP == b.carrier(a.peer)
            assert a.carrier(Identity.generate().peer) is None


async def test_refused_tcp_is_followed_by_quic_at_once() -> None:
    """Without the head start; over QUIC everything works as over TCP."""
    config = attrs.evolve(LOOPBACK, quic_after_seconds=1000.0)
    with trio.fail_after(30):
        async with open_transport(config) as a, open_ours(Identity.generate()) as b:
            b.serve(ECHO, echo)
            await a.connect(b.peer, [REFUSED, quic_of(b)])
            assert a.carrier(b.peer) == QUIC
            await assert_echoes(a, b)


async def test_silent_tcp_is_followed_by_quic_after_the_head_start() -> None:
    """TCP that is accepted and never answered costs the head start only."""
    config = attrs.evolve(LOOPBACK, quic_after_seconds=0.2, dial_timeout_seconds=100.0)
    with trio.fail_after(30), socket.create_server(("127.0.0.1", 0)) as silent:
        async with open_transport(config) as a, open_ours(Identity.generate()) as b:
            await a.connect(b.peer, [f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}", quic_of(b)])
            assert a.carrier(b.peer) == QUIC


async def test_quic_that_got_through_last_time_need_not_wait_long() -> None:
    """A peer that QUIC reached is dialled by QUIC after half a second, whatever head start TCP has elsewhere."""
    config = attrs.evolve(LOOPBACK, quic_after_seconds=1000.0, dial_timeout_seconds=1000.0)
    with trio.fail_after(60), socket.create_server(("127.0.0.1", 0)) as silent:
        async with open_transport(config) as a, open_ours(Identity.generate()) as b:
            for tcp in (REFUSED, f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}"):
                await a.connect(b.peer, [tcp, quic_of(b)])
                assert a.carrier(b.peer) == QUIC
                await a.disconnect(b.peer)


async def test_a_peer_on_quic_comes_back_to_tcp() -> None:
    """TCP is tried again; new streams use it, old ones end in peace, then QUIC is closed. Both sides say that old ones are outdated."""
    config = attrs.evolve(LOOPBACK, tcp_again_seconds=0.3)
    with trio.fail_after(60):
        async with open_transport(config) as a, open_ours(Identity.generate()) as b:
            b.serve(ECHO, echo)
            async with tcp_proxy(b) as proxy:
                await a.connect(b.peer, [proxy.address, quic_of(b)])
                assert a.carrier(b.peer) == QUIC
                old = await a.open_stream(b.peer, ECHO)
                await old.send_all(b"before")
                assert await old.receive_some() == b"before"
                assert not old.is_outdated
                proxy.is_open = True
                await wait_until(lambda: a.carrier(b.peer) == TCP and old.is_outdated)
                await old.send_all(b"after")
                assert await old.receive_some() == b"after"
                new = await a.open_stream(b.peer, ECHO)
                assert not new.is_outdated
                await old.send_eof()
                assert await receive_all(old) == b""
                await old.aclose()
                await wait_until(lambda: not quic_connections(a) + quic_connections(b))
                await new.send_all(b"on")
                assert await new.receive_some() == b"on"


async def test_requests_under_way_survive_the_return_to_tcp() -> None:
    """What was asked over QUIC is answered there, though TCP is back; what is asked from then on goes over TCP; QUIC is closed after."""
    config = attrs.evolve(LOOPBACK, tcp_again_seconds=0.3)
    go, seen = trio.Event(), list[str | None]()
    with trio.fail_after(60):
        async with open_transport(config) as a, open_ours(Identity.generate()) as b, open_requester(a) as requester:

            async def beat(peer: PeerId, heartbeat: Heartbeat) -> HeartbeatAnswer:
                seen.append(b.carrier(peer))
                if heartbeat.chunk_count == 1:
                    await go.wait()
                return HeartbeatAnswer(earned_micro_credits=heartbeat.chunk_count)

            serve_requests(b, {Heartbeat: beat}, may_ask=lambda _: True)
            answers: list[int] = []

            async def ask(number: int) -> None:
                asked = Heartbeat(chunk_count=number, used_bytes=0, free_bytes=0, version="1")
                answer = await requester.request(b.peer, asked, within_seconds=50)
                assert isinstance(answer, HeartbeatAnswer)
                answers.append(answer.earned_micro_credits)

            async with tcp_proxy(b) as proxy, trio.open_nursery() as nursery:
                await a.connect(b.peer, [proxy.address, quic_of(b)])
                nursery.start_soon(ask, 1)
                await wait_until(lambda: seen == [QUIC])
                proxy.is_open = True
                await wait_until(lambda: a.carrier(b.peer) == TCP == b.carrier(a.peer))
                await ask(2)
                assert answers == [2]
                go.set()
                await wait_until(lambda: answers == [2, 1])
                await wait_until(lambda: not quic_connections(a) + quic_connections(b))
                await ask(3)


async def test_a_lost_tcp_connection_is_followed_by_quic() -> None:
    """A peer that comes by QUIC has lost its TCP connection, though we believe in it: that one is closed, the new one is used."""
    identity = Identity.generate()
    config = attrs.evolve(LOOPBACK, dial_timeout_seconds=0.5)
    with trio.fail_after(30):
        async with (
            open_libp2p_transport(Identity.generate(), config) as us,
            open_libp2p_transport(identity, LOOPBACK) as old,
            open_libp2p_transport(identity, LOOPBACK) as new,
        ):
            await old.connect(us.peer, us.addresses)
            await wait_connected(us, old)
            await trio.sleep(0.6)
            new.serve(ECHO, echo)
            await new.connect(us.peer, [quic_of(us)])
            await old.wait_disconnected(us.peer)
            assert us.carrier(identity.peer) == QUIC
            await assert_echoes(us, new)


async def test_without_quic_nothing_listens_on_udp() -> None:
    """And QUIC addresses are not dialled, in words."""
    config = attrs.evolve(LOOPBACK, quic=False)
    with trio.fail_after(30):
        async with open_transport(config) as a, open_ours(Identity.generate()) as b:
            assert [parse_address(each).transport for each in a.addresses] == [TCP]
            with pytest.raises(Unreachable, match="QUIC is switched off here"):
                await a.connect(b.peer, [quic_of(b)])


# --- ports


async def test_the_udp_port_is_that_of_tcp() -> None:
    """When it is free; when it is not, any other one will do, for QUIC is the fall-back."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = attrs.evolve(LOOPBACK, tcp_port=port)
    async with open_transport(config) as transport:
        assert [parse_address(each).port for each in transport.addresses] == [port, port]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        async with open_transport(config) as transport:
            ports = [parse_address(each).port for each in transport.addresses]
            assert ports[0] == port != ports[1]


async def test_a_taken_port_that_was_asked_for_is_a_clear_error() -> None:
    """It names the port and what to do, and leaves nothing open."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on UDP port {port} of 127.0.0.1 for QUIC.*quic = false"):
            async with open_transport(attrs.evolve(LOOPBACK, quic_port=port)):
                pass


async def test_quic_over_ipv6() -> None:
    """The same, over IPv6; the remote address is known."""
    config = attrs.evolve(LOOPBACK, listen_host="::1")
    with trio.fail_after(20):
        try:
            async with open_transport(config) as a, open_transport(config) as b:
                await a.connect(b.peer, [quic_of(b)])
                await wait_connected(b, a)
                assert a.connected_address(b.peer) == "::1" == b.connected_address(a.peer)
        except ConfigError as error:
            pytest.skip(f"no IPv6 on this machine: {error}")


# --- what a daemon must take


async def test_many_peers_on_one_socket() -> None:
    """Eight peers talk to one at once, over its one UDP port, each with its own bytes."""
    with trio.fail_after(60):
        async with open_ours_on_quic(Identity.generate()) as hub, trio.open_nursery() as nursery:
            hub.serve(ECHO, echo)

            async def talk(number: int) -> None:
                async with open_ours_on_quic(Identity.generate()) as peer:
                    await peer.connect(hub.peer, hub.addresses)
                    await assert_echoes(peer, hub, noise(20_000 + number))

            for number in range(8):
                nursery.start_soon(talk, number)


@pytest.mark.parametrize("connects", [25, pytest.param(200, marks=pytest.mark.slow)])
async def test_connections_leave_nothing(connects: int) -> None:
    """After many connects with a stream each, no connection, id, stream or state machine is left on either side."""
    with trio.fail_after(100):
        async with quic_pair() as pair:
            pair.b.serve(ECHO, echo)
            for _ in range(connects):
                await pair.connect()
                await assert_echoes(pair.a, pair.b)
                await pair.a.disconnect(pair.b.peer)
                await pair.b.wait_disconnected(pair.a.peer)
            await trio.sleep(0.2)
            for transport in (pair.a, pair.b):
                assert [endpoint.connection_ids for endpoint in endpoints_of(transport)] in ([0], [0, 0])
            gc.collect()
            assert sum(isinstance(each, QuicConnection) for each in gc.get_objects()) <= 4


async def test_hostile_datagrams_end_nothing() -> None:
    """Garbage, cut packets, made-up handshakes: the peer is served on the connection it has, and new ones are made."""
    chance = Random(5)
    with trio.fail_after(60):
        async with quic_pair() as pair:
            pair.b.serve(ECHO, echo)
            await pair.connect()
            address = parse_address(pair.b.addresses[0])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
                for data in hostile_datagrams(chance, ids_of(pair.b)):
                    attacker.sendto(data, (address.host, address.port))
                    await trio.lowlevel.checkpoint()
            await assert_echoes(pair.a, pair.b)
            async with open_ours_on_quic(Identity.generate()) as friend:
                await friend.connect(pair.b.peer, pair.b.addresses)
                await assert_echoes(friend, pair.b)


async def test_a_flood_of_handshakes_keeps_nobody_out() -> None:
    """When many connections have not proved anything, the others must show their address first (a Retry), and get in."""
    with trio.fail_after(60):
        async with quic_pair() as pair:
            pair.b.serve(ECHO, echo)
            endpoint = endpoints_of(pair.b)[0]
            endpoint._handshakes += FREE_HANDSHAKES
            await pair.connect()
            await assert_echoes(pair.a, pair.b)
            assert endpoint._handshakes == FREE_HANDSHAKES


async def test_a_client_that_moves_keeps_its_connection() -> None:
    """A NAT that gives a mapping a new port does not end the connection, nor a stream on it."""
    with trio.fail_after(60):
        async with quic_pair() as pair, udp_proxy(pair.b) as proxy:
            pair.b.serve(ECHO, echo)
            await pair.a.connect(pair.b.peer, [proxy.address])
            stream = await pair.a.open_stream(pair.b.peer, ECHO)
            for number in range(3):
                await stream.send_all(b"%d" % number)
                assert await stream.receive_some() == b"%d" % number
                proxy.rebind()


async def test_a_peer_that_is_not_there_costs_the_dial_timeout() -> None:
    """UDP answers nothing: the dial ends by its deadline, and leaves nothing behind."""
    config = attrs.evolve(LOOPBACK, dial_timeout_seconds=0.3)
    with trio.fail_after(20):
        async with open_transport(config) as a:
            with pytest.raises(Unreachable, match=r"no answer within 0\.3 s"):
                await a.connect(Identity.generate().peer, ["/ip4/127.0.0.1/udp/9/quic-v1"])
            await trio.sleep(0.1)
            assert [each.connection_ids for each in endpoints_of(a)] == [0, 0]


async def test_an_address_that_cannot_be_reached_fails_at_once() -> None:
    """An error of the network is told, not waited for."""
    with trio.fail_after(20):
        async with open_ours(Identity.generate()) as a:
            with pytest.raises(Unreachable, match=r"(?i)unreachable|permi|invalid|denied"):
                await a.connect(Identity.generate().peer, ["/ip4/255.255.255.255/udp/9/quic-v1"])


# --- helpers


async def wait_until(is_so: Callable[[], bool]) -> None:
    """For what no event is promised."""
    while not is_so():  # noqa: ASYNC110 - see above
        await trio.sleep(0.02)


def open_transport(config: P2pConfig) -> AbstractAsyncContextManager[Transport]:
    """Somebody's transport with these settings."""
    return open_libp2p_transport(Identity.generate(), config)


def quic_of(transport: Transport) -> str:
    """Its QUIC address."""
    return next(each for each in transport.addresses if each.endswith("/quic-v1"))


def endpoints_of(transport: Transport) -> list[Any]:
    """Its UDP sockets."""
    assert isinstance(transport, Libp2pTransport)
    assert transport.quic is not None
    return transport.quic.endpoints


def quic_connections(transport: Transport) -> int:
    """How many ids of QUIC connections it knows."""
    return sum(each.connection_ids for each in endpoints_of(transport))


def ids_of(transport: Transport) -> list[bytes]:
    """The connection ids that lead to it."""
    return [each for endpoint in endpoints_of(transport) for each in endpoint._by_id]


def hostile_datagrams(chance: Random, ids: list[bytes]) -> list[bytes]:
    """A few hundred: any bytes, and such that begin like packets for connections that are there."""
    known = chance.choice(ids)
    version = b"\0\0\0\1"
    initial = b"\xc3" + version + bytes([8]) + chance.randbytes(8) + bytes([8]) + chance.randbytes(8) + b"\0\x44\xb0"
    return [
        b"",
        b"\0",
        b"\xff",
        b"\x40",
        b"\x40" + known[:4],
        b"\xc0" + b"\xff" * 1300,
        b"\xc3" + version + b"\xff" * 1300,
        b"\xc3\x0a\x1a\x2a\x3a" + bytes([8]) + chance.randbytes(1300),  # another version
        b"\x80\0\0\0\0" + bytes([8]) + known + bytes([8]) + known + version,  # a negotiation of versions
        *(b"\x40" + known + chance.randbytes(chance.randrange(1300)) for _ in range(100)),
        *(b"\xe3" + version + bytes([8]) + known + bytes([0]) + chance.randbytes(1200) for _ in range(50)),
        *(initial + chance.randbytes(1300) for _ in range(50)),
        *(chance.randbytes(chance.randrange(1500)) for _ in range(200)),
    ]


@attrs.define(eq=False)
class TcpProxy:
    """A way to a peer's TCP port that is shut at first: whoever connects is hung up on."""

    address: str
    is_open: bool = False


@asynccontextmanager
async def tcp_proxy(there: Transport) -> AsyncIterator[TcpProxy]:
    """In front of that transport."""
    target = parse_address(there.addresses[0])
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = TcpProxy(f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}")

        async def carry(stream: trio.SocketStream) -> None:
            async with stream:
                if proxy.is_open:
                    async with await trio.open_tcp_stream(target.host, target.port) as onward:
                        await both_ways(stream, onward)

        nursery.start_soon(trio.serve_listeners, carry, [listener])
        yield proxy
        nursery.cancel_scope.cancel()


async def both_ways(a: trio.SocketStream, b: trio.SocketStream) -> None:
    """Carry bytes until either ends."""
    async with trio.open_nursery() as nursery:

        async def carry(source: trio.SocketStream, target: trio.SocketStream) -> None:
            try:
                async for data in source:
                    await target.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(carry, a, b)
        nursery.start_soon(carry, b, a)


class UdpProxy:
    """A NAT between one client and a peer: `rebind` gives it another port."""

    def __init__(self, there: Transport) -> None:
        target = parse_address(quic_of(there))
        self._target = (target.host, target.port)
        self._inside = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._client: Any = None
        self.outside = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._moved = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        with self._inside:
            await self._inside.bind(("127.0.0.1", 0))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._down)
                task_status.started()
                while True:
                    data, self._client = await self._inside.recvfrom(65_535)
                    await self.outside.sendto(data, self._target)

    async def _down(self) -> None:
        while True:
            with self.outside, trio.CancelScope() as scope:
                self._scope = scope
                await self.outside.sendto(b"\0", self._target)  # takes a port
                while True:
                    data, _ = await self.outside.recvfrom(65_535)
                    await self._inside.sendto(data, self._client)
            self.outside = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def rebind(self) -> None:
        """From now on another port."""
        self._scope.cancel()

    @property
    def address(self) -> str:
        """Where the client finds the peer."""
        return f"/ip4/127.0.0.1/udp/{self._inside.getsockname()[1]}/quic-v1"


@asynccontextmanager
async def udp_proxy(there: Transport) -> AsyncIterator[UdpProxy]:
    """In front of that transport."""
    async with trio.open_nursery() as nursery:
        proxy = UdpProxy(there)
        await nursery.start(proxy.run)
        yield proxy
        nursery.cancel_scope.cancel()
