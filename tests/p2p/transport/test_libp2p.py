"""The py-libp2p transport keeps the transport contract on loopback, and takes what a daemon must take."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from fsn.core.errors import ConfigError, Unreachable
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.runtime.identity import Identity, create_identity
from tests.p2p.transport.contract import ECHO, OpenPair, Pair, TransportContract, assert_echoes, echo
from tests.p2p.transport.pairs import LOOPBACK, open_ours, open_pair_of


def libp2p_pair() -> AbstractAsyncContextManager[Pair]:
    """Two transports of ours on loopback."""
    return open_pair_of(open_ours, open_ours)


class TestLibp2pTransport(TransportContract):
    """The contract, over TCP, Noise and Yamux."""

    @pytest.fixture
    def open_pair(self) -> OpenPair:
        """Pairs of transports on loopback."""
        return libp2p_pair


async def send_raw(address: str, data: bytes) -> None:
    """Connect, send bytes, wait for whatever comes, go."""
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(address))
    async with stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            with trio.move_on_after(0.01):
                await stream.receive_some()


def port_of(address: str) -> int:
    """The TCP port of a multiaddress."""
    return int(address.rsplit("/", 1)[1])


async def test_strangers_bytes_harm_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    """Garbage on the port, at every stage of the negotiation, leaves the transport serving, and stderr empty."""
    greeting = b"\x13/multistream/1.0.0\n"
    garbage = [
        b"\0" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 5000,
        greeting,
        greeting + b"\x05\xff\xfe\xfd\xfc\n",
        greeting + b"\x07/noise\n" + b"\0\x20" + bytes(range(32)),
        greeting + b"\x07/noise\n" + os.urandom(3000),
        greeting + b"\xff" * 11,
        greeting + b"\xff\xff\xff\x7f" + b"a" * 1000,
        greeting + b"\x0f/plaintext/2.0.0\n",
    ]
    with trio.fail_after(20):
        async with libp2p_pair() as pair:
            pair.b.serve(ECHO, echo)
            for data in garbage:
                await send_raw(pair.b.addresses[0], data)
            await pair.connect()
            await assert_echoes(pair.a, pair.b)
    assert capfd.readouterr().err == ""


async def test_many_connections_in_its_life() -> None:
    """After 300 inbound connections, more than stock py-libp2p takes in its life, peers are still served."""
    with trio.fail_after(60):
        async with libp2p_pair() as pair:
            pair.b.serve(ECHO, echo)
            for _ in range(40):
                await pair.connect()
                await pair.a.disconnect(pair.b.peer)
            for _ in range(260):
                async with await trio.open_tcp_stream("127.0.0.1", port_of(pair.b.addresses[0])):
                    pass
            await pair.connect()
            await assert_echoes(pair.a, pair.b)


async def test_silent_sockets_keep_nobody_out() -> None:
    """Sockets that connect and say nothing do not keep a peer from connecting."""
    with trio.fail_after(20):
        async with libp2p_pair() as pair, trio.open_nursery() as nursery:
            pair.b.serve(ECHO, echo)

            async def say_nothing() -> None:
                async with await trio.open_tcp_stream("127.0.0.1", port_of(pair.b.addresses[0])):
                    await trio.sleep_forever()

            for _ in range(300):
                nursery.start_soon(say_nothing)
            await trio.sleep(0.1)
            await pair.connect()
            await assert_echoes(pair.a, pair.b)
            nursery.cancel_scope.cancel()


async def test_a_dial_has_a_deadline() -> None:
    """A peer that accepts and says nothing is unreachable after the dial's time, not after minutes."""
    with trio.fail_after(10), socket.create_server(("127.0.0.1", 0)) as silent:
        config = attrs.evolve(LOOPBACK, dial_timeout_seconds=0.2)
        async with open_libp2p_transport(Identity.generate(), config) as transport:
            started = trio.current_time()
            with pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
                await transport.connect(Identity.generate().peer, [f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}"])
            assert trio.current_time() - started < 2


async def test_the_second_address_is_tried() -> None:
    """A useless address does not keep the next one from being tried, and nothing bans a peer that failed once."""
    with trio.fail_after(20):
        async with libp2p_pair() as pair:
            pair.b.serve(ECHO, echo)
            for _ in range(2):
                with pytest.raises(Unreachable):
                    await pair.a.connect(pair.b.peer, ["/ip4/127.0.0.1/tcp/1"])
            await pair.a.connect(pair.b.peer, ["/ip4/127.0.0.1/tcp/1", f"{pair.b.addresses[0]}/p2p/{pair.b.peer}"])
            await assert_echoes(pair.a, pair.b)


@pytest.mark.parametrize("dialled_by_us", [True, False], ids=["dialled by us", "dialled by the peer"])
async def test_the_new_connection_of_a_peer_wins(*, dialled_by_us: bool) -> None:
    """A peer that dials while its old connection is believed alive has lost that one: the new one is kept, the old one closed."""
    identity = Identity.generate()
    config = attrs.evolve(LOOPBACK, dial_timeout_seconds=0.5)
    with trio.fail_after(20):
        async with (
            open_libp2p_transport(Identity.generate(), config) as us,
            open_libp2p_transport(identity, LOOPBACK) as old,
            open_libp2p_transport(identity, LOOPBACK) as new,
        ):
            if dialled_by_us:
                await us.connect(old.peer, old.addresses)
                await trio.sleep(0.6)  # longer ago than a dial takes: it cannot be the same moment
            else:
                await old.connect(us.peer, us.addresses)
            new.serve(ECHO, echo)
            await new.connect(us.peer, us.addresses)
            await old.wait_disconnected(us.peer)
            assert us.is_connected(identity.peer)
            await assert_echoes(us, new)


CHILD = """
import sys, trio
from pathlib import Path
from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.runtime.identity import load_identity

async def main():
    config = P2pConfig(listen_host="127.0.0.1", tcp_port=0)
    async with open_libp2p_transport(load_identity(Path(sys.argv[1])), config) as transport:
        print(transport.addresses[0], flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_a_killed_process_is_noticed_at_once(tmp_path: Path) -> None:
    """When the peer's process is killed with -9, its connection is known to be lost within a moment."""
    identity = create_identity(tmp_path / "identity.pem")
    with trio.fail_after(30), start_child(tmp_path / "identity.pem") as child:
        assert child.stdout is not None
        address = (await trio.to_thread.run_sync(child.stdout.readline)).strip()
        async with open_libp2p_transport(Identity.generate(), LOOPBACK) as transport:
            await transport.connect(identity.peer, [address])
            child.send_signal(signal.SIGKILL)
            with trio.fail_after(1):
                await transport.wait_disconnected(identity.peer)
            assert not transport.is_connected(identity.peer)


@pytest.mark.slow
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
async def test_a_frozen_process_is_given_up(tmp_path: Path, *, busy: bool) -> None:
    """A stopped process (its kernel goes on answering) is given up within 13 s and a bit, and what waits for it is told."""
    identity = create_identity(tmp_path / "identity.pem")
    with trio.fail_after(60), start_child(tmp_path / "identity.pem") as child:
        assert child.stdout is not None
        address = (await trio.to_thread.run_sync(child.stdout.readline)).strip()
        async with open_libp2p_transport(Identity.generate(), LOOPBACK) as transport:
            await transport.connect(identity.peer, [address])
            stream = await transport.open_stream(identity.peer, "/ipfs/ping/1.0.0")
            child.send_signal(signal.SIGSTOP)
            frozen_at = trio.current_time()
            with pytest.raises(trio.BrokenResourceError):
                while busy:
                    await stream.send_all(bytes(32))
                await stream.receive_some()
            await transport.wait_disconnected(identity.peer)
            assert trio.current_time() - frozen_at < 20


async def test_connections_have_a_limit() -> None:
    """Beyond twice `max_peers` connections a further peer is turned away; those that are there live, and a place that is free is taken."""
    config = attrs.evolve(LOOPBACK, max_peers=2)
    with trio.fail_after(30):
        async with open_libp2p_transport(Identity.generate(), config) as crowded, AsyncExitStack() as stack:
            crowded.serve(ECHO, echo)
            peers = [await stack.enter_async_context(open_ours(Identity.generate())) for _ in range(5)]
            for peer in peers[:4]:
                await peer.connect(crowded.peer, crowded.addresses)
                await assert_echoes(peer, crowded)
            with pytest.raises((Unreachable, trio.BrokenResourceError)):
                await peers[4].connect(crowded.peer, crowded.addresses)
                await assert_echoes(peers[4], crowded)
            for peer in peers[:4]:
                await assert_echoes(peer, crowded)
            await peers[0].disconnect(crowded.peer)
            await crowded.wait_disconnected(peers[0].peer)
            await peers[4].connect(crowded.peer, crowded.addresses)
            await assert_echoes(peers[4], crowded)


@contextmanager
def start_child(identity: Path) -> "Iterator[subprocess.Popen[str]]":
    """A process that opens a transport and prints its address; killed at the end, whatever happens."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(identity)], stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


async def test_a_taken_port_is_a_clear_error() -> None:
    """A port that another socket listens on is refused by name, also when that socket shares it (SO_REUSEPORT)."""
    for share in (False, True):
        with socket.socket() as other:
            if share:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            config = attrs.evolve(LOOPBACK, tcp_port=other.getsockname()[1])
            with pytest.raises(ConfigError, match=f"cannot listen on TCP port {config.tcp_port} of 127.0.0.1"):
                async with open_libp2p_transport(Identity.generate(), config):
                    pass


async def test_an_error_in_the_body_comes_out_as_it_is() -> None:
    """What the body raises is raised, not a group of it; the port is free again."""
    with pytest.raises(ZeroDivisionError):
        async with open_libp2p_transport(Identity.generate(), LOOPBACK) as transport:
            port = port_of(transport.addresses[0])
            raise ZeroDivisionError
    async with open_libp2p_transport(Identity.generate(), attrs.evolve(LOOPBACK, tcp_port=port)):
        pass


async def test_py_libp2ps_logs_go_where_ours_go() -> None:
    """py-libp2p's warnings reach the program's log handlers; its chatter does not."""
    async with open_libp2p_transport(Identity.generate(), LOOPBACK):
        assert logging.getLogger("libp2p.anything").getEffectiveLevel() == logging.WARNING
        assert logging.getLogger("libp2p").propagate
        assert logging.getLogger("libp2p").hasHandlers()


async def test_a_peer_over_ipv6_is_known_by_its_address() -> None:
    """The remote address of an IPv6 connection is known, on both sides."""
    config = attrs.evolve(LOOPBACK, listen_host="::1")
    with trio.fail_after(20):
        try:
            async with (
                open_libp2p_transport(Identity.generate(), config) as a,
                open_libp2p_transport(Identity.generate(), config) as b,
            ):
                await a.connect(b.peer, b.addresses)
                assert a.connected_address(b.peer) == "::1" == b.connected_address(a.peer)
        except ConfigError as error:
            pytest.skip(f"no IPv6 on this machine: {error}")
