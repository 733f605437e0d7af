"""Our transport and a stock py-libp2p host understand each other: the wire protocols are the standard ones."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.ping import PingService
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from fsn.core.errors import ConfigError
from fsn.core.ids import PeerId
from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.hardening import check_library
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.runtime.identity import Identity
from tests.p2p.transport.contract import ECHO, assert_echoes, echo
from tests.p2p.transport.stock import open_stock_host

DATA = bytes(range(256)) * 1200


@asynccontextmanager
async def open_ours() -> AsyncIterator[Transport]:
    """Our transport, serving an echo."""
    config = P2pConfig(listen_host="127.0.0.1", tcp_port=0)
    async with open_libp2p_transport(Identity.generate(), config) as transport:
        transport.serve(ECHO, echo)
        yield transport


async def stock_echo(stream: INetStream) -> None:
    """An echo as one writes it with py-libp2p."""
    try:
        while True:
            await stream.write(await stream.read(65_536))
    except StreamEOF:
        await stream.close()


async def connect_stock(host: IHost, transport: Transport) -> None:
    """Let the stock host dial us."""
    await host.connect(info_from_p2p_addr(Multiaddr(f"{transport.addresses[0]}/p2p/{transport.peer}")))


async def test_we_dial_a_stock_host() -> None:
    """Data goes both ways over a connection that we dialled."""
    with trio.fail_after(30):
        async with open_stock_host() as host, open_ours() as transport:
            host.set_stream_handler(TProtocol(ECHO), stock_echo)
            peer = PeerId(str(host.get_id()))
            await transport.connect(peer, [str(address) for address in host.get_addrs()])
            stream = await transport.open_stream(peer, ECHO)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, DATA)
                got = b""
                while len(got) < len(DATA):
                    got += await stream.receive_some()
            assert got == DATA
            await stream.aclose()


async def test_a_stock_host_dials_us() -> None:
    """Data goes both ways over a connection that the stock host dialled; it can ping us, too."""
    with trio.fail_after(30):
        async with open_stock_host() as host, open_ours() as transport:
            await connect_stock(host, transport)
            peer_id = host.get_network().get_connections()[0].muxed_conn.peer_id
            stream = await host.new_stream(peer_id, [TProtocol(ECHO)])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.write, DATA)
                got = b""
                while len(got) < len(DATA):
                    got += await stream.read(65_536)
            assert got == DATA
            assert len(await PingService(host).ping(peer_id, ping_amt=2)) == 2


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(b"\x05\xff\xfe\xfd\xfc\n", id="not UTF-8"),
        pytest.param(b"\x13/multistream/1.0.0\n\x05\xff\xfe\xfd\xfc\n", id="protocol not UTF-8"),
        pytest.param(b"\x13/multistream/1.0.0\n" + b"\xff" * 11, id="endless varint"),
        pytest.param(b"\x13/multistream/1.0.0\n\x03abc", id="no newline"),
        pytest.param(b"\x13/multistream/9.9.9\n", id="other version"),
        pytest.param(b"\0", id="empty line"),
    ],
)
async def test_a_hostile_negotiation_ends_only_its_stream(hostile: bytes) -> None:
    """Bytes that end a stock host when they open a stream cost us that stream; the same connection goes on."""
    with trio.fail_after(30):
        async with open_stock_host() as host, open_ours() as transport:
            await connect_stock(host, transport)
            connection = host.get_network().get_connections()[0]
            for _ in range(3):
                stream = await connection.new_stream()
                await stream.write(hostile)
                await stream.close()
            good = await host.new_stream(connection.muxed_conn.peer_id, [TProtocol(ECHO)])
            await good.write(b"still there")
            assert await good.read(11) == b"still there"
            async with open_ours() as friend:
                await friend.connect(transport.peer, transport.addresses)
                await assert_echoes(friend, transport)


def test_another_library_version_is_refused() -> None:
    """A py-libp2p whose private names we do not know is refused with both versions in the message."""
    check_library()
    with pytest.raises(ConfigError, match=r"libp2p 0\.9\.0 is needed.*0\.8\.1 is installed"):
        check_library({"libp2p": "0.9.0"})
