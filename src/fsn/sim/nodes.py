"""A simulated storage node: the real services over the memory network, on a disk with faults, with everything that can befall them."""

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Final

import attrs
import trio

from fsn.core.ids import NodeId, ReplicaId
from fsn.node.config import NodeConfig
from fsn.node.discovering import LONGEST_LOOK_SECONDS
from fsn.node.services import NodeServices, open_services
from fsn.p2p.transport.memory import MemoryNetwork, Place
from fsn.runtime.clock import Clock
from fsn.runtime.identity import Identity
from fsn.sim.cheating import CheatingProving, nobody_else_has
from fsn.sim.disks import Disk
from fsn.sim.timeline import Timeline, acting_as

__all__ = ["Life", "SimNode", "dht_seconds"]

_RESTS_BETWEEN_LOOKS: Final = 48
_DHT_DAY_SECONDS: Final = 86400.0
"""Records in the DHT are valid for two days: published once a day, one is always there."""


@attrs.define(eq=False)
class Life:
    """One run of a process: how to end it, and whether it has."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    started: trio.Event = attrs.field(factory=trio.Event)
    stopping: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class SimNode:
    """A node of a simulated network. Methods that end with the node in another state return when it is in that state."""

    name: str
    identity: Identity
    config: NodeConfig
    disk: Disk
    rng: Random = attrs.field(repr=False)
    _memory: MemoryNetwork = attrs.field(repr=False)
    _timeline: Timeline = attrs.field(repr=False)
    _nursery: trio.Nursery = attrs.field(repr=False)
    _wall: Callable[[Callable[[], float]], Clock] = attrs.field(repr=False)
    _shortest_rest_seconds: float = 0.0
    _other_copy: Callable[[ReplicaId], Awaitable[bytes]] = attrs.field(default=nobody_else_has, repr=False)
    services: NodeServices | None = None
    """The real node, while it runs."""
    clock_skew_seconds: float = 0.0
    """By so much its clock on the wall is wrong."""
    is_gone: bool = False
    """It will never come back."""
    _life: Life | None = attrs.field(default=None, repr=False)

    @property
    def id(self) -> NodeId:
        """What coordinators call it."""
        return self.config.node_id

    @property
    def is_running(self) -> bool:
        """Whether its process runs; paused and cut off ones do."""
        return self._life is not None

    @property
    def place(self) -> Place:
        """Where it stands in the network: latency, bandwidth, loss, NAT. Change it at any time."""
        return self._memory.place(self.identity.peer)

    @property
    def is_reachable(self) -> bool:
        """Whether it runs and bytes get through to the middle of the network."""
        return self.is_running and not self.place.is_silent

    def replicas(self) -> list[ReplicaId]:
        """What its index lists."""
        return self.disk.replicas()

    # --- the process

    async def start(self) -> None:
        """Start it, again if need be; harmless when it runs."""
        if self._life is not None:
            return
        self._life = life = Life()
        self._timeline.note(self.name, "start")
        self.place.is_paused = self.place.is_dark = False
        with acting_as(self.name):
            self._nursery.start_soon(self._live, life, name=self.name)
        await life.started.wait()

    async def stop(self) -> None:
        """As SIGTERM does: it ends in order."""
        if life := self._life:
            self._timeline.note(self.name, "stop")
            life.stopping.set()
            await life.ended.wait()

    async def kill(self) -> None:
        """As kill -9 does: connections break at once, nothing is finished."""
        if self._life is not None:
            self._timeline.note(self.name, "kill")
            self._memory.kill(self.identity.peer)
            await self._end()

    async def power_off(self) -> None:
        """Gone without a word: others notice late. A disk that lies about syncing loses what it acknowledged lately."""
        if self._life is not None:
            self._timeline.note(self.name, "power_off")
            self._memory.power_off(self.identity.peer)
            await self._end()
            await self.disk.lose_power()

    async def die(self) -> None:
        """Gone for good, its disk with it."""
        self._timeline.note(self.name, "die", replicas=len(self.replicas()))
        self.is_gone = True
        if self._life is not None:
            self._memory.kill(self.identity.peer)
            await self._end()
        self.disk.wipe()

    async def restart(self) -> None:
        """Stop in order and start again."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """As SIGSTOP does, as far as others can see."""
        self._change("pause", is_paused=True)

    def resume(self) -> None:
        """As SIGCONT does."""
        self._change("resume", is_paused=False)

    # --- its way into the network

    def cut_off(self) -> None:
        """Nothing gets through, and nobody is told."""
        self._change("cut_off", is_dark=True)

    def mend(self) -> None:
        """The way is open again."""
        self._change("mend", is_dark=False)

    def readdress(self, address: str) -> None:
        """It has another IP address from now on; connections of before are dead."""
        self._timeline.note(self.name, "readdress", address=address)
        self._memory.readdress(self.identity.peer, address)

    def jump_clock(self, seconds: float) -> None:
        """Its clock on the wall is set forward (or back) by so much."""
        self._timeline.note(self.name, "jump_clock", by_seconds=seconds)
        self.clock_skew_seconds += seconds

    # --- its disk and its owner

    def set_faults(self, **faults: bool | float | str) -> None:
        """Change what is wrong with its disk, see `Faults`."""
        self._timeline.note(self.name, "set_faults", **faults)
        for name, value in faults.items():
            setattr(self.disk.faults, name, value)

    def drop_chunks(self, share: float) -> int:
        """Its owner throws away a share of the chunks and goes on claiming to hold them. How many."""
        dropped = self.disk.drop(share)
        self._timeline.note(self.name, "drop_chunks", dropped=dropped)
        return dropped

    def rot(self, chunks: int) -> int:
        """Bits flip in up to so many chunks. How many."""
        rotten = self.disk.rot(chunks)
        self._timeline.note(self.name, "rot", chunks=rotten)
        return rotten

    def _change(self, what: str, **changes: bool) -> None:
        self._timeline.note(self.name, what)
        for name, value in changes.items():
            setattr(self.place, name, value)
        self._memory.weather()

    async def _end(self) -> None:
        if life := self._life:
            life.scope.cancel()
            await life.ended.wait()

    async def _live(self, life: Life) -> None:
        try:
            with life.scope:
                async with open_services(
                    self.config,
                    open_transport=lambda identity, _: self._memory.open_transport(identity.peer),
                    open_store=lambda *_: self.disk.open(),
                    clock=self._wall(lambda: self.clock_skew_seconds),
                    rng=Random(self.rng.getrandbits(64)),  # noqa: S311 - jitter
                    shortest_rest_seconds=self._shortest_rest_seconds,
                    dht_refresh_seconds=dht_seconds(LONGEST_LOOK_SECONDS, self._shortest_rest_seconds),
                    make_proving=partial(
                        CheatingProving, how=lambda: self.disk.faults.proofs, other_copy=self._other_copy
                    ),
                ) as self.services:
                    life.started.set()
                    await life.stopping.wait()
        finally:
            self.services, self._life = None, None
            life.started.set()
            life.ended.set()


def dht_seconds(product_seconds: float, shortest_rest_seconds: float) -> float:
    """How often the DHT is looked at: as in the product, or, where workers rest long, once in 48 rests and at least daily."""
    return max(product_seconds, min(_RESTS_BETWEEN_LOOKS * shortest_rest_seconds, _DHT_DAY_SECONDS))


def address_of(number: int) -> str:
    """A public address in a /24 network of its own."""
    return f"11.{number // 250}.{number % 250}.7"
