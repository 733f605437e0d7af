"""Our QUIC and stock py-libp2p 0.8.1's understand each other, both dialling: the wire is the standard one, and so are the proofs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p import new_host
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.ping import PingService
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from fsn.core.errors import ProtocolViolation, Unreachable
from fsn.core.ids import PeerId
from fsn.p2p.transport.base import Transport
from fsn.runtime.identity import Identity
from tests.p2p.transport.contract import ECHO, assert_echoes, echo, noise, receive_exactly
from tests.p2p.transport.pairs import open_ours_on_quic
from tests.p2p.transport.test_interop import stock_echo

LISTEN = [Multiaddr("/ip4/127.0.0.1/udp/0/quic-v1")]
DATA = noise(200_000)


@asynccontextmanager
async def open_stock_host() -> AsyncIterator[IHost]:
    """py-libp2p as it comes, on QUIC."""
    host = new_host(key_pair=create_new_key_pair(), listen_addrs=LISTEN)
    async with host.run(LISTEN):
        yield host
        await host.close()


def addresses_of(host: IHost) -> list[str]:
    """Where it listens."""
    return [str(address).split("/p2p/")[0] for address in host.get_addrs()]


@asynccontextmanager
async def open_ours() -> AsyncIterator[Transport]:
    """Our transport on QUIC, serving an echo."""
    async with open_ours_on_quic(Identity.generate()) as transport:
        transport.serve(ECHO, echo)
        yield transport


async def test_we_dial_a_stock_host() -> None:
    """It proves who it is, data goes both ways, ends are ends, and an unknown protocol is refused."""
    with trio.fail_after(60):
        async with open_stock_host() as host, open_ours() as transport:
            host.set_stream_handler(TProtocol(ECHO), stock_echo)
            peer = PeerId(str(host.get_id()))
            await transport.connect(peer, addresses_of(host))
            stream = await transport.open_stream(peer, ECHO)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, DATA)
                assert await receive_exactly(stream, len(DATA)) == DATA
            await stream.send_eof()
            assert await stream.receive_some() == b""
            await stream.aclose()
            with pytest.raises(ProtocolViolation):
                await transport.open_stream(peer, "/test/nobody/1")


async def test_a_stock_host_that_is_someone_else_is_refused() -> None:
    """Its certificate is understood, and names another peer."""
    with trio.fail_after(60):
        async with open_stock_host() as host, open_ours() as transport:
            with pytest.raises(Unreachable, match=f"answers as {host.get_id()}"):
                await transport.connect(Identity.generate().peer, addresses_of(host))


async def test_a_stock_host_dials_us() -> None:
    """It takes our proof, we take its; data goes both ways, it can ping us, and others are served beside it."""
    with trio.fail_after(60):
        async with open_stock_host() as host, open_ours() as transport:
            await host.connect(info_from_p2p_addr(Multiaddr(f"{transport.addresses[0]}/p2p/{transport.peer}")))
            peer = ID.from_string(transport.peer)
            stream = await host.new_stream(peer, [TProtocol(ECHO)])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.write, DATA)
                got = b""
                while len(got) < len(DATA):
                    got += await stream.read(65_536)
            assert got == DATA
            assert len(await PingService(host).ping(peer, ping_amt=2)) == 2
            assert transport.is_connected(PeerId(str(host.get_id())))
            async with open_ours() as friend:
                await friend.connect(transport.peer, transport.addresses)
                await assert_echoes(friend, transport)


async def test_a_stock_host_does_not_take_us_for_another() -> None:
    """When it wants somebody else at our address, it refuses us."""
    with trio.fail_after(60):
        async with open_stock_host() as host, open_ours() as transport:
            wanted = ID.from_string(Identity.generate().peer)
            with pytest.raises(Exception, match=r"(?i)unable|fail|mismatch"):
                await host.connect(PeerInfo(wanted, [Multiaddr(transport.addresses[0])]))
            assert host.get_network().get_connections(wanted) == []
