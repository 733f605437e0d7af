"""The door to py-libp2p: a `Transport` over TCP, Noise and Yamux, and over QUIC. Listening, dialling and what lies behind a stream are
decided here.

py-libp2p does the Noise handshake, the negotiation of inbound protocols, identify and ping; sockets, the secured session, Yamux and
QUIC (over aioquic) are ours (docs/decisions/0004 and the one on QUIC). It is imported when a transport is opened, not before: it
costs 1.9 s and 83 MB.
"""

import functools
import math
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
import trio

from fsn.core.errors import Invalid, Unreachable
from fsn.core.ids import PeerId
from fsn.core.reachability import DialOutcome, DialResult
from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.addresses import QUIC, TCP, PeerAddress, format_tcp_address, parse_address
from fsn.p2p.transport.base import Stream, StreamHandler, Transport
from fsn.p2p.transport.dialling import dial_tcp_first, tcp_addresses
from fsn.p2p.transport.multistream import select
from fsn.p2p.transport.serving import run_handler
from fsn.p2p.transport.sockets import open_listener, open_stream, open_udp_listener, tune
from fsn.runtime.groups import sole_error
from fsn.runtime.identity import Identity

if TYPE_CHECKING:
    from libp2p.abc import INetStream
    from libp2p.peer.id import ID

    from fsn.p2p.transport.hosting import Host
    from fsn.p2p.transport.quic import QuicSockets
    from fsn.p2p.transport.quic_connection import QuicConnection
    from fsn.p2p.transport.upgrading import MuxedConnection

__all__ = ["open_libp2p_transport"]

_MAX_HANDSHAKES: Final = 1024
"""Inbound connections that have not proved who they are yet; each has 5 s for it (defect B4). More are closed at once."""
_CLOSE_SECONDS: Final = 5.0
_SHORT_HEAD_START_SECONDS: Final = 0.5
_REMEMBERED_PEERS: Final = 10_000
_RETIRE_SECONDS: Final = 600.0
"""How long what is under way on QUIC may take once the peer is reached by TCP again."""

_log = structlog.get_logger("fsn.p2p")


@asynccontextmanager
async def open_libp2p_transport(identity: Identity, config: P2pConfig) -> AsyncIterator[Transport]:
    """A transport that listens on `config.listen_host:tcp_port` and dials as `identity`.

    Leaving closes the listener, sends what is queued (a second at most) and closes all connections, within 5 s, also when
    cancelled. Raises `ConfigError` when the port is taken or another py-libp2p than 0.8.1 is installed.
    """
    from fsn.p2p.transport.hosting import open_host
    from fsn.p2p.transport.quic import QuicSockets

    listener = await open_listener(config.listen_host, config.tcp_port)
    with sole_error(), ExitStack() as sockets:
        sockets.callback(listener.socket.close)
        udp = _udp_beside(listener, config, sockets)
        addresses = _listening(listener, udp)
        async with open_host(identity, config, addresses) as host, trio.open_nursery() as nursery:
            transport = Libp2pTransport(identity.peer, config, addresses, host, nursery)
            if udp is not None:
                transport.quic = QuicSockets(identity, udp, sockets, nursery, transport.on_quic_connection)
            accepting = trio.CancelScope()
            nursery.start_soon(_accept, accepting, listener, transport, nursery)
            try:
                yield transport
            finally:
                accepting.cancel()
                with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                    await transport.aclose()
                nursery.cancel_scope.cancel()


def _udp_beside(listener: trio.SocketListener, config: P2pConfig, sockets: ExitStack) -> socket.socket | None:
    if not config.quic:
        return None
    tcp_port = listener.socket.getsockname()[1]
    return sockets.enter_context(open_udp_listener(config.listen_host, config.quic_port, like=tcp_port))


