"""Placement: which nodes get the replicas of a chunk, no two on one failure domain while there are enough."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import accumulate
from operator import attrgetter
from typing import Final, Protocol

import attrs

from fsn.core.ids import NodeId

__all__ = ["Candidate", "Chance", "by_spread", "network_prefix", "place", "place_round_robin"]

_IPV4_PREFIX_BITS: Final = 24
_IPV6_PREFIX_BITS: Final = 64


class Chance(Protocol):
    """The part of `random.Random` that placement draws from."""

    def random(self) -> float:
        """The next number, 0.0 <= x < 1.0."""


@attrs.frozen
class Candidate:
    """A node as placement sees it.

    `operator` is the account that runs it, or the node's own id when it has none; `prefix` comes from
    `network_prefix`, `region` is what the node declares; None is no failure domain and shared with nobody.
    `reputation` is 0.0..1.0, `in_flight` the number of transfers to the node under way.
    """

    node: NodeId
    operator: str
    prefix: str | None
    region: str | None
    free_bytes: int
    reputation: float = 1.0
    in_flight: int = 0


def network_prefix(address: str) -> str | None:
    """The failure domain of an observed IP address: its /24 or /64, e.g. "8.8.8.0/24".

    None for loopback, private, link-local and other addresses that are not public, and for what is no IP address.
    """
    try:
        host = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    host = _unmapped(host)
    if not host.is_global:
        return None
    bits = _IPV4_PREFIX_BITS if host.version == 4 else _IPV6_PREFIX_BITS
    return str(ip_network((host.packed, bits), strict=False))


def place(
    candidates: Sequence[Candidate],
    *,
    copies: int,
    size_bytes: int,
    chance: Chance,
    taken: Sequence[Candidate] = (),
) -> list[NodeId]:
    """Up to `copies` distinct nodes for replicas of `size_bytes` each; fewer when there are not enough.

    `taken` are the nodes that hold (or are getting) a replica of the same chunk; none of them is chosen again. Each
    pick is one of the candidates with space that share the least with the taken and chosen ones, operator before
    prefix before region. Among these, two are drawn at random, weighted by free space times reputation, and the one
    with fewer transfers in flight wins (on a tie the first drawn). The same arguments and the same chance give the
    same answer. Takes O(copies * candidates).
    """
    return _place(candidates, copies, size_bytes, taken, partial(_draw_two, chance=chance))


def place_round_robin(
    candidates: Sequence[Candidate],
    *,
    copies: int,
    size_bytes: int,
    start: int,
    taken: Sequence[Candidate] = (),
) -> list[NodeId]:
    """Like `place`, with the plan's strategy: of those that share the least, the next in turn.

    Turns begin at position `start` (any number, taken modulo the number of candidates). Pass the candidates in a
    stable order, and a `start` that grows by `copies` from call to call.
    """
    turn = start % len(candidates) if candidates else 0
    in_turn = [*candidates[turn:], *candidates[:turn]]
    return _place(in_turn, copies, size_bytes, taken, lambda group: group[0])


def by_spread(holders: Sequence[Candidate]) -> list[NodeId]:
    """Distinct nodes that hold a chunk, in the order in which they are worth keeping: the first n are the best spread that n picks in
    turn can have.

    Each next one shares the least with those before it, operator before prefix before region; among equals the one with the better
    reputation, then the one with more free space, then the lower id.
    """
    held, left, order = _Held(()), {each.node: each for each in holders}, list[NodeId]()
    while left:
        best = min(left.values(), key=lambda each: (*held.sharing(each), -each.reputation, -each.free_bytes, each.node))
        order.append(best.node)
        held.add(best)
        del left[best.node]
    return order


def _place(
    candidates: Sequence[Candidate],
    copies: int,
    size_bytes: int,
    taken: Sequence[Candidate],
    choose: Callable[[list[Candidate]], Candidate],
) -> list[NodeId]:
    holders = {holder.node for holder in taken}
    # By id, so that a pick costs one deletion: UUIDs compare in Python code, a thousand times for each pick of a list.
    usable = {each.node: each for each in candidates if each.free_bytes >= size_bytes and each.node not in holders}
    held = _Held(taken)
    chosen: list[NodeId] = []
    while usable and len(chosen) < copies:
        pick = choose(_least_sharing(usable.values(), held))
        chosen.append(pick.node)
        held.add(pick)
        del usable[pick.node]
    return chosen


class _Held:
    """How many replicas each failure domain holds."""

    def __init__(self, holders: Iterable[Candidate]) -> None:
        self._operators: dict[str | None, int] = {}
        self._prefixes: dict[str | None, int] = {}
        self._regions: dict[str | None, int] = {}
        for holder in holders:
            self.add(holder)

    def add(self, holder: Candidate) -> None:
        self._operators[holder.operator] = self._operators.get(holder.operator, 0) + 1
        if holder.prefix is not None:
            self._prefixes[holder.prefix] = self._prefixes.get(holder.prefix, 0) + 1
        if holder.region is not None:
            self._regions[holder.region] = self._regions.get(holder.region, 0) + 1

    def sharing(self, node: Candidate) -> tuple[int, int, int]:
        """With how many replicas `node` would share its operator, its prefix, its region; smaller is better."""
        operators, prefixes, regions = self._operators, self._prefixes, self._regions
        return operators.get(node.operator, 0), prefixes.get(node.prefix, 0), regions.get(node.region, 0)


def _least_sharing(usable: Iterable[Candidate], held: _Held) -> list[Candidate]:
    ranked = [(held.sharing(node), node) for node in usable]
    least = min(rank for rank, _ in ranked)
    return [node for rank, node in ranked if rank == least]


def _draw_two(group: list[Candidate], chance: Chance) -> Candidate:
    first = group.pop(_draw(group, chance))
    if not group:
        return first
    return min(first, group[_draw(group, chance)], key=attrgetter("in_flight"))


def _draw(group: Sequence[Candidate], chance: Chance) -> int:
    """A random index; in proportion to the weights, or evenly when all are 0."""
    reached = list(accumulate(node.free_bytes * node.reputation for node in group))
    if reached[-1] <= 0:
        return int(chance.random() * len(group))
    return min(bisect_right(reached, chance.random() * reached[-1]), len(group) - 1)


def _unmapped(host: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address that came in IPv6 clothes (::ffff:8.8.8.8, as dual-stack sockets show it) as itself."""
    return host.ipv4_mapped or host if isinstance(host, IPv6Address) else host
