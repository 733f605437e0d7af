"""Arithmetic of presence: spans of time as pairs (begin, end) in seconds, and how much of one lies in others."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

import attrs

from fsn.core.node_states import NodeState

__all__ = [
    "COUNTED_STATES",
    "DAY_SECONDS",
    "QUARTERS",
    "QUARTER_SECONDS",
    "Covered",
    "Day",
    "Span",
    "Uptime",
    "clip",
    "counted_spans",
    "fold_day",
    "intersect",
    "merge",
    "part_of_day",
    "subtract",
    "total_seconds",
    "uptime",
]

DAY_SECONDS: Final = 86_400
QUARTER_SECONDS: Final = 900
QUARTERS: Final = DAY_SECONDS // QUARTER_SECONDS

COUNTED_STATES: Final[frozenset[NodeState]] = frozenset({"online", "offline", "draining"})
"""States in which a node should be there."""

Span = tuple[float, float]
"""From begin, up to but without end; nothing where end <= begin."""


def merge(spans: Iterable[Span]) -> list[Span]:
    """What any of `spans` covers: in order, apart, none empty."""
    merged: list[Span] = []
    for begin, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((begin, end))
    return merged


def clip(spans: Iterable[Span], begin: float, end: float) -> list[Span]:
    """The parts of `spans` between `begin` and `end`, each for itself."""
    cut = ((max(begin, first), min(end, last)) for first, last in spans)
    return [span for span in cut if span[0] < span[1]]


def intersect(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """What both cover; both are merged."""
    found, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        begin, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if begin < end:
            found.append((begin, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return found


def subtract(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """What `one` covers and `other` does not; both are merged."""
    if not one:
        return []
    first, last = one[0][0], one[-1][1]
    edges = [first, *(edge for span in clip(other, first, last) for edge in span), last]
    return intersect(one, [(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True) if begin < end])


def total_seconds(spans: Iterable[Span]) -> float:
    """How long they are together."""
    return sum(end - begin for begin, end in spans)


class Covered:
    """Spans that are asked often how much of a stretch of time they cover: each answer takes two binary searches."""

    def __init__(self, spans: Iterable[Span]) -> None:
        merged = merge(spans)
        self._begins = [begin for begin, _ in merged]
        self._ends = [end for _, end in merged]
        self._sums = [0.0, *accumulate(end - begin for begin, end in merged)]

    def seconds(self, begin: float, end: float) -> float:
        """How much of the time from `begin` to `end` is covered."""
        return max(0.0, self._until(end) - self._until(begin))

    def _until(self, at: float) -> float:
        index = bisect_right(self._begins, at)
        if index == 0:
            return 0.0
        return self._sums[index - 1] + min(at, self._ends[index - 1]) - self._begins[index - 1]


@attrs.frozen
class Uptime:
    """How long a node was there, of the time that counts: somebody watched, and it stood in a state in which it should be there."""

    present_seconds: float
    counted_seconds: float

    @property
    def share(self) -> float | None:
        """0.0 .. 1.0; None when no time counts."""
        return min(1.0, self.present_seconds / self.counted_seconds) if self.counted_seconds > 0 else None

    def __add__(self, other: "Uptime") -> "Uptime":
        return Uptime(self.present_seconds + other.present_seconds, self.counted_seconds + other.counted_seconds)


@attrs.frozen
class Day:
    """A day of a node's, in whole seconds: of all of it, and of each quarter of an hour, unless it was there all day or not at all."""

    present_seconds: int
    counted_seconds: int
    present: tuple[int, ...] | None
    counted: tuple[int, ...] | None


def counted_spans(states: Sequence[tuple[float, NodeState]], until: float) -> list[Span]:
    """When a node was in a state that counts, from its transitions (time, new state) in the order in which they were made."""
    times = [*accumulate((at for at, _ in states), max), until]
    return merge(
        (begin, end)
        for (_, state), begin, end in zip(states, times[:-1], times[1:], strict=True)
        if state in COUNTED_STATES
    )


def uptime(
    present: Sequence[Span], watched: Sequence[Span], counted: Sequence[Span], begin: float, end: float
) -> Uptime:
    """Of a node over the time from `begin` to `end`; the spans are merged."""
    counts = intersect(clip(watched, begin, end), counted)
    return Uptime(total_seconds(intersect(present, counts)), total_seconds(counts))


def fold_day(present: Sequence[Span], watched: Sequence[Span], counted: Sequence[Span], begin: float) -> Day:
    """The day that begins at `begin`, as it is kept; the spans are merged."""
    counts = intersect(clip(watched, begin, begin + DAY_SECONDS), counted)
    there, all_of_it = _quarters(intersect(present, counts), begin), _quarters(counts, begin)
    present_seconds, counted_seconds = sum(there), sum(all_of_it)
    if counted_seconds in (0, DAY_SECONDS) and present_seconds in (0, counted_seconds):
        return Day(present_seconds, counted_seconds, None, None)
    return Day(present_seconds, counted_seconds, there, all_of_it)


def part_of_day(day: Day, first: float, last: float) -> Uptime:
    """What a kept day says of its seconds from `first` to `last`: exact where these are quarters of an hour, else nearly."""
    if day.present is None or day.counted is None:
        share = max(0.0, min(last, DAY_SECONDS) - max(first, 0.0)) / DAY_SECONDS
        return Uptime(day.present_seconds * share, day.counted_seconds * share)
    return Uptime(_part(day.present, first, last), _part(day.counted, first, last))


def _quarters(spans: Sequence[Span], begin: float) -> tuple[int, ...]:
    covered = Covered(spans)
    sums = [covered.seconds(begin, begin + number * QUARTER_SECONDS) for number in range(QUARTERS + 1)]
    return tuple(round(last) - round(first) for first, last in pairwise(sums))


def _part(quarters: Sequence[int], first: float, last: float) -> float:
    """Each quarter's seconds, by how much of it lies between `first` and `last`."""
    found = 0.0
    for number, seconds in enumerate(quarters):
        at = number * QUARTER_SECONDS
        found += seconds * max(0.0, min(last, at + QUARTER_SECONDS) - max(first, at)) / QUARTER_SECONDS
    return found
