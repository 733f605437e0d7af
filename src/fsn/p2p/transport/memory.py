"""A network of transports inside one process, for tests and simulations: no sockets, and every kind of bad weather at will."""

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random

import trio

from fsn.core.errors import ConfigError, ProtocolViolation, Unreachable
from fsn.core.ids import PeerId
from fsn.core.reachability import DialOutcome, DialResult
from fsn.p2p.transport.base import Stream, StreamHandler, Transport
from fsn.p2p.transport.memory_connection import Connection
from fsn.p2p.transport.memory_links import DIAL_SECONDS, Nat, Place, Weather
from fsn.p2p.transport.memory_streams import MemoryStream
from fsn.p2p.transport.serving import run_handler
from fsn.runtime.groups import sole_error

__all__ = ["MemoryNetwork", "MemoryTransport", "Nat", "Place"]


class MemoryNetwork:
    """Transports that find each other by the address `/memory/<peer id>`, or `/ip4/<address>/memory/<peer id>` with a `Place` that has
    one; any other address leads nowhere. Without places and partitions nothing takes time. `rng` decides what is left to chance."""

    def __init__(self, rng: Random | None = None) -> None:
        self._transports: dict[PeerId, MemoryTransport] = {}
        self._connections: dict[frozenset[PeerId], Connection] = {}
        self._weather = Weather(rng or Random(0))  # noqa: S311 - weather, not a secret
        self._weather_changed = trio.Event()

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

    # --- what can be done to it

    def place(self, peer: PeerId) -> Place:
        """Where that peer stands; call `weather` after changing `is_dark` or `is_paused`."""
        return self._weather.place(peer)

    def cut(self, a: PeerId, b: PeerId) -> None:
        """Break the connection between two peers, as a reset does; they may connect again. Harmless when there is none."""
        for connection in self.connections(a, b):
            connection.break_off()

    def kill(self, peer: PeerId) -> None:
        """Break all connections of a peer and let nobody reach it, as if its process were gone. Again is harmless."""
        transport = self._transports.pop(peer, None)
        for connection in [each for each in self._connections.values() if peer in each.peers]:
            if transport is None or transport in connection.ends:
                connection.break_off()

    def power_off(self, peer: PeerId) -> None:
        """The machine is gone without a word: others notice after `NOTICE_SECONDS`. The same peer may join again."""
        gone = self._transports.pop(peer, None)
        for connection in [each for each in self._connections.values() if gone in each.ends]:
            connection.is_orphan = True
        self.weather()

    def readdress(self, peer: PeerId, address: str) -> None:
        """It is somewhere else from now on: its connections are dead, which both ends notice after `NOTICE_SECONDS`."""
        self.place(peer).address = address
        for connection in [each for each in self._connections.values() if peer in each.peers]:
            connection.is_orphan = True
        self.weather()

    def silence(self, a: PeerId, b: PeerId) -> None:
        """From now on nothing gets through between the two, and nobody is told; until `mend`."""
        self._weather.silenced.append({a, b})
        self.weather()

    def partition(self, *sides: Iterable[PeerId]) -> None:
        """Nothing gets through between peers of different sides; who is named nowhere is on the first side. Replaces an earlier one."""
        self._weather.sides = {peer: number for number, side in enumerate(sides) for peer in side}
        self.weather()

    def mend(self) -> None:
        """No partition, no silence any more. Connections that nobody has given up live on."""
        self._weather.sides.clear()
        self._weather.silenced.clear()
        self.weather()

    def weather(self) -> None:
        """Look at all connections again: hold those over a way that is silent now, let the others go."""
        for connection in list(self._connections.values()):
            connection.look()
        self._weather_changed.set()
        self._weather_changed = trio.Event()

    # --- what transports ask of it

    def connections(self, a: PeerId, b: PeerId) -> list[Connection]:
        """Connections between two peers that nobody has given up: one or none."""
        found = self._connections.get(frozenset((a, b)))
        return [] if found is None else [found]

    def connections_of(self, peer: PeerId) -> int:
        """How many connections it has."""
        return sum(peer in pair for pair in self._connections)

    async def connect(self, dialler: "MemoryTransport", peer: PeerId, addresses: Sequence[str]) -> None:
        """Join two peers. Raises `Unreachable` when no address is one of that peer, or either is gone; a dial into the void lasts."""
        for connection in self.connections(dialler.peer, peer):
            if dialler in connection.ends:
                return
            connection.break_off()  # of a life before this one: its peer knows it as dead
        self._check_dial(dialler, peer, addresses)
        with trio.move_on_after(DIAL_SECONDS) as scope:
            await self._wait_way(dialler.peer, peer)
            await self._wait_turns(dialler.peer, peer, 3)  # TCP, then the secured channel
        if scope.cancelled_caught:
            raise Unreachable(f"{peer} did not answer within {DIAL_SECONDS:g} s; tried {list(addresses)}")
        self._check_dial(dialler, peer, addresses)
        if not self.connections(dialler.peer, peer):
            connection = Connection(self._weather, self._forget, (dialler, self._transports[peer]))
            self._connections[connection.peers] = connection

    def _check_dial(self, dialler: "MemoryTransport", peer: PeerId, addresses: Sequence[str]) -> None:
        is_here = self._transports.get(dialler.peer) is dialler and peer in self._transports and dialler.peer != peer
        if not is_here or not set(addresses) & set(self.addresses(peer)):
            raise Unreachable(f"no address of {peer} answers as that peer; tried {list(addresses)}")

    async def _wait_way(self, dialler: PeerId, peer: PeerId) -> None:
        """Wait until a dial gets through; for ever behind a NAT that lets nobody in."""
        while self._weather.is_silent(dialler, peer) or not self.lets_in(peer):
            await self._weather_changed.wait()

    async def _wait_turns(self, a: PeerId, b: PeerId, turns: int) -> None:
        """As long as so many questions and answers take."""
        if seconds := 2 * turns * (self.place(a).latency_seconds + self.place(b).latency_seconds):
            await trio.sleep(seconds)

    async def wait_stream(self, connection: Connection) -> None:
        """As long as opening a stream takes: one question, one answer."""
        while connection.is_held:
            await connection.wait_news()
        a, b = connection.ends
        await self._wait_turns(a.peer, b.peer, 1)

    def lets_in(self, peer: PeerId) -> bool:
        """Whether a stranger may dial it now."""
        nat = self.place(peer).nat
        return nat is Nat.OPEN or (nat is Nat.FULL_CONE and any(peer in pair for pair in self._connections))

    def addresses(self, peer: PeerId) -> tuple[str, ...]:
        """Where that peer is found now."""
        address = self.place(peer).address
        return (f"/memory/{peer}",) if address == "127.0.0.1" else (f"/ip4/{address}/memory/{peer}",)

    async def probe(self, dialler: PeerId, peer: PeerId, address: str) -> DialResult:
        """Who answers at `address`; lasts for ever where the dial gets through to nobody behind it."""
        found = next((each for each in self._transports if address in self.addresses(each)), None)
        if found is None:
            return DialResult(address, DialOutcome.NO_ANSWER, "nobody is there")
        await self._wait_way(dialler, found)
        await self._wait_turns(dialler, found, 3)
        return DialResult(address, DialOutcome.REACHED if found == peer else DialOutcome.WRONG_PEER)

    def transport(self, peer: PeerId) -> "MemoryTransport":
        """That peer's transport, which must be there."""
        return self._transports[peer]

    def _forget(self, connection: Connection) -> None:
        if self._connections.get(connection.peers) is connection:
            del self._connections[connection.peers]


