"""Making a lab's network: which interfaces and addresses every namespace gets, as `ip` commands, and their execution."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

import attrs

from scenarios.netlab.machines import Core, Machine
from scenarios.netlab.namespaces import Namespace
from scenarios.netlab.routers import Router

__all__ = ["PUBLIC", "build", "descendants"]

PUBLIC = "44.128"
"""The lab's internet: no address that programs take for private or for an example."""
_NO_IP6 = {"net/ipv6/conf/all/disable_ipv6": 1, "net/ipv6/conf/default/disable_ipv6": 1}
_FORWARDING = {"net/ipv4/ip_forward": 1}
# By default a bridge shows its frames to the NAT rules, which are not meant for talk within a network.
_PLAIN_BRIDGE = {"net/bridge/bridge-nf-call-iptables": 0}
_PARTITION = """table inet partition {
 set cut { type ifname . ifname; }
 chain f { type filter hook forward priority -10; iifname . oifname @cut drop; }
}
"""


@attrs.define
class _Commands:
    """`ip` commands for each namespace, in order."""

    of: defaultdict[Namespace, list[str]] = attrs.Factory(lambda: defaultdict(list))

    def add(self, namespace: Namespace, *lines: str) -> None:
        self.of[namespace] += lines

    def run(self) -> None:
        for namespace, lines in self.of.items():
            namespace.ip(*lines)


def descendants(core: Core) -> list[Machine]:
    """Every machine, parents first."""
    found: list[Machine] = []
    waiting: list[Machine] = list(core.children)
    while waiting:
        machine = waiting.pop(0)
        found.append(machine)
        if isinstance(machine, Router):
            waiting += machine.children
    return found


def build(core: Core, machines: Sequence[Machine], wire: Namespace) -> None:
    """Give every machine its interfaces, addresses, routes and rules. All have a namespace; blocks."""
    commands = _Commands()
    _prepare(core, machines, wire, commands)
    for machine in machines:
        _connect(core, machine, wire)
    _address(core, machines)
    for machine in machines:
        _set_up(core, machine, commands)
    commands.run()
    for router in machines:
        if isinstance(router, Router):
            router.apply()
    core.namespace.nft(_PARTITION)


def _prepare(core: Core, machines: Sequence[Machine], wire: Namespace, commands: _Commands) -> None:
    for namespace in (core.namespace, wire, *(machine.namespace for machine in machines)):
        namespace.set_sysctls(_NO_IP6)
        commands.add(namespace, "link set lo up")
    core.namespace.set_sysctls(_FORWARDING)
    for router in machines:
        if isinstance(router, Router):
            router.namespace.set_sysctls(_FORWARDING)
            commands.add(router.namespace, "link add lan type bridge forward_delay 0 mcast_snooping 0")
            commands.add(router.namespace, f"addr add {router.lan}.1/24 dev lan", "link set lan up")


def _connect(core: Core, machine: Machine, wire: Namespace) -> None:
    """One cable, or two with the wire between them."""
    own = f"link add {machine.device} netns {machine.namespace.path} type veth"
    port = f"{machine.port} netns {machine.parent.namespace.path}"
    if not machine.link.is_wired:
        core.namespace.ip(f"{own} peer name {port}")
        return
    inner, outer = wire_ends(machine)
    core.namespace.ip(
        f"{own} peer name {inner} netns {wire.path}", f"link add {port} type veth peer name {outer} netns {wire.path}"
    )
    wire.ip(f"link set {inner} arp off up", f"link set {outer} arp off up")


def wire_ends(machine: Machine) -> tuple[str, str]:
    """The devices in the wire's namespace: towards the machine, and towards its parent."""
    return f"a{machine.number}", f"b{machine.number}"


def _address(core: Core, machines: Sequence[Machine]) -> None:
    edges = itertools.count(1)
    for machine in machines:
        if machine.parent is core:
            network, host = f"{PUBLIC}.{next(edges)}", 2
        else:
            assert isinstance(machine.parent, Router)
            network, host = machine.parent.lan, 10 + machine.parent.children.index(machine)
        machine.address, machine.gateway = f"{network}.{host}", f"{network}.1"


def _set_up(core: Core, machine: Machine, commands: _Commands) -> None:
    parent, port = machine.parent.namespace, machine.port
    if machine.parent is core:
        commands.add(parent, f"addr add {machine.gateway}/24 dev {port}")
    else:
        commands.add(parent, f"link set {port} master lan")
    commands.add(parent, f"link set {port} up")
    commands.add(
        machine.namespace,
        f"link set {machine.device} up",
        f"addr add {machine.address}/24 dev {machine.device}",
        f"route add default via {machine.gateway}",
    )
    if isinstance(machine, Router) and not machine.rules.is_translating:
        commands.add(parent, f"route add {machine.lan}.0/24 via {machine.address}")
    if machine.link.loss:
        # a lost segment of 64 KiB is not a lost packet
        commands.add(machine.namespace, f"link set {machine.device} gso_max_segs 1")
        commands.add(parent, f"link set {port} gso_max_segs 1")
