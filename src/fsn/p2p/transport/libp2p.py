"""The door to py-libp2p: a `Transport` over TCP, Noise and Yamux. Listening, dialling and what lies behind a stream are decided here.

py-libp2p does the Noise handshake, the negotiation of inbound protocols, identify and ping; sockets, the secured session and
Yamux are ours (docs/decisions/0004). It is imported when a transport is opened, not before: it costs 1.9 s and 83 MB.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
import trio

from fsn.core.errors import Invalid, Unreachable
from fsn.core.ids import PeerId
from fsn.core.reachability import DialOutcome, DialResult
from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.addresses import PeerAddress, format_tcp_address, parse_tcp_address
from fsn.p2p.transport.base import Stream, StreamHandler, Transport
from fsn.p2p.transport.multistream import select
from fsn.p2p.transport.serving import run_handler
from fsn.p2p.transport.sockets import open_listener, open_stream, tune
from fsn.runtime.groups import sole_error
from fsn.runtime.identity import Identity

if TYPE_CHECKING:
    from libp2p.abc import INetStream
    from libp2p.peer.id import ID

    from fsn.p2p.transport.hosting import Host
    from fsn.p2p.transport.upgrading import MuxedConnection

__all__ = ["open_libp2p_transport"]

_MAX_HANDSHAKES: Final = 1024
"""Inbound connections that have not proved who they are yet; each has 5 s for it (defect B4). More are closed at once."""
_CLOSE_SECONDS: Final = 5.0

_log = structlog.get_logger("fsn.p2p")


@asynccontextmanager
async def open_libp2p_transport(identity: Identity, config: P2pConfig) -> AsyncIterator[Transport]:
    """A transport that listens on `config.listen_host:tcp_port` and dials as `identity`.

    Leaving closes the listener, sends what is queued (a second at most) and closes all connections, within 5 s, also when
    cancelled. Raises `ConfigError` when the port is taken or another py-libp2p than 0.8.1 is installed.
    """
    from fsn.p2p.transport.hosting import open_host

    listener = await open_listener(config.listen_host, config.tcp_port)
    addresses = (format_tcp_address(*listener.socket.getsockname()[:2]),)
    with sole_error():
        async with open_host(identity, config, addresses) as host, trio.open_nursery() as nursery:
            transport = Libp2pTransport(identity.peer, config, addresses, host)
            accepting = trio.CancelScope()
            nursery.start_soon(_accept, accepting, listener, transport, nursery)
            try:
                yield transport
            finally:
                accepting.cancel()
                with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                    await transport.aclose()
                nursery.cancel_scope.cancel()


async def _accept(
    accepting: trio.CancelScope,
    listener: trio.SocketListener,
    transport: "Libp2pTransport",
    connections: trio.Nursery,
) -> None:
    with accepting:
        async with listener:
            await trio.serve_listeners(transport.on_connection, [listener], handler_nursery=connections)


class Libp2pTransport(Transport):
    """See `base.Transport`. Made by `open_libp2p_transport`."""

    def __init__(self, peer: PeerId, config: P2pConfig, addresses: Sequence[str], host: "Host") -> None:
        self._peer = peer
        self._config = config
        self._addresses = tuple(addresses)
        self._host = host
        self._handshakes = trio.CapacityLimiter(_MAX_HANDSHAKES)
        self._dial_locks: dict[PeerId, trio.Lock] = {}

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def addresses(self) -> Sequence[str]:
        return self._addresses

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        async def on_stream(net_stream: "INetStream") -> None:
            stream = self._host.yamux_stream(net_stream)
            stream.set_protocol(protocol)
            await run_handler(handler, stream)

        self._host.serve(protocol, on_stream)

    # --- connections

    def is_connected(self, peer: PeerId) -> bool:
        return bool(self._host.live(peer))

    def connected_address(self, peer: PeerId) -> str | None:
        live = self._host.live(peer)
        remote = live[-1].get_remote_address() if live else None
        return remote[0] if remote else None

    def local_address(self, peer: PeerId) -> str | None:
        live = self._host.live(peer)
        return live[-1].get_local_address() if live else None

    async def probe(self, peer: PeerId, address: str) -> DialResult:
        await trio.lowlevel.checkpoint()
        try:
            target, peer_id = self._checked(peer, address)
        except Unreachable as error:
            return DialResult(address, DialOutcome.NOT_TRIED, error.message)
        from fsn.p2p.transport.probing import probe_tcp

        return await probe_tcp(peer_id, target, address)

    async def wait_disconnected(self, peer: PeerId) -> None:
        while live := self._host.live(peer):
            await live[-1].yamux.closed.wait()
        await trio.lowlevel.checkpoint()

    async def disconnect(self, peer: PeerId) -> None:
        await _close(self._host.live(peer))

    async def aclose(self) -> None:
        """Close all connections at once; py-libp2p would take 0.1 s for each, one after the other."""
        await _close(self._host.all_connections())

    # --- dialling

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        await trio.lowlevel.checkpoint()
        async with self._dialling(peer):
            reasons: list[str] = []
            for address in addresses:
                if self.is_connected(peer):
                    return
                try:
                    await self._dial(peer, address)
                except Unreachable as error:
                    reasons.append(f"{address}: {error}")
            if not self.is_connected(peer):
                raise Unreachable(
                    f"no address of {peer} answers as that peer; {'; '.join(reasons) or 'none was given'}"
                )

    @asynccontextmanager
    async def _dialling(self, peer: PeerId) -> AsyncIterator[None]:
        """One dial to a peer at a time: a second one finds the connection that the first one made."""
        lock = self._dial_locks.setdefault(peer, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._dial_locks.pop(peer, None)

    async def _dial(self, peer: PeerId, address: str) -> None:
        target, peer_id = self._checked(peer, address)
        with trio.move_on_after(self._config.dial_timeout_seconds) as scope:
            await self._dial_tcp(peer_id, target)
        if scope.cancelled_caught:
            raise Unreachable(f"no answer within {self._config.dial_timeout_seconds:g} s")

    def _checked(self, peer: PeerId, address: str) -> "tuple[PeerAddress, ID]":
        if peer == self._peer:
            raise Unreachable("that is our own peer id")
        try:
            target = parse_tcp_address(address)
            peer_id = self._host.id_of(peer)
        except Invalid as error:
            raise Unreachable(str(error)) from error
        if target.peer not in (None, peer):
            raise Unreachable(f"the address is one of {target.peer}")
        return target, peer_id

    async def _dial_tcp(self, peer_id: "ID", target: PeerAddress) -> None:
        try:
            stream = await open_stream(target.host, target.port)
        except OSError as error:
            raise Unreachable(str(error)) from error
        tune(stream)
        try:
            async with _closed_on_failure(stream):
                await self._host.upgrade_outbound(stream, peer_id)
        except Exception as error:  # the door: the other side's bytes decide what py-libp2p raises here
            raise Unreachable(str(error) or repr(error)) from error

    # --- being dialled

    async def on_connection(self, stream: trio.SocketStream) -> None:
        """Take one inbound TCP connection and stay until it ends; never raises, for it runs beside the listener."""
        tune(stream)
        try:
            async with _closed_on_failure(stream):
                self._handshakes.acquire_on_behalf_of_nowait(stream)
                try:
                    connection = await self._host.upgrade_inbound(stream)
                finally:
                    self._handshakes.release_on_behalf_of(stream)
        except Exception as error:  # noqa: BLE001 - the barrier: a stranger's bytes must not end the listener
            _log.debug("inbound_connection_failed", reason=repr(error))
        else:
            await _close(self._superseded_by(connection))
            await connection.yamux.closed.wait()

    def _superseded_by(self, new: "MuxedConnection") -> "list[MuxedConnection]":
        """Older connections of the peer that has just dialled us: it knows that they are dead, we do not yet.

        Nobody dials a peer to which he has a live connection, so an older one is dead unless both dialled at the same moment.
        Those two are both kept: were one to be closed, each side could choose the other one. New streams use the newest.
        """
        just_now = trio.current_time() - self._config.dial_timeout_seconds
        return [
            old
            for old in self._host.live(self._host.peer_of(new))
            if old is not new and (not old.is_initiator or old.opened_at < just_now)
        ]

    # --- streams

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        live = self._host.live(peer)
        if not live:
            raise Unreachable(f"there is no connection to {peer}")
        stream = await live[-1].yamux.open_stream()
        try:
            await select(stream, protocol)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Unreachable(f"the connection to {peer} broke while a stream was opened") from error
        except BaseException:
            stream.close_nowait()
            raise
        stream.set_protocol(protocol)
        return stream


async def _close(connections: "Sequence[MuxedConnection]") -> None:
    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(connection.close)


@asynccontextmanager
async def _closed_on_failure(stream: trio.SocketStream) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
