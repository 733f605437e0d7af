"""A py-libp2p host with our Noise session, our Yamux, our QUIC and all repairs, and the few things that `libp2p.py` asks of it.

Imports py-libp2p: only the door in `libp2p.py` imports this module, when a transport is opened.
"""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio
from libp2p import new_host
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from fsn.core.errors import Invalid
from fsn.core.ids import PeerId
from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.hardening import check_library, harden, swarm_of
from fsn.p2p.transport.quic_connection import QuicConnection
from fsn.p2p.transport.upgrading import (
    MuxedConnection,
    MuxedStream,
    Muxer,
    NoiseUpgrade,
    PeerStream,
    QuicMuxedConnection,
    RawStream,
)
from fsn.runtime.identity import Identity

__all__ = ["Host", "open_host"]

_UPGRADE_SECONDS: Final = 5.0
"""For an inbound connection to prove who it is; 10 s by default let 250 silent sockets keep everybody else out (defect B4)."""


@asynccontextmanager
async def open_host(identity: Identity, config: P2pConfig, addresses: Sequence[str]) -> AsyncIterator["Host"]:
    """Run a host that listens nowhere by itself and tells others of `config.announce`, or else of `addresses`.

    Raises `ConfigError` when another py-libp2p is installed. Leaving closes what connections are left (defect B11).
    """
    check_library()
    host = _make_host(identity, config, addresses)
    async with host.run([]):
        try:
            yield Host(host, Multiaddr(addresses[0]))
        finally:
            with trio.move_on_after(5, shield=True):
                await host.close()


def _make_host(identity: Identity, config: P2pConfig, addresses: Sequence[str]) -> IHost:
    keys = create_new_key_pair(identity.seed)
    told = [Multiaddr(text) for text in config.announce or addresses]
    host = new_host(
        key_pair=keys,
        # The default offers /plaintext too, with which anybody is accepted under any peer id (defect B10).
        sec_opt={NOISE_ID: NoiseUpgrade(keys, noise_privkey=create_new_noise_key_pair().private_key)},
        connection_config=_connection_config(config),
        addrs_factory=lambda _: told,
        disable_identify_address_discovery=True,
    )
    swarm_of(host).upgrader.muxer_multistream = Muxer()
    harden(host)
    return host


def _connection_config(config: P2pConfig) -> ConnectionConfig:
    return ConnectionConfig(
        max_connections=2 * config.max_peers,
        high_watermark=2 * config.max_peers,
        min_connections=0,
        low_watermark=0,  # the auto-connector is off: who is dialled is decided above
        # Those to one peer are ours to close (`libp2p`): py-libp2p closes what is above this with all its streams, and a peer that
        # comes back from QUIC to TCP has both for a while.
        max_connections_per_peer=8,
        inbound_upgrade_timeout=_UPGRADE_SECONDS,
        outbound_upgrade_timeout=config.dial_timeout_seconds,
    )


class Host:
    """The host as the transport uses it."""

    def __init__(self, host: IHost, listening: Multiaddr) -> None:
        self._host = host
        self._swarm = swarm_of(host)
        self._listening = listening

    def serve(self, protocol: str, handler: Callable[[INetStream], Awaitable[None]]) -> None:
        """Take inbound streams of a protocol."""
        self._host.set_stream_handler(TProtocol(protocol), handler)

    def stream_under(self, net_stream: INetStream) -> PeerStream:
        """Our stream under py-libp2p's two layers."""
        assert isinstance(net_stream, NetStream)
        assert isinstance(net_stream.muxed_stream, MuxedStream)
        return net_stream.muxed_stream.stream

    def id_of(self, peer: PeerId) -> ID:
        """py-libp2p's form of a peer id. Raises `Invalid`."""
        try:
            return _parsed_id(peer)
        except ValueError as error:
            raise Invalid(f"not a peer id: {peer!r}") from error

    def peer_of(self, connection: MuxedConnection) -> PeerId:
        """Who is at the other end, as the handshake proved."""
        return connection.session.peer

    def live(self, peer: PeerId) -> list[MuxedConnection]:
        """Connections to the peer on which streams can be opened, oldest first."""
        try:
            peer_id = self.id_of(peer)
        except Invalid:
            return []
        return [conn for conn in self._muxed(peer_id) if conn.is_established]

    def all_connections(self) -> list[MuxedConnection]:
        """Every connection that is not closed yet."""
        return [
            conn for peer_id in list(self._swarm.connections) for conn in self._muxed(peer_id) if not conn.is_closed
        ]

    def _muxed(self, peer_id: ID) -> list[MuxedConnection]:
        muxed = (conn.muxed_conn for conn in self._swarm.connections.get(peer_id, ()))
        return [conn for conn in muxed if isinstance(conn, MuxedConnection)]

    async def upgrade_inbound(self, stream: trio.SocketStream) -> MuxedConnection:
        """Secure and multiplex an accepted socket; the connection lives on in the swarm. May raise anything.

        Called by our own listener, past py-libp2p's, which keeps a slot of 250 for each connection until the host ends (defect
        B3): after 250 inbound connections in its life it takes no more.
        """
        muxed = await self._swarm.upgrade_inbound_raw_conn(RawConnection(RawStream(stream), False), self._listening)
        assert isinstance(muxed, MuxedConnection)
        return muxed

    async def add(self, connection: QuicConnection) -> MuxedConnection:
        """Let py-libp2p serve the streams of a connection that is proved already. May raise anything."""
        muxed = QuicMuxedConnection(connection)
        await self._swarm.add_conn(muxed, direction="outbound" if connection.is_initiator else "inbound")
        return muxed

    async def upgrade_outbound(self, stream: trio.SocketStream, peer_id: ID) -> None:
        """Secure and multiplex a dialled socket, if that peer is at its other end. May raise anything; has no deadline."""
        await self._swarm.upgrade_outbound_raw_conn(RawConnection(RawStream(stream), True), peer_id)


@functools.lru_cache(maxsize=10_000)
def _parsed_id(peer: PeerId) -> ID:
    # Asked for several times per chunk (is this node connected?); decoding base58 took 2 % of an upload's CPU.
    return ID.from_string(peer)
