"""`Network`: coordinators, nodes and users in one trio process, in virtual time, over memory and a real PostgreSQL."""

import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final, Self, TypeVar, TypeVarTuple

import attrs
import trio

from fsn.coord.config import AccountsConfig, AuditConfig, CreditsConfig, MembershipConfig
from fsn.coord.database.inspection import other_replicas
from fsn.coord.database.scratch import scratch_database, scratch_server
from fsn.coord.database.stepping_driver import SteppingDriver
from fsn.coord.registration import SIGNED_PREFIX, NodeApplication
from fsn.coord.secrets import MasterKeys
from fsn.coord.services import Secrets, ServicesConfig
from fsn.core.errors import ConfigError
from fsn.core.ids import ReplicaId
from fsn.core.keys import master_key_id
from fsn.node.config import IDENTITY_NAME, NodeConfig
from fsn.node.config import CoordinatorConfig as NodesCoordinator
from fsn.p2p.transport.memory import MemoryNetwork
from fsn.runtime.config import ByteSize
from fsn.runtime.groups import sole_error
from fsn.runtime.identity import Identity, create_identity
from fsn.sim.cheating import nobody_else_has
from fsn.sim.clock import VirtualClock, current_clock, deterministic_scheduling
from fsn.sim.coordinators import SimCoordinator
from fsn.sim.disks import Disk
from fsn.sim.nodes import SimNode, address_of
from fsn.sim.timeline import Event, Timeline
from fsn.sim.users import SimUser

