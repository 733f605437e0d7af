"""A peer that may send anything, at any layer, over a real socket to a real transport."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID

from fsn.core.ids import PeerId
from fsn.p2p.transport.addresses import parse_tcp_address
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.libp2p import Libp2pTransport
from fsn.p2p.transport.multistream import select
from fsn.p2p.transport.noise import NoiseSession
from fsn.p2p.transport.upgrading import NoiseUpgrade
from fsn.p2p.transport.yamux import YamuxConnection

GREETING = b"\x13/multistream/1.0.0\n"


@asynccontextmanager
async def open_socket(transport: Transport) -> AsyncIterator[trio.SocketStream]:
    """A bare TCP connection to a transport."""
    target = parse_tcp_address(transport.addresses[0])
    async with await trio.open_tcp_stream(target.host, target.port) as stream:
        yield stream


@asynccontextmanager
async def open_secured(transport: Transport) -> AsyncIterator[NoiseSession]:
    """A connection to a transport that has proved its peer id and negotiated nothing more: what it sends next is anybody's choice."""
    keys = create_new_key_pair()
    noise = NoiseUpgrade(keys, noise_privkey=create_new_noise_key_pair().private_key)
    async with open_socket(transport) as stream:
        await select(stream, "/noise")
        raw = RawConnection(TrioTCPStream(stream), True)
        secured = await noise.secure_outbound(raw, ID.from_string(transport.peer))
        yield secured.take_session()  # type: ignore[attr-defined]


@asynccontextmanager
async def open_frames(transport: Transport) -> AsyncIterator[NoiseSession]:
    """The same with Yamux agreed on: what it sends is taken for frames."""
    async with open_secured(transport) as session:
        await session.send_parts([GREETING, b"\x0d/yamux/1.0.0\n"])
        answers = b""
        while len(answers) < len(GREETING) + 14:
            answers += b"".join(await session.receive_messages())
        assert answers == GREETING + b"\x0d/yamux/1.0.0\n"
        yield session


def yamux_of(transport: Transport, peer: PeerId) -> YamuxConnection:
    """The Yamux connection that a transport has to a peer, for streams on which nothing is negotiated."""
    assert isinstance(transport, Libp2pTransport)
    session = transport._host.live(peer)[-1].session
    assert isinstance(session, YamuxConnection)
    return session
