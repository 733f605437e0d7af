"""A router: a machine with a network behind it, which it translates in the way of its kind, and whose flows it forgets."""

import attrs
import trio

from scenarios.netlab import conntrack
from scenarios.netlab.links import Link
from scenarios.netlab.machines import Machine, Parent
from scenarios.netlab.nat import Forward, NatKind, NatRules

__all__ = ["Memory", "Router"]


@attrs.frozen(kw_only=True)
class Memory:
    """How long a router remembers a flow without packets, in seconds. The defaults are Linux's own; many routers have less."""

    udp: int = 30
    udp_stream: int = 120
    """For UDP that went both ways for a while."""
    tcp: int = 7440

    def sysctls(self) -> dict[str, int]:
        """As the kernel calls them."""
        prefix = "net/netfilter/nf_conntrack"
        return {
            f"{prefix}_udp_timeout": self.udp,
            f"{prefix}_udp_timeout_stream": self.udp_stream,
            f"{prefix}_tcp_timeout_established": self.tcp,
            f"{prefix}_tcp_loose": 0,  # or it takes up in the middle a flow that it has forgotten
        }


class Router(Machine):
    """A machine with machines behind it."""

    device = "wan"

    def __init__(
        self, name: str, number: int, parent: Parent, link: Link, kind: NatKind, lan: str, memory: Memory, seed: int
    ) -> None:
        """`lan` is the first three numbers of the network inside; it may be the same behind every router."""
        super().__init__(name, number, parent, link)
        self.children: list[Machine] = []
        self.kind, self.lan, self.memory = kind, lan, memory
        self._seed = seed
        self._forwards: list[Forward] = []

    @property
    def rules(self) -> NatRules:
        """Its rules as they should be now."""
        return NatRules(
            kind=self.kind, wan_address=self.address, lan_network=f"{self.lan}.0/24", seed=self._seed,
            mapping_seconds=self.memory.udp, forwards=self._forwards,
        )  # fmt: skip

    async def forward(self, forward: Forward) -> None:
        """Forward a port from now on."""
        self._forwards.append(forward)
        await trio.to_thread.run_sync(self.apply)

    async def reboot(self) -> None:
        """All flows and mappings are forgotten, as after a power cut; the address stays."""
        await trio.to_thread.run_sync(self._forget)

    async def new_address(self, address: str) -> None:
        """The provider gives another address; all mappings die with the old one."""
        await self.readdress(address)
        await self.reboot()

    async def remember_for(self, memory: Memory) -> None:
        """Another patience from now on; for flows that have begun, too, with their next packet."""
        self.memory = memory
        await trio.to_thread.run_sync(self.apply)

    async def flows(self) -> list[conntrack.Flow]:
        """What it keeps track of."""
        return await self.in_thread(conntrack.flows)

    def apply(self) -> None:
        """Load rules and timeouts; blocks."""
        self.namespace.nft(self.rules.text())
        self.namespace.set_sysctls(self.memory.sysctls())

    def _forget(self) -> None:
        self.apply()
        self.namespace.call(conntrack.flush)