__all__ = ["Network", "default_config", "simulate"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CAPACITY_BYTES: Final = 1 << 30
HEARTBEAT_SECONDS: Final = 10.0
MISSED_HEARTBEATS: Final = 3
"""A node is silent after so many, as with the default settings."""
ROUND_RESTS: Final = 48
"""Where workers rest for half an hour, a round of proofs lasts a day: long lives are about other things."""
ONLINE_SECONDS: Final = 3600.0


def simulate(main: Callable[[*Ts], Awaitable[T]], *arguments: *Ts) -> T:
    """`trio.run(main, *arguments)` in virtual time: waiting takes no time, `trio.current_time()` begins at 0."""
    return trio.run(main, *arguments, clock=VirtualClock())


def default_config(heartbeat_seconds: float = HEARTBEAT_SECONDS, shortest_rest_seconds: float = 0.0) -> ServicesConfig:
    """The product's settings, but for cheap password hashes, a silence that fits the heartbeats, and checkpoints that fit the rests."""
    fitting = {
        "silent_after_seconds": MISSED_HEARTBEATS * heartbeat_seconds,
        "checkpoint_seconds": max(2.0, shortest_rest_seconds),
        "settle_seconds": max(15.0, 2 * shortest_rest_seconds),
    }
    known = attrs.fields_dict(MembershipConfig)
    return ServicesConfig(
        accounts=AccountsConfig(bcrypt_cost=4),
        credits=CreditsConfig(welcome_grant="100", price_per_gb_month="0"),
        audit=AuditConfig(round_hours=max(4.0, ROUND_RESTS * shortest_rest_seconds / 3600)),
        membership=MembershipConfig(**{name: value for name, value in fitting.items() if name in known}),
    )


class Network:
    """A network to play with. The product's own code runs: services of coordinators and nodes, catalogue in a real PostgreSQL.

        async with fsn.Network(nodes=5, seed=7) as net:
            file = await net.user.put(b"...")
            await net.nodes[0].kill()
            await net.advance(hours=4)
            assert await net.user.get(file) == b"..."

    Needs the virtual clock of `simulate`. The same seed gives the same `timeline`, event for event, on every machine. One at a time in a
    process. A database of its own is made on the server at `dsn` (by default an embedded one, which takes two seconds), and dropped.

    Long lives are cheap with `heartbeat_seconds=900` and `shortest_rest_seconds=300`: nodes report, and workers look, less often.
    """

    def __init__(
        self,
        *,
        nodes: int = 5,
        coordinators: int = 1,
        seed: int = 0,
        dsn: str | None = None,
        config: ServicesConfig | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        shortest_rest_seconds: float = 0.0,
        capacity_bytes: int = CAPACITY_BYTES,
    ) -> None:
        if nodes < 0 or coordinators < 1:
            raise ConfigError(
                f"a network has 0 or more nodes and 1 or more coordinators; got {nodes} and {coordinators}"
            )
        self.seed = seed
        self.rng = Random(seed)  # noqa: S311 - repeatable on purpose
        self.config = config or default_config(heartbeat_seconds, shortest_rest_seconds)
        self.heartbeat_seconds = heartbeat_seconds
        self.nodes: list[SimNode] = []
        self.coordinators: list[SimCoordinator] = []
        self.users: list[SimUser] = []
        self.listeners: list[Callable[[Event], None]] = []
        """Told of each event as it happens."""
        self._wanted = (coordinators, nodes)
        self._given_dsn = dsn
        self._shortest_rest_seconds = shortest_rest_seconds
        self._capacity_bytes = capacity_bytes
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.clock = current_clock()
        self.timeline = Timeline(self.clock.current_time, self.listeners)
        async with AsyncExitStack() as stack:
            server = self._given_dsn or stack.enter_context(scratch_server())
            self.dsn = stack.enter_context(scratch_database(server))
            self.driver = SteppingDriver(self.dsn)
            stack.callback(self.driver.close)
            stack.enter_context(self.clock.hold_while(lambda: self.driver.is_waiting_for_server))
            stack.enter_context(self.timeline.listening())
            stack.enter_context(deterministic_scheduling(self.seed))
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsn-sim-")))
            stack.enter_context(sole_error())
            self._memory = MemoryNetwork(Random(self._draw()))  # noqa: S311
            self._nursery = await stack.enter_async_context(trio.open_nursery())
            try:
                await self._begin()
            except BaseException:
                self._nursery.cancel_scope.cancel()
                raise
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._nursery.cancel_scope.cancel()
        return await self._stack.__aexit__(kind, error, traceback)

    async def _begin(self) -> None:
        coordinators, nodes = self._wanted
        for _ in range(coordinators):
            await self.add_coordinator()
        for _ in range(nodes):
            await self.add_node()
        await self.add_user()
        await self.wait_online()

    # --- who is there

    @property
    def user(self) -> SimUser:
        """The first user."""
        return self.users[0]

    @property
    def coordinator(self) -> SimCoordinator:
        """The first coordinator that serves, else the first."""
        return next((each for each in self.coordinators if each.is_serving), self.coordinators[0])

    async def add_coordinator(self) -> SimCoordinator:
        """Start another coordinator over the same database."""
        coordinator = SimCoordinator(
            f"coordinator{len(self.coordinators)}",
            Identity(self.rng.randbytes(32)),
            self.config,
            _SECRETS,
            self.dsn,
            self.driver.connector(),
            self.rng,
            self._memory,
            self.timeline,
            self._nursery,
            self.clock.wall,
            self._shortest_rest_seconds,
        )
        self.timeline.name(coordinator.identity.peer, coordinator.name)
        self.coordinators.append(coordinator)
        await coordinator.start()
        return coordinator

    async def add_node(self, *, region: str | None = None, capacity_bytes: int | None = None, **place: Any) -> SimNode:
        """Register and start another node; `place` are properties of its `Place`, e.g. `latency_seconds=0.03`."""
        number, identity = len(self.nodes), Identity(self.rng.randbytes(32))
        name, capacity = f"node{number}", capacity_bytes or self._capacity_bytes
        folder = self._folder / name
        folder.mkdir()
        create_identity(folder / IDENTITY_NAME, identity)
        self.timeline.name(identity.peer, name)
        config = await self._register(identity, name, region, capacity, folder)
        self.timeline.name(str(config.node_id), name)
        disk_rng, rng = Random(self._draw()), Random(self._draw())  # noqa: S311
        disk = Disk(capacity_bytes=capacity, clock=self.clock.wall(), rng=disk_rng)
        node = SimNode(
            name,
            identity,
            config,
            disk,
            rng,
            self._memory,
            self.timeline,
            self._nursery,
            self.clock.wall,
            self._shortest_rest_seconds,
            self._other_copy,
        )
        for key, value in {"address": address_of(number), **place}.items():
            setattr(node.place, key, value)
        self.nodes.append(node)
        await node.start()
        return node

    async def _other_copy(self, replica: ReplicaId) -> bytes:
        """What another node holds of the same chunk."""
        for other, holder in (await other_replicas(self.coordinator.services.db, replica)).items():
            for node in self.nodes:
                if node.id == holder and node.disk.holds(other):
                    return (await node.disk.store.retrieve(other))[0]
        return await nobody_else_has(replica)

    async def add_user(self) -> SimUser:
        """Another user, with the welcome grant."""
        name = f"user{len(self.users)}"
        async with self.coordinator.serving() as services:
            account = await services.accounts.register(f"{name}@example.com", "secret1")
        user = SimUser(name, account.user.id, lambda: self.coordinators, self.timeline)
        self.timeline.name(str(user.id), name)
        self.users.append(user)
        return user

    async def _register(
        self, identity: Identity, name: str, region: str | None, capacity_bytes: int, folder: Path
    ) -> NodeConfig:
        """As `fsn node init` does it, less HTTP."""
        async with self.coordinator.serving() as services:
            nonce = services.registrar.challenge(identity.public_key).nonce
            signature = identity.sign(SIGNED_PREFIX + nonce + identity.public_key)
            application = NodeApplication(identity.public_key, name, capacity_bytes, region, None, nonce, signature)
            registered = await services.registrar.register(application)
            contact = services.transport
            return NodeConfig(
                data_dir=folder,
                name=name,
                region=region,
                capacity_bytes=ByteSize(capacity_bytes),
                heartbeat_seconds=self.heartbeat_seconds,
                coordinator=NodesCoordinator(
                    url="http://simulated",
                    peer_id=contact.peer,
                    addresses=tuple(contact.addresses),
                    node_id=str(registered.node),
                ),
            )

    # --- time

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.clock.current_time()

    async def advance(
        self, *, days: float = 0.0, hours: float = 0.0, minutes: float = 0.0, seconds: float = 0.0
    ) -> None:
        """Let so much time pass."""
        await trio.sleep(days * 86400 + hours * 3600 + minutes * 60 + seconds)

    async def wait_online(self) -> None:
        """Until each running coordinator that can be reached has heard of each running node that can. Raises TooSlowError after an hour."""
        with trio.fail_after(ONLINE_SECONDS):
            while not self._are_all_online():  # noqa: ASYNC110 - what is waited for happens in code that knows no simulation
                await trio.sleep(0.25)

    def _are_all_online(self) -> bool:
        wanted = {node.id for node in self.nodes if node.is_reachable}
        running = [each for each in self.coordinators if each.is_running and not each.place.is_silent]
        first = running[:1]  # nodes know the first one; of the others they are told as the product does it
        return all(wanted <= {member.node for member in each.services.membership.online()} for each in first)

    # --- the network between them

    def partition(self, *sides: list[SimNode | SimCoordinator]) -> None:
        """Nothing gets through between these sides; who is in none is on the first. Nobody is told."""
        names = [",".join(each.name for each in side) for side in sides]
        self.timeline.note("network", "partition", **{f"side{number}": text for number, text in enumerate(names)})
        self._memory.partition(*([each.identity.peer for each in side] for side in sides))

    def mend(self) -> None:
        """No partition any more."""
        self.timeline.note("network", "mend")
        self._memory.mend()

    def _draw(self) -> int:
        return self.rng.getrandbits(64)


_MASTER_KEY = bytes(range(32))
_SECRETS = Secrets(MasterKeys(master_key_id(_MASTER_KEY), {master_key_id(_MASTER_KEY): _MASTER_KEY}), b"t" * 32)
"""Nothing that a simulation seals is a secret."""
