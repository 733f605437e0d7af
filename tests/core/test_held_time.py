"""Byte-hours are exact, however the time is cut."""

from hypothesis import given
from hypothesis import strategies as st

from fsn.core.held_time import LONGEST_GAP_SECONDS, Agreement, HeldDay, held_days

NOON = 20_000 * 86_400 + 43_200
sizes = st.integers(0, 10**18)
gaps = st.integers(1, LONGEST_GAP_SECONDS)
moments = st.integers(0, 10**10)


def test_a_steady_day() -> None:
    """A thousand bytes from noon to noon: half of it on each day."""
    days = held_days(Agreement(NOON, 1000), Agreement(NOON + 86_400, 1000))
    assert days == (HeldDay(20_000, 43_200_000, 43_200), HeldDay(20_001, 43_200_000, 43_200))


@given(moments, gaps, sizes, sizes)
def test_days_add_up_to_the_area(at: int, gap: int, one: int, other: int) -> None:
    """Their sum is the area below the line, rounded down; each day lies between the least and the most held."""
    days = held_days(Agreement(at, one), Agreement(at + gap, other))
    assert sum(day.byte_seconds for day in days) == (one + other) * gap // 2
    assert sum(day.seconds for day in days) == gap
    assert [day.day for day in days] == sorted({day.day for day in days})
    for day in days:
        assert min(one, other) * day.seconds - 1 <= day.byte_seconds <= max(one, other) * day.seconds + 1
        assert 0 < day.seconds <= 86_400


@given(moments, gaps, sizes)
def test_what_is_steady_may_be_cut_anywhere(at: int, gap: int, size: int) -> None:
    """Two intervals side by side have what one has."""
    begin, middle, end = (Agreement(at + part, size) for part in (0, gap // 2, gap))
    parts = [*held_days(begin, middle), *held_days(middle, end)]
    assert sum(day.byte_seconds for day in parts) == sum(day.byte_seconds for day in held_days(begin, end))


@given(moments, st.integers(0, 10**7), sizes, sizes)
def test_no_look_no_bytes(at: int, seconds: int, one: int, other: int) -> None:
    """A clock that was put back, or an interval in which nobody looked, counts for nothing."""
    assert held_days(Agreement(at, one), Agreement(at + LONGEST_GAP_SECONDS + 1 + seconds, other)) == ()
    assert held_days(Agreement(at, one), Agreement(at - seconds, other)) == ()
