"""Arithmetic of presence: spans of time as pairs (begin, end) in seconds, and how much of one lies in others."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

__all__ = ["Covered", "Span", "clip", "intersect", "merge", "subtract", "total_seconds"]

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
