"""Repair: which replicas of a chunk count, what is to be done about it, and when so many are silent that nothing should be."""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, Generic, TypeVar

import attrs

from fsn.core.placement import Candidate, by_spread

__all__ = [
    "LONGEST_BACKOFF_SECONDS",
    "Grace",
    "Holder",
    "PauseRule",
    "Plan",
    "Standing",
    "backoff_seconds",
    "fell_together",
    "must_pause",
    "plan",
]

GONE_STATES: Final = frozenset({"left", "disqualified"})
ENOUGH_OTHERS: Final = 2
FIRST_BACKOFF_SECONDS: Final = 60.0
LONGEST_BACKOFF_SECONDS: Final = 6 * 3600.0
MOST_DOUBLINGS: Final = 16


@attrs.frozen
class Grace:
    """How long a silent node is waited for: people switch machines off at night."""

    long_seconds: float = 24 * 3600.0
    """While two or more other replicas of the chunk can be read."""
    short_seconds: float = 1800.0
    """With fewer."""


class Standing(Enum):
    """What a replica is to its chunk."""

    COUNTS = "counts"
    """Towards the wanted number; its node may be silent within the grace."""
    SOURCE = "source"
    """May be read, does not count, leaves once enough others count: its node drains."""
    SILENT = "silent"
    """Does not count for as long as its node is silent; stays."""
    GONE = "gone"
    """Lost, or its node has left or is disqualified: leaves once enough others count; read as a last resort."""


Mark = TypeVar("Mark")


@attrs.frozen
class Holder(Generic[Mark]):
    """A replica and its node. `status` is the node's state; `silent_seconds` how long it has been silent while somebody was there to
    hear it, None when it is heard. `mark` is the caller's: it comes back in the plan."""

    mark: Mark
    status: str
    silent_seconds: float | None
    is_lost: bool
    candidate: Candidate
    """The node as placement sees it: its failure domains decide what is trimmed."""

    @property
    def is_heard(self) -> bool:
        """Whether the node is there now."""
        return self.silent_seconds is None and self.status != "maintenance"


@attrs.frozen
class Plan(Generic[Mark]):
    """What is to be done about a chunk."""

    missing: int
    """So many copies are to be made."""
    live: int
    """So many replicas can be read: the urgency, fewest first."""
    counting: tuple[Holder[Mark], ...]
    """What counts, also in favour of new copies' failure domains."""
    sources: tuple[Holder[Mark], ...]
    """To be read first; without lost ones."""
    last_resort: tuple[Holder[Mark], ...]
    """Gone, but perhaps there all the same: a disk that was not mounted, say. What they give is authenticated."""
    leaving: tuple[Holder[Mark], ...]
    """Replicas that the chunk no longer needs."""
    is_waiting: bool
    """Something would be missing if silence counted: the pause is waited for."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to be done, now or after a pause."""
        return not (self.missing or self.leaving or self.is_waiting)


def plan(holders: Sequence[Holder[Mark]], wanted: int, grace: Grace, *, is_paused: bool = False) -> Plan[Mark]:
    """What to do about a chunk that shall have `wanted` replicas (protocol.md, section 5).

    A replica counts unless it is lost or its node has left, is disqualified, drains, or has been silent for longer than the grace: 24 h
    while two or more others can be read (on nodes that stay), else 30 min. Declared maintenance is waited for; while repair is paused,
    silence is, too. Replicas leave only when `wanted` others count: those that are gone or on a draining node, and what nodes that are
    heard have beyond `wanted`, the best spread kept. At least `wanted` count still when `leaving` has left.
    """
    standings = [_standing(holder, holders, grace, is_paused) for holder in holders]
    counting = tuple(h for h, s in zip(holders, standings, strict=True) if s is Standing.COUNTS)
    source = tuple(h for h, s in zip(holders, standings, strict=True) if s is Standing.SOURCE)
    silent = tuple(h for h, s in zip(holders, standings, strict=True) if s is Standing.SILENT)
    gone = tuple(h for h, s in zip(holders, standings, strict=True) if s is Standing.GONE)
    missing = max(0, wanted - len(counting))
    without_pause = plan(holders, wanted, grace).missing if is_paused else missing
    return Plan(
        missing=missing,
        live=sum(_can_be_read(holder, grace) for holder in holders),
        counting=counting,
        sources=(*counting, *source, *silent),
        last_resort=gone,
        leaving=() if missing else (*source, *gone, *_surplus(counting, wanted)),
        is_waiting=without_pause > missing,
    )


