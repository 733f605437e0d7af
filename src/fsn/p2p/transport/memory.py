"""A network of transports inside one process, for tests and simulations: no sockets, no waiting, connections cut at will."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from fsn.core.errors import ConfigError, ProtocolViolation, Unreachable
from fsn.core.ids import PeerId
from fsn.p2p.transport.base import Stream, StreamHandler, Transport
from fsn.p2p.transport.serving import run_handler
from fsn.runtime.groups import sole_error

__all__ = ["MemoryNetwork"]

_PIPE_BYTES: Final = 256 * 1024
"""What a sender may be ahead of its receiver."""
_RECEIVE_BYTES: Final = 256 * 1024


class MemoryNetwork:
    """Transports that find each other by the address `/memory/<peer id>`; any other address leads nowhere."""

    def __init__(self) -> None:
        self._transports: dict[PeerId, MemoryTransport] = {}
        self._connections: set[_Connection] = set()

    @asynccontextmanager
    async def open_transport(self, peer: PeerId) -> AsyncIterator[Transport]:
        """Join as `peer`; leaving breaks its connections. Raises `ConfigError` when that peer is there already."""
        if peer in self._transports:
            raise ConfigError(f"{peer} is in this network already")
        with sole_error():
            async with trio.open_nursery() as nursery:
                self._transports[peer] = transport = MemoryTransport(self, peer, nursery)
                try:
                    yield transport
                finally:
                    if self._transports.get(peer) is transport:  # killed, it may have been followed by another one
                        self.kill(peer)
                    nursery.cancel_scope.cancel()

    def cut(self, a: PeerId, b: PeerId) -> None:
        """Break the connection between two peers, as a cable does; they may connect again. Harmless when there is none."""
        for connection in self.connections(a, b):
            connection.break_off()

    def kill(self, peer: PeerId) -> None:
        """Break all connections of a peer and let nobody reach it, as if its process were gone. Again is harmless."""
        self._transports.pop(peer, None)
        for connection in [connection for connection in self._connections if peer in connection.ends]:
            connection.break_off()

    def connections(self, a: PeerId, b: PeerId) -> "list[_Connection]":
        """Live connections between two peers: one or none."""
        return [connection for connection in self._connections if connection.ends == {a, b}]

    def connect(self, dialler: PeerId, peer: PeerId, addresses: Sequence[str]) -> None:
        """Join two peers. Raises `Unreachable` when no address is one of that peer, or either is gone."""
        if self.connections(dialler, peer):
            return
        if f"/memory/{peer}" not in addresses or not {dialler, peer} <= self._transports.keys() or dialler == peer:
            raise Unreachable(f"no address of {peer} answers as that peer; tried {list(addresses)}")
        connection = _Connection(ends=frozenset({dialler, peer}), live=self._connections)
        self._connections.add(connection)

    def transport(self, peer: PeerId) -> "MemoryTransport":
        """That peer's transport, which must be there."""
        return self._transports[peer]


@attrs.define(eq=False)
class _Connection:
    """A live connection: who is joined, and its streams."""

    ends: frozenset[PeerId]
    live: "set[_Connection]"
    pipes: "set[_Pipe]" = attrs.field(factory=set)
    broken: trio.Event = attrs.field(factory=trio.Event)

    def break_off(self) -> None:
        self.live.discard(self)
        self.broken.set()
        for pipe in list(self.pipes):
            pipe.break_off(unless_ended=True)


class MemoryTransport(Transport):
    """See `base.Transport`. Made by `MemoryNetwork.open_transport`."""

    def __init__(self, network: MemoryNetwork, peer: PeerId, nursery: trio.Nursery) -> None:
        self._network = network
        self._peer = peer
        self._nursery = nursery
        self._handlers: dict[str, StreamHandler] = {}

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def addresses(self) -> Sequence[str]:
        return (f"/memory/{self._peer}",)

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        await trio.lowlevel.checkpoint()
        self._network.connect(self._peer, peer, addresses)

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        await trio.lowlevel.checkpoint()
        for connection in self._network.connections(self._peer, peer):
            return self._network.transport(peer).accept(self._peer, protocol, connection)
        raise Unreachable(f"there is no connection to {peer}")

    def accept(self, dialler: PeerId, protocol: str, connection: _Connection) -> Stream:
        """Hand one end of a new stream to the handler, and return the other. Raises `ProtocolViolation` without a handler."""
        handler = self._handlers.get(protocol)
        if handler is None:
            raise ProtocolViolation(f"the peer does not serve {protocol}")
        there, back = _Pipe(connection.pipes), _Pipe(connection.pipes)
        self._nursery.start_soon(run_handler, handler, MemoryStream(dialler, protocol, receiving=there, sending=back))
        return MemoryStream(self._peer, protocol, receiving=back, sending=there)

    def is_connected(self, peer: PeerId) -> bool:
        return bool(self._network.connections(self._peer, peer))

    def connected_address(self, peer: PeerId) -> str | None:
        return "127.0.0.1" if self.is_connected(peer) else None

    async def wait_disconnected(self, peer: PeerId) -> None:
        await trio.lowlevel.checkpoint()
        while connections := self._network.connections(self._peer, peer):
            await connections[0].broken.wait()

    async def disconnect(self, peer: PeerId) -> None:
        self._network.cut(self._peer, peer)
        await trio.lowlevel.checkpoint()