class MemoryTransport(Transport):
    """See `base.Transport`. Made by `MemoryNetwork.open_transport`."""

    def __init__(self, network: MemoryNetwork, peer: PeerId, nursery: trio.Nursery) -> None:
        self._network = network
        self._peer = peer
        self._nursery = nursery
        self._context = contextvars.copy_context()
        self._handlers: dict[str, StreamHandler] = {}

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def addresses(self) -> Sequence[str]:
        return self._network.addresses(self._peer)

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        await trio.lowlevel.checkpoint()
        await self._network.connect(self, peer, addresses)

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        await trio.lowlevel.checkpoint()
        for connection in self._connections(peer):
            await self._network.wait_stream(connection)
            if connection.broken.is_set():
                break
            [other] = [end for end in connection.ends if end is not self]
            assert isinstance(other, MemoryTransport)
            return other.accept(self._peer, protocol, connection)
        raise Unreachable(f"there is no connection to {peer}")

    def accept(self, dialler: PeerId, protocol: str, connection: Connection) -> Stream:
        """Hand one end of a new stream to the handler, and return the other. Raises `ProtocolViolation` without a handler."""
        handler = self._handlers.get(protocol)
        if handler is None:
            raise ProtocolViolation(f"the peer does not serve {protocol}")
        there, back = connection.pipe(dialler, self._peer), connection.pipe(self._peer, dialler)
        self._start(run_handler, handler, MemoryStream(dialler, protocol, receiving=there, sending=back))
        return MemoryStream(self._peer, protocol, receiving=back, sending=there)

    def start_noticing(self, connection: Connection) -> None:
        """Give up a connection that is held, after a while; harmless at an end that is gone."""
        if not self._nursery.cancel_scope.cancel_called:
            self._start(connection.give_up_unless_mended, self)

    def _start(self, work: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """In the context of who opened the transport, not of whose call leads here: logs say whose they are."""
        self._context.copy().run(self._nursery.start_soon, work, *arguments)

    def _connections(self, peer: PeerId) -> list[Connection]:
        return [each for each in self._network.connections(self._peer, peer) if self in each.ends]

    def is_connected(self, peer: PeerId) -> bool:
        return bool(self._connections(peer))

    def carrier(self, peer: PeerId) -> str | None:
        return "memory" if self.is_connected(peer) else None

    def connection_counts(self) -> Mapping[str, int]:
        return {"memory": self._network.connections_of(self._peer)}

    def connected_address(self, peer: PeerId) -> str | None:
        return self._network.place(peer).address if self.is_connected(peer) else None

    def local_address(self, peer: PeerId) -> str | None:
        return self._network.place(self._peer).address if self.is_connected(peer) else None

    async def probe(self, peer: PeerId, address: str) -> DialResult:
        await trio.lowlevel.checkpoint()
        return await self._network.probe(self._peer, peer, address)

    async def wait_disconnected(self, peer: PeerId) -> None:
        await trio.lowlevel.checkpoint()
        while connections := self._connections(peer):
            await connections[0].broken.wait()

    async def disconnect(self, peer: PeerId) -> None:
        for connection in self._connections(peer):
            connection.break_off()
        await trio.lowlevel.checkpoint()