def _standing(holder: Holder[Mark], holders: Sequence[Holder[Mark]], grace: Grace, is_paused: bool) -> Standing:
    if holder.is_lost or holder.status in GONE_STATES:
        return Standing.GONE
    if holder.status == "draining":
        return Standing.SOURCE
    if holder.silent_seconds is None or holder.status == "maintenance" or is_paused:
        return Standing.COUNTS
    others = sum(_can_be_read(other, grace) and other.status != "draining" for other in holders if other is not holder)
    most_seconds = grace.long_seconds if others >= ENOUGH_OTHERS else min(grace.short_seconds, grace.long_seconds)
    return Standing.SILENT if holder.silent_seconds >= most_seconds else Standing.COUNTS


def _can_be_read(holder: Holder[Mark], grace: Grace) -> bool:
    """As far as is known: a node that fell silent a minute ago is believed to be back soon, one that told of its absence is not there."""
    if holder.is_lost or holder.status in GONE_STATES or holder.status == "maintenance":
        return False
    return holder.silent_seconds is None or holder.silent_seconds < grace.short_seconds


def _surplus(counting: Sequence[Holder[Mark]], wanted: int) -> Sequence[Holder[Mark]]:
    """What the nodes that are heard have beyond the wanted number."""
    heard = [holder for holder in counting if holder.is_heard]
    by_node = {holder.candidate.node: holder for holder in heard}
    if len(by_node) < len(heard):  # two on one node (two repairs at once, long ago): one of them goes first
        twice = [holder for holder in heard if by_node[holder.candidate.node] is not holder]
        return twice[: max(0, len(heard) - wanted)]
    kept = set(by_spread([holder.candidate for holder in heard])[:wanted])
    return [holder for holder in heard if holder.candidate.node not in kept]


@attrs.frozen
class PauseRule:
    """When so many nodes fall silent together that it is rather us, or the network between, than them."""

    share: float = 0.2
    """More than this share of the nodes, ..."""
    min_nodes: int = 10
    """... of at least so many, ..."""
    within_seconds: float = 900.0
    """... whose silences began within so long of each other ..."""
    longest_seconds: float = 48 * 3600.0
    """... and are no longer than this: somebody has been told since."""


def fell_together(silent_seconds: Iterable[float], rule: PauseRule) -> int:
    """The largest number of silences that began within one window of `rule.within_seconds`; longer ones than `longest_seconds` apart."""
    ages = sorted(age for age in silent_seconds if age <= rule.longest_seconds)
    most = first = 0
    for last, age in enumerate(ages):
        while age - ages[first] > rule.within_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def must_pause(silent_seconds: Sequence[float], heard: int, rule: PauseRule) -> bool:
    """Whether silence must not count now. `heard` is the number of nodes that are there."""
    known = heard + sum(age <= rule.longest_seconds for age in silent_seconds)
    return known >= rule.min_nodes and fell_together(silent_seconds, rule) > rule.share * known


def backoff_seconds(tries: int) -> float:
    """The pause after so many tries that failed: 1, 2, 4 ... minutes, 6 hours at most."""
    return min(FIRST_BACKOFF_SECONDS * 2.0 ** min(max(tries, 1) - 1, MOST_DOUBLINGS), LONGEST_BACKOFF_SECONDS)