class _Pipe:
    """One direction of a stream: bytes in order, at most `_PIPE_BYTES` ahead, then an end or a break."""

    def __init__(self, pipes: "set[_Pipe]") -> None:
        self.is_ended = self.is_broken = False
        self._pipes = pipes
        self._pipes.add(self)
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._changed = trio.Event()

    @property
    def has_room(self) -> bool:
        return self._size < _PIPE_BYTES

    @property
    def has_data(self) -> bool:
        return bool(self._chunks)

    def put(self, data: bytes) -> int:
        """Keep as much as there is room for; the result is how much."""
        taken = data[: _PIPE_BYTES - self._size]
        self._chunks.append(taken)
        self._size += len(taken)
        self._notify()
        return len(taken)

    def take(self, limit: int) -> bytes:
        """The next bytes, b"" at the end."""
        if not self._chunks:
            return b""
        chunk = self._chunks.popleft()
        if len(chunk) > limit:
            self._chunks.appendleft(chunk[limit:])
        self._size -= min(len(chunk), limit)
        self._notify()
        return chunk[:limit]

    def end(self) -> None:
        """No more bytes come; those there can still be taken."""
        self.is_ended = True
        self._notify()

    def break_off(self, *, unless_ended: bool = False) -> None:
        """No more bytes come, and what there is ends in a break; with `unless_ended`, what ended cleanly still does."""
        self._pipes.discard(self)
        if not (unless_ended and self.is_ended):
            self.is_broken = True
        self._notify()

    async def wait_changed(self) -> None:
        """Return when anything about the pipe has changed."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class MemoryStream(Stream):
    """One end of a stream; see `base.Stream` for the promises."""

    def __init__(self, peer: PeerId, protocol: str, *, receiving: _Pipe, sending: _Pipe) -> None:
        self._peer = peer
        self._protocol = protocol
        self._in = receiving
        self._out = sending
        self._closed = self._is_receiving = self._is_sending = False

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def protocol(self) -> str:
        return self._protocol

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        limit = _RECEIVE_BYTES if max_bytes is None else max_bytes
        if not isinstance(limit, int):
            raise TypeError("max_bytes must be an integer or None")
        if limit < 1:
            raise ValueError("max_bytes must be 1 or more")
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._is_receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._has_news():
                await self._in.wait_changed()
            return self._in.take(limit)
        finally:
            self._is_receiving = False

    def _has_news(self) -> bool:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._in.is_broken and not self._in.has_data:
            raise trio.BrokenResourceError("the peer reset the stream, or the connection is lost")
        return self._in.has_data or self._in.is_ended

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._sending():
            left = bytes(data)
            self._check_can_send()
            while left:
                await self._wait_room()
                left = left[self._out.put(left) :]

    async def wait_send_all_might_not_block(self) -> None:
        async with self._sending():
            self._check_can_send()
            await self._wait_room()

    @asynccontextmanager
    async def _sending(self) -> AsyncIterator[None]:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            self._is_sending = False

    async def _wait_room(self) -> None:
        self._check_can_send()
        while not self._out.has_room:
            await self._out.wait_changed()
            self._check_can_send()

    def _check_can_send(self) -> None:
        if self._closed or self._out.is_ended:
            raise trio.ClosedResourceError("this stream's sending half was closed here")
        if self._out.is_broken:
            raise trio.BrokenResourceError("the peer reset the stream, or the connection is lost")

    async def send_eof(self) -> None:
        async with self._sending():
            if not self._closed and self._out.is_ended:
                return
            self._check_can_send()
            self._out.end()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._out.break_off(unless_ended=True)
            self._in.break_off()
        await trio.lowlevel.checkpoint()
