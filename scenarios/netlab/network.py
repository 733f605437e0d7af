"""A whole network of fsn in a lab: declared machine by machine, started in order, asked until it is as it should be."""

import time
from collections.abc import Awaitable, Callable, Sequence

import trio

from fsn.sim.cheating import How
from scenarios.netlab.daemons import Coordinator, Daemon, StorageNode
from scenarios.netlab.lab import Lab
from scenarios.netlab.links import CABLE, Link
from scenarios.netlab.nat import NatKind
from scenarios.netlab.routers import Memory, Router
from scenarios.netlab.users import User

__all__ = ["Network", "wait_until"]

JOIN_SECONDS = 180.0
_POLL_SECONDS = 0.1


class Network:
    """One coordinator, its nodes, one user."""

    def __init__(self, lab: Lab, *, settings: str = "", name: str | None = None) -> None:
        """`settings` is TOML for the coordinator, beside what Coordinator sets itself; nodes and user know it by `name`, if given."""
        self.lab = lab
        self._name = name
        self.coordinator = Coordinator(lab.host("coordinator"), settings)
        self.nodes: list[StorageNode] = []
        self.user = User(lab.host("user"), "")

    def add_node(
        self,
        name: str,
        *,
        behind: Router | None = None,
        link: Link = CABLE,
        p2p_port: int = 0,
        cheats: How | None = None,
    ) -> StorageNode:
        """A storage node; `name` is its host's, too. `cheats`: how its program cheats at proofs."""
        node = StorageNode(self.lab.host(name, link, behind=behind), p2p_port, cheats)
        self.nodes.append(node)
        return node

    def add_home(
        self, name: str, kind: NatKind, *, link: Link = CABLE, memory: Memory | None = None
    ) -> tuple[Router, StorageNode]:
        """A router of some kind with one storage node behind it."""
        router = self.lab.router(f"{name}-router", kind, link, memory=memory)
        return router, self.add_node(name, behind=router)

    async def start(self) -> None:
        """Bring the lab up, and `join`."""
        await self.lab.up()
        await self.join()

    async def join(self) -> None:
        """Start all processes: when it returns, all nodes are online and the user is logged in."""
        await self.coordinator.start()
        self.user.url = self._url()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.user.register)
            for node in self.nodes:
                nursery.start_soon(self._join_node, node)
        await self.wait_online(len(self.nodes))

    async def _join_node(self, node: StorageNode) -> None:
        await node.init(self.user.url)
        await node.start()

    async def move_coordinator(self) -> None:
        """Another address in the coordinator's network; its name, if it has one, and its user follow."""
        await self.coordinator.host.readdress(self.coordinator.host.address.rpartition(".")[0] + ".77")
        self.user.url = self._url()

    def _url(self) -> str:
        """Where the coordinator is for others now."""
        if self._name is None:
            return self.coordinator.url
        full = self.lab.names.point(self._name, self.coordinator.host.address)
        return self.coordinator.url.replace(self.coordinator.host.address, full)

    async def wait_online(self, wanted: int, *, within_seconds: float = JOIN_SECONDS) -> float:
        """Until the coordinator counts exactly so many nodes as there; the seconds that took."""

        async def is_so() -> bool:
            return await self.coordinator.nodes_online() == wanted

        return await self.wait_until(f"{wanted} nodes online", is_so, within_seconds=within_seconds)

    async def wait_reconnected(self, nodes: Sequence[StorageNode], *, within_seconds: float = JOIN_SECONDS) -> float:
        """Until each of the nodes, whose connection has just died, has made another one and is counted as there; the seconds that took.

        Start it before or right after the fault: a connection can be lost and made anew between two questions.
        """
        began = time.monotonic()
        before = {node.name: node.connections for node in nodes}
        for node in nodes:
            await self._wait_connected_anew(node, before[node.name], within_seconds)
        await self.wait_online(len(self.nodes), within_seconds=within_seconds)
        return time.monotonic() - began

    async def _wait_connected_anew(self, node: StorageNode, before: int, within_seconds: float) -> None:
        async def is_so() -> bool:
            return node.connections > before and await node.is_connected()

        await self.wait_until(f"{node.name} connected anew", is_so, within_seconds=within_seconds)

    async def wait_connected(self, node: StorageNode, *, within_seconds: float = JOIN_SECONDS) -> float:
        """Until the node says that it is in touch with its coordinator; the seconds that took."""
        return await self.wait_until(f"{node.name} connected", node.is_connected, within_seconds=within_seconds)

    async def wait_lost(self, node: StorageNode, *, within_seconds: float = JOIN_SECONDS) -> float:
        """Until the node says that it has lost its coordinator; the seconds that took."""

        async def is_so() -> bool:
            return await node.status() is not None and not await node.is_connected()

        return await self.wait_until(f"{node.name} has lost its coordinator", is_so, within_seconds=within_seconds)

    async def wait_noticed(self, node: StorageNode) -> tuple[float, float]:
        """Until the only node and the coordinator have lost each other; the seconds that took on either side."""
        seconds = {}

        async def ask_node() -> None:
            seconds["node"] = await self.wait_lost(node, within_seconds=60.0)

        async def ask_coordinator() -> None:
            seconds["coordinator"] = await self.wait_online(len(self.nodes) - 1, within_seconds=60.0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_node)
            nursery.start_soon(ask_coordinator)
        return seconds["node"], seconds["coordinator"]

    async def wait_reach(self, name: str, wanted: str) -> None:
        """Until the node of that name says of itself that it is reached so ("direct", "own_connection", "none")."""
        (node,) = (node for node in self.nodes if node.name == name)

        async def is_so() -> bool:
            status = await node.status()
            return status is not None and status["reachability"]["reach"] == wanted

        await self.wait_until(f"{name} is reached: {wanted}", is_so, within_seconds=JOIN_SECONDS)

    async def wait_until(self, wanted: str, check: Callable[[], Awaitable[bool]], *, within_seconds: float) -> float:
        """Ask until it is so; the seconds that took. AssertionError, with the ends of all logs, when it is not so in time."""
        return await wait_until(wanted, check, within_seconds=within_seconds, evidence=self.evidence)

    def evidence(self) -> str:
        """The ends of all logs, for a person."""
        daemons: Sequence[Daemon] = [self.coordinator, *self.nodes]
        return "\n".join(f"--- {daemon.name}\n{daemon.log_tail()}" for daemon in daemons)


async def wait_until(
    wanted: str,
    check: Callable[[], Awaitable[bool]],
    *,
    within_seconds: float,
    evidence: Callable[[], str],
) -> float:
    """Ask ten times a second until it is so; the seconds that took. AssertionError with the evidence when it is not so in time."""
    began = time.monotonic()
    with trio.move_on_after(within_seconds):
        while not await check():  # noqa: ASYNC110 - asked over HTTP
            await trio.sleep(_POLL_SECONDS)
        return time.monotonic() - began
    raise AssertionError(f"not within {within_seconds:g} s: {wanted}\n{evidence()}")