def _listening(listener: trio.SocketListener, udp: socket.socket | None) -> tuple[str, ...]:
    from fsn.p2p.transport.quic import quic_address

    tcp = format_tcp_address(*listener.socket.getsockname()[:2])
    return (tcp,) if udp is None else (tcp, quic_address(udp))


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

    def __init__(
        self,
        peer: PeerId,
        config: P2pConfig,
        addresses: Sequence[str],
        host: "Host",
        nursery: trio.Nursery,
    ) -> None:
        self._peer = peer
        self._config = config
        self._addresses = tuple(addresses)
        self._host = host
        self._nursery = nursery
        self.quic: QuicSockets | None = None
        self._handshakes = trio.CapacityLimiter(_MAX_HANDSHAKES)
        self._dial_locks: dict[PeerId, trio.Lock] = {}
        self._reached_by_quic: set[PeerId] = set()

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def addresses(self) -> Sequence[str]:
        return self._addresses

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        async def on_stream(net_stream: "INetStream") -> None:
            stream = self._host.stream_under(net_stream)
            stream.set_protocol(protocol)
            await run_handler(handler, stream)

        self._host.serve(protocol, on_stream)

    # --- connections

    def is_connected(self, peer: PeerId) -> bool:
        return bool(self._host.live(peer))

    def connected_address(self, peer: PeerId) -> str | None:
        best = self._best(peer)
        remote = best.get_remote_address() if best else None
        return remote[0] if remote else None

    def local_address(self, peer: PeerId) -> str | None:
        best = self._best(peer)
        return best.get_local_address() if best else None

    async def probe(self, peer: PeerId, address: str) -> DialResult:
        await trio.lowlevel.checkpoint()
        try:
            target, peer_id = self._checked(peer, address)
        except Unreachable as error:
            return DialResult(address, DialOutcome.NOT_TRIED, error.message)
        from fsn.p2p.transport.probing import probe_quic, probe_tcp

        if target.transport == TCP:
            return await probe_tcp(peer_id, target, address)
        return await probe_quic(peer, target, address)

    def carrier(self, peer: PeerId) -> str | None:
        best = self._best(peer)
        return best.carrier if best else None

    def connection_counts(self) -> Mapping[str, int]:
        return {TCP: 0, QUIC: 0} | Counter(each.carrier for each in self._host.all_connections())

    def _best(self, peer: PeerId) -> "MuxedConnection | None":
        """The connection for new streams: TCP carries in milliseconds what costs QUIC a hundred; of one kind, the newest."""
        return max(self._host.live(peer), key=lambda each: (each.carrier == TCP, each.opened_at), default=None)

    async def wait_disconnected(self, peer: PeerId) -> None:
        while live := self._host.live(peer):
            await live[-1].session.closed.wait()
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
            if self.is_connected(peer):
                return
            dial = functools.partial(self._dial, peer)
            try:
                await dial_tcp_first(addresses, dial, quic_after_seconds=self._head_start(peer))
            except Unreachable as error:
                reasons = str(error) or "none was given"
                raise Unreachable(f"no address of {peer} answers as that peer; {reasons}") from error
            self._note_reached(peer, tcp_addresses(addresses))

    def _head_start(self, peer: PeerId) -> float:
        """What TCP has before QUIC begins; little where it was QUIC that got through the last time."""
        longest = self._config.quic_after_seconds
        return min(longest, _SHORT_HEAD_START_SECONDS) if peer in self._reached_by_quic else longest

    def _note_reached(self, peer: PeerId, tcp: Sequence[str]) -> None:
        best = self._best(peer)
        self._reached_by_quic.discard(peer)
        if best is not None and best.carrier == QUIC:
            if len(self._reached_by_quic) < _REMEMBERED_PEERS:
                self._reached_by_quic.add(peer)
            if tcp:
                self._nursery.start_soon(self._return_to_tcp, best, peer, tcp)

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
            if target.transport == TCP:
                await self._dial_tcp(peer_id, target)
            else:
                await self._dial_quic(peer, target)
        if scope.cancelled_caught:
            raise Unreachable(f"no answer within {self._config.dial_timeout_seconds:g} s")

    def _checked(self, peer: PeerId, address: str) -> "tuple[PeerAddress, ID]":
        if peer == self._peer:
            raise Unreachable("that is our own peer id")
        try:
            target = parse_address(address)
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

    async def _dial_quic(self, peer: PeerId, target: PeerAddress) -> None:
        if self.quic is None:
            raise Unreachable("QUIC is switched off here")
        connection = await self.quic.dial(peer, target)
        connection.has_better = functools.partial(self._is_on_tcp, peer)
        try:
            await self._host.add(connection)
        except BaseException as error:
            connection.close_nowait()
            if not isinstance(error, Exception):
                raise
            raise Unreachable(str(error) or repr(error)) from error

    def _is_on_tcp(self, peer: PeerId) -> bool:
        return self.carrier(peer) == TCP

    async def _return_to_tcp(self, on_quic: "MuxedConnection", peer: PeerId, addresses: Sequence[str]) -> None:
        """Try TCP again now and then. What is under way on QUIC ends there; then that connection is closed."""
        while not on_quic.is_closed:
            with trio.move_on_after(self._config.tcp_again_seconds):
                await on_quic.session.closed.wait()
            if on_quic.is_established and (self._is_on_tcp(peer) or await self._reach_by_tcp(peer, addresses)):
                _log.info("peer_moved_to_tcp", peer=peer)
                with trio.move_on_after(_RETIRE_SECONDS):
                    await on_quic.wait_idle()
                if self._is_on_tcp(peer):
                    await on_quic.close()

    async def _reach_by_tcp(self, peer: PeerId, addresses: Sequence[str]) -> bool:
        async with self._dialling(peer):
            try:
                await dial_tcp_first(addresses, functools.partial(self._dial, peer), quic_after_seconds=math.inf)
            except Unreachable as error:
                _log.debug("tcp_not_reached", peer=peer, reason=str(error))
        return self._is_on_tcp(peer)

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
            await connection.session.closed.wait()

    async def on_quic_connection(self, quic: "QuicConnection") -> None:
        """Take one inbound QUIC connection, whose peer is proved; never raises, for it runs beside the socket."""
        quic.has_better = functools.partial(self._is_on_tcp, quic.peer)
        try:
            connection = await self._host.add(quic)
        except Exception as error:  # noqa: BLE001 - the barrier: what py-libp2p refuses must not end the socket
            _log.debug("inbound_connection_failed", reason=repr(error))
            quic.close_nowait()
        else:
            await _close(self._superseded_by(connection))

    def _superseded_by(self, new: "MuxedConnection") -> "list[MuxedConnection]":
        """Older connections of the peer that has just dialled us: it knows that they are dead, we do not yet.

        Nobody dials a peer to which he has a live connection, so an older one is dead unless both dialled at the same moment.
        Those two are both kept: were one to be closed, each side could choose the other one. New streams use the newest. A peer
        that comes by TCP may have left QUIC for it: that connection ends by itself. One that comes by QUIC may have tried both.
        """
        just_now = trio.current_time() - self._config.dial_timeout_seconds

        def is_dead(old: "MuxedConnection") -> bool:
            if old.carrier == new.carrier and not old.is_initiator:
                return True
            return old.opened_at < just_now and (old.carrier, new.carrier) != (QUIC, TCP)

        return [old for old in self._host.live(self._host.peer_of(new)) if old is not new and is_dead(old)]

    # --- streams

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        best = self._best(peer)
        if best is None:
            raise Unreachable(f"there is no connection to {peer}")
        stream = await best.session.open_stream()
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
