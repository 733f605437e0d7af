"""A stock py-libp2p 0.8.1 host behind our `Transport`, so that it runs the contract's tests as the other end: nothing is repaired here.

What stock cannot do is left out in `test_stock.py`, test by test, with the defect of docs/decisions/0004 that is the reason.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import trio
from libp2p import new_host
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import HostException
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamClosed, StreamEOF, StreamError, StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as StockNoise
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from fsn.core.errors import ProtocolViolation, Unreachable
from fsn.core.ids import PeerId
from fsn.core.reachability import DialResult
from fsn.p2p.transport.base import Stream, StreamHandler, Transport
from fsn.p2p.transport.serving import run_handler

LISTEN = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
QUIC_LISTEN = [Multiaddr("/ip4/127.0.0.1/udp/0/quic-v1")]


@asynccontextmanager
async def open_stock_host(seed: bytes | None = None, listen: Sequence[Multiaddr] = LISTEN) -> AsyncIterator[IHost]:
    """py-libp2p 0.8.1 as it comes: noise and yamux, or QUIC."""
    keys = create_new_key_pair(seed)
    noise = StockNoise(keys, noise_privkey=create_new_noise_key_pair().private_key)
    host = new_host(key_pair=keys, listen_addrs=listen, sec_opt={NOISE_ID: noise}, muxer_preference="YAMUX")
    async with host.run(listen):
        yield host
        await host.close()


class StockTransport(Transport):
    """As much of `Transport` as stock offers."""

    def __init__(self, host: IHost) -> None:
        self._host = host

    @property
    def peer(self) -> PeerId:
        return PeerId(str(self._host.get_id()))

    @property
    def addresses(self) -> Sequence[str]:
        return tuple(str(address).split("/p2p/")[0] for address in self._host.get_addrs())

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        async def on_stream(stream: INetStream) -> None:
            await run_handler(handler, StockStream(stream, protocol))

        self._host.set_stream_handler(TProtocol(protocol), on_stream)

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_connected(peer):
            return
        try:
            targets = [Multiaddr(address) for address in addresses]
            await self._host.connect(PeerInfo(ID.from_string(peer), targets))
        except (SwarmException, HostException, ValueError) as error:
            raise Unreachable(str(error)) from error

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        await trio.lowlevel.checkpoint()
        if not self.is_connected(peer):
            raise Unreachable(f"there is no connection to {peer}")
        try:
            return StockStream(await self._host.new_stream(ID.from_string(peer), [TProtocol(protocol)]), protocol)
        except HostException as error:
            raise ProtocolViolation(f"the peer does not serve {protocol}") from error
        except SwarmException as error:
            raise Unreachable(str(error)) from error

    def is_connected(self, peer: PeerId) -> bool:
        return self._host.get_network().get_connections(ID.from_string(peer)) != []

    def connected_address(self, peer: PeerId) -> str | None:
        for connection in self._host.get_network().get_connections(ID.from_string(peer)):
            remote = connection.muxed_conn.get_remote_address()  # type: ignore[attr-defined]
            return str(remote[0]) if remote else None
        return None

    def local_address(self, peer: PeerId) -> str | None:
        raise NotImplementedError

    async def probe(self, peer: PeerId, address: str) -> DialResult:
        raise NotImplementedError

    async def wait_disconnected(self, peer: PeerId) -> None:
        await trio.lowlevel.checkpoint()
        while self.is_connected(peer):  # noqa: ASYNC110 - stock tells nobody
            await trio.sleep(0.01)

    async def disconnect(self, peer: PeerId) -> None:
        await self._host.disconnect(ID.from_string(peer))


class StockStream(Stream):
    """As much of `Stream` as stock offers."""

    def __init__(self, stream: INetStream, protocol: str) -> None:
        self._stream = stream
        self._protocol = protocol
        self._ended = self._eof_sent = self._closed = False

    @property
    def peer(self) -> PeerId:
        return PeerId(str(self._stream.muxed_conn.peer_id))

    @property
    def protocol(self) -> str:
        return self._protocol

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError
        if self._ended:
            return b""
        try:
            return await self._stream.read(max_bytes or 65_536)
        except StreamEOF:
            self._ended = True
            return b""
        except (StreamReset, StreamError) as error:
            raise trio.BrokenResourceError(repr(error)) from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed or self._eof_sent:
            raise trio.ClosedResourceError
        try:
            await self._stream.write(bytes(data))
        except (StreamClosed, StreamReset, StreamError) as error:
            raise trio.BrokenResourceError(repr(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._eof_sent:
            return
        self._eof_sent = True
        try:
            await self._stream.close()
        except (StreamClosed, StreamReset, StreamError) as error:
            raise trio.BrokenResourceError(repr(error)) from error

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not (self._eof_sent and self._ended):
            with trio.move_on_after(2, shield=True):  # B5: cancelled in there, it would end the connection
                with suppress(StreamClosed, StreamReset, StreamError):
                    await self._stream.reset()
