"""A simulated coordinator: the real services over the memory network and the shared database; killed and started at will."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import attrs
import trio

from fsn.coord.database.pool import Pool, PoolConfig
from fsn.coord.database.stepping_driver import Connector
from fsn.coord.discovering import PUBLISH_SECONDS
from fsn.coord.services import InDht, Secrets, Services, ServicesConfig, open_services
from fsn.core.errors import Unavailable
from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.memory import MemoryNetwork, Place
from fsn.runtime.clock import Clock
from fsn.runtime.groups import sole_error
from fsn.runtime.identity import Identity
from fsn.sim.nodes import Life, dht_seconds
from fsn.sim.timeline import Timeline, acting_as

__all__ = ["SimCoordinator"]

POOL = PoolConfig(max_age_seconds=1e12)
"""A connection grows old in virtual time without having done anything."""


@attrs.define(eq=False)
class SimCoordinator:
    """A coordinator of a simulated network; see `SimNode` for what the methods promise."""

    name: str
    identity: Identity
    config: ServicesConfig = attrs.field(repr=False)
    _secrets: Secrets = attrs.field(repr=False)
    _dsn: str = attrs.field(repr=False)
    _connector: Connector = attrs.field(repr=False)
    _rng: Random = attrs.field(repr=False)
    _memory: MemoryNetwork = attrs.field(repr=False)
    _timeline: Timeline = attrs.field(repr=False)
    _nursery: trio.Nursery = attrs.field(repr=False)
    _wall: Callable[[Callable[[], float]], Clock] = attrs.field(repr=False)
    _shortest_rest_seconds: float = 0.0
    clock_skew_seconds: float = 0.0
    """By so much its clock on the wall is wrong."""
    _services: Services | None = attrs.field(default=None, repr=False)
    _life: Life | None = attrs.field(default=None, repr=False)

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self._services is not None

    @property
    def is_serving(self) -> bool:
        """Whether it runs and reaches the database."""
        return self.is_running and not self._connector.is_cut

    @property
    def services(self) -> Services:
        """The real services. Raises Unavailable when it does not run."""
        if self._services is None:
            raise Unavailable(f"{self.name} does not run")
        return self._services

    @property
    def place(self) -> Place:
        """Where it stands in the network."""
        return self._memory.place(self.identity.peer)

    async def start(self) -> None:
        """Start it, again if need be; harmless when it runs."""
        if self._life is not None:
            return
        self._life = life = Life()
        self._timeline.note(self.name, "start")
        self.place.is_paused = self.place.is_dark = False
        self._connector.mend()
        with acting_as(self.name):
            self._nursery.start_soon(self._live, life, name=self.name)
        await life.started.wait()

    async def stop(self) -> None:
        """As SIGTERM does: workers finish their step."""
        if life := self._life:
            self._timeline.note(self.name, "stop")
            life.stopping.set()
            await life.ended.wait()

    async def kill(self) -> None:
        """As kill -9 does: connections to nodes and database break at once; what was not committed is rolled back."""
        if life := self._life:
            self._timeline.note(self.name, "kill")
            self._memory.kill(self.identity.peer)
            self._connector.cut()
            life.scope.cancel()
            await life.ended.wait()

    def lose_database(self) -> None:
        """It reaches its database no more, until `find_database`."""
        self._timeline.note(self.name, "lose_database")
        self._connector.cut()

    def find_database(self) -> None:
        """It reaches the database again."""
        self._timeline.note(self.name, "find_database")
        self._connector.mend()

    def jump_clock(self, seconds: float) -> None:
        """Its clock on the wall is set forward (or back) by so much."""
        self._timeline.note(self.name, "jump_clock", by_seconds=seconds)
        self.clock_skew_seconds += seconds

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Services]:
        """Its services, for a request. Raises Unavailable when it does not run, or its process ends meanwhile."""
        services, life = self.services, self._life
        assert life is not None
        with sole_error():
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    await life.ended.wait()
                    raise Unavailable(f"{self.name} has gone in the middle of the request")

                nursery.start_soon(watch)
                yield services
                nursery.cancel_scope.cancel()

    async def _live(self, life: Life) -> None:
        try:
            with life.scope:
                pool = Pool(self._dsn, POOL, self._connector)
                try:
                    await self._serve(pool, life)
                finally:
                    pool.close()
        finally:
            self._services, self._life = None, None
            life.started.set()
            life.ended.set()

    async def _serve(self, pool: Pool, life: Life) -> None:
        async with (
            self._memory.open_transport(self.identity.peer) as transport,
            open_services(
                pool,
                transport,
                self._secrets,
                self.config,
                announced=lambda: tuple(transport.addresses),
                in_dht=InDht(
                    self.identity,
                    P2pConfig().network,
                    lambda: tuple(transport.addresses),
                    dht_seconds(PUBLISH_SECONDS, self._shortest_rest_seconds),
                ),
                clock=self._wall(lambda: self.clock_skew_seconds),
                random_bytes=Random(self._rng.getrandbits(64)).randbytes,  # noqa: S311 - repeatable on purpose
                chance=Random(self._rng.getrandbits(64)),  # noqa: S311
                shortest_rest_seconds=self._shortest_rest_seconds,
            ) as self._services,
        ):
            life.started.set()
            await life.stopping.wait()
