"""What all machines of a lab have: a namespace, one way up, and what can go wrong on that way."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

from scenarios.netlab.links import Link
from scenarios.netlab.namespaces import Namespace

__all__ = ["Core", "Machine", "Parent"]

T = TypeVar("T")


class Parent(Protocol):
    """What machines hang on: a router, or the core."""

    namespace: Namespace
    children: "list[Machine]"


class Core:
    """The internet between all edges: a router that knows every one of them."""

    def __init__(self) -> None:
        self.children: list[Machine] = []
        self.namespace: Namespace


class Machine:
    """Anything with one way up, to a router or to the core. Namespace and addresses are there once the lab is up."""

    device = "eth0"
    """Its own end of the way up."""

    def __init__(self, name: str, number: int, parent: Parent, link: Link) -> None:
        self.name, self.number, self.parent, self.link = name, number, parent, link
        self.port = f"p{number}"
        """The parent's end."""
        self.namespace: Namespace
        self.address = self.gateway = ""
        parent.children.append(self)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """`function()` in a thread in this machine's namespace: sockets of its own, for the test."""
        return await trio.to_thread.run_sync(self.namespace.call, function, abandon_on_cancel=True)

    async def cut(self, *matches: str) -> None:
        """From now on packets on the way up vanish in both directions, and nobody is told.

        All of them, or those that match one of some nftables expressions, e.g. `meta l4proto tcp`. Another cut replaces it.
        """
        drops = [f"{match} drop" for match in matches] or ["drop"]
        chains = [
            line
            for way in ("ingress", "egress")
            for line in (f"chain {way} {{ type filter hook {way} device {self.port} priority -500;", *drops, "}")
        ]
        await self._load([*self._no_cut(), f"table netdev cut_{self.port} {{", *chains, "}"])

    async def heal(self) -> None:
        """End a cut; harmless without one."""
        await self._load(self._no_cut())

    async def unplug(self) -> None:
        """Pull the cable: unlike a cut, both kernels see it."""
        await trio.to_thread.run_sync(self.parent.namespace.ip, f"link set {self.port} down")

    async def plug(self) -> None:
        """Put the cable back."""
        await trio.to_thread.run_sync(self.parent.namespace.ip, f"link set {self.port} up")

    async def readdress(self, address: str) -> None:
        """Another IPv4 address in the same network, as from a new lease; the old one is gone at once."""
        await trio.to_thread.run_sync(
            self.namespace.ip,
            f"addr flush dev {self.device} scope global",
            f"addr add {address}/24 dev {self.device}",
            f"route replace default via {self.gateway}",
        )
        self.address = address

    def _no_cut(self) -> list[str]:
        return [f"table netdev cut_{self.port}", f"delete table netdev cut_{self.port}"]

    async def _load(self, rules: list[str]) -> None:
        await trio.to_thread.run_sync(self.parent.namespace.nft, "\n".join([*rules, ""]))
