"""Spans of time against a model that counts whole seconds one by one."""

from hypothesis import given
from hypothesis import strategies as st

from fsn.core.uptime import Covered, Span, clip, intersect, merge, subtract, total_seconds

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def seconds(of: list[Span]) -> set[int]:
    """The whole seconds that spans with whole edges cover."""
    return {second for begin, end in of for second in range(int(begin), int(end))}


def is_merged(of: list[Span]) -> bool:
    """In order, apart, none empty."""
    edges = [edge for span in of for edge in span]
    return edges == sorted(set(edges))


@given(spans, spans)
def test_sets_of_seconds(one: list[Span], other: list[Span]) -> None:
    """Merging, intersecting and subtracting do to spans what set operations do to their seconds."""
    a, b = merge(one), merge(other)
    assert is_merged(a)
    assert seconds(a) == seconds(one)
    assert is_merged(intersect(a, b))
    assert seconds(intersect(a, b)) == seconds(a) & seconds(b)
    assert is_merged(subtract(a, b))
    assert seconds(subtract(a, b)) == seconds(a) - seconds(b)
    assert total_seconds(a) == len(seconds(a))


@given(spans, st.integers(0, 60), st.integers(0, 60))
def test_windows(some: list[Span], begin: int, end: int) -> None:
    """A part of the time, cut out or asked for, is what lies in it."""
    inside = seconds(some) & set(range(begin, end))
    assert seconds(clip(some, begin, end)) == inside
    assert Covered(some).seconds(begin, end) == len(inside)
