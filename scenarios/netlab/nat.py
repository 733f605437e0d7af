"""The nftables rules of every kind of NAT, in the words of RFC 4787; the kernel does the rest.

Checked packet by packet, in the manner of RFC 5780, by tests/netlab/test_nat.py.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Literal

import attrs

__all__ = ["NAT_KINDS", "Forward", "NatKind", "NatRules"]

NatKind = Literal["full_cone", "restricted", "port_restricted", "symmetric", "linux", "firewall", "open"]
NAT_KINDS: tuple[NatKind, ...] = ("full_cone", "restricted", "port_restricted", "symmetric", "linux")
"""Those that translate."""


class Mapping(Enum):
    """Which outside port an inside one gets."""

    ENDPOINT_INDEPENDENT = "one for all destinations, another number than inside"
    RANDOM = "another one for each flow"
    PRESERVED = "its own number when that is free"
    NONE = "no translation"


class Filtering(Enum):
    """Who may send to it."""

    NONE = "everybody"
    ADDRESS = "whose address was sent to"
    ADDRESS_AND_PORT = "whose address and port were sent to"


_BEHAVIOUR: dict[NatKind, tuple[Mapping, Filtering]] = {
    "full_cone": (Mapping.ENDPOINT_INDEPENDENT, Filtering.NONE),
    "restricted": (Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS),
    "port_restricted": (Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_AND_PORT),
    "symmetric": (Mapping.RANDOM, Filtering.ADDRESS_AND_PORT),
    "linux": (Mapping.PRESERVED, Filtering.ADDRESS_AND_PORT),  # plain masquerading, as most home routers do it
    "firewall": (Mapping.NONE, Filtering.ADDRESS_AND_PORT),  # routed addresses, only answers come in
    "open": (Mapping.NONE, Filtering.NONE),  # a plain router
}


@attrs.frozen
class Forward:
    """A port that is forwarded: from the router's outside address to a host inside."""

    protocol: Literal["tcp", "udp"]
    outside_port: int
    inside_address: str
    inside_port: int


@attrs.frozen(kw_only=True)
class NatRules:
    """One router's rules, as a table that replaces itself whenever it is loaded."""

    kind: NatKind
    wan_address: str
    lan_network: str
    seed: int
    mapping_seconds: int
    """How long the outside port of a cone stays open to others after the last packet from inside."""
    forwards: Sequence[Forward] = ()

    @property
    def is_translating(self) -> bool:
        """Whether inside addresses stay inside."""
        return self._mapping is not Mapping.NONE

    @property
    def _mapping(self) -> Mapping:
        return _BEHAVIOUR[self.kind][0]

    @property
    def _filtering(self) -> Filtering:
        return _BEHAVIOUR[self.kind][1]

    @property
    def _remembers(self) -> bool:
        """Whether outside ports stay open to more than conntrack's own flows."""
        return self.is_translating and self._filtering is not Filtering.ADDRESS_AND_PORT

    def text(self) -> str:
        """For `nft -f`."""
        lines = [*self._sets(), *self._forward_chain(), *self._input_chain()]
        if self.is_translating:
            lines += [*self._source_chain(), *self._destination_chain(), *self._learning_chain()]
        return "\n".join(["table ip nlnat", "delete table ip nlnat", "table ip nlnat {", *lines, "}", ""])

    def _sets(self) -> list[str]:
        flags = f"flags dynamic,timeout; timeout {self.mapping_seconds}s; size 65535;"
        found = []
        if self._remembers:
            found += [f"map back {{ type inet_proto . inet_service : ipv4_addr . inet_service; {flags} }}"]
        if self._remembers and self._filtering is Filtering.ADDRESS:
            found += [f"set seen {{ type inet_proto . inet_service . ipv4_addr; {flags} }}"]
        return found

    def _source_chain(self) -> list[str]:
        """The first packet of each flow gets its outside port here; conntrack does the same to the others."""
        outbound = f'oifname "wan" ip saddr {self.lan_network}'
        lines = ["chain c_src { type nat hook postrouting priority srcnat;"]
        if self._mapping is Mapping.ENDPOINT_INDEPENDENT:
            for protocol in ("udp", "tcp"):
                port = f"jhash ip saddr . {protocol} sport mod 20000 seed {self.seed:#x} offset 20000"
                lines += [f"{outbound} meta l4proto {protocol} snat ip to {self.wan_address} : {port}"]
        how = " random,fully-random" if self._mapping is Mapping.RANDOM else ""
        return [*lines, f"{outbound} snat ip to {self.wan_address}{how}", "}"]

    def _destination_chain(self) -> list[str]:
        inbound = f'iifname "wan" ip daddr {self.wan_address}'
        lines = ["chain c_dst { type nat hook prerouting priority dstnat;"]
        for each in self.forwards:
            target = f"{each.inside_address}:{each.inside_port}"
            lines += [f"{inbound} {each.protocol} dport {each.outside_port} dnat ip to {target}"]
        if self._remembers:
            seen = "meta l4proto . th dport . ip saddr @seen " if self._filtering is Filtering.ADDRESS else ""
            to_owner = "dnat ip to meta l4proto . th dport map @back"
            lines += [f"{inbound} meta l4proto {{ tcp, udp }} {seen}{to_owner}"]
        return [*lines, "}"]

    def _learning_chain(self) -> list[str]:
        """After translation: who owns the outside port. Refreshed by packets from inside only."""
        if not self._remembers:
            return []
        outbound = 'oifname "wan" ct direction original meta l4proto { tcp, udp }'
        owner = "ct original ip saddr . ct original proto-src"
        lines = [f"{outbound} update @back {{ meta l4proto . th sport : {owner} }}"]
        if self._filtering is Filtering.ADDRESS:
            lines += ['oifname "wan" meta l4proto { tcp, udp } update @seen { meta l4proto . th sport . ip daddr }']
        return ["chain c_learn { type filter hook postrouting priority srcnat + 10;", *lines, "}"]

    def _forward_chain(self) -> list[str]:
        lines = ["ct state established,related accept", 'iifname "lan" accept', "ct status dnat accept"]
        if self.kind == "open":
            lines += ["accept"]
        return ["chain c_fwd { type filter hook forward priority filter; policy drop;", *lines, "}"]

    def _input_chain(self) -> list[str]:
        """Unsolicited packets vanish. An answer (RST, unreachable) would be the router's own, and would claim the port."""
        lines = ["ct state established,related accept"]
        if self.is_translating:
            lines += ['iifname "wan" drop', f'iifname "lan" ip daddr {self.wan_address} drop']
        return ["chain c_in { type filter hook input priority filter; policy accept;", *lines, "}"]
