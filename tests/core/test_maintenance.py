"""How long a node may be away by declaration."""

from hypothesis import given
from hypothesis import strategies as st

from fsn.core.maintenance import BUDGET_HOURS, LONGEST_HOURS, WINDOW_DAYS, is_same_end, seconds_left

DAY = 86_400.0
NOW = 1_000 * DAY
cuts = st.lists(st.floats(NOW - 60 * DAY, NOW), min_size=2, max_size=20, unique=True).map(sorted)


def test_a_node_that_was_never_away_has_the_whole_budget() -> None:
    """Which is as much as one maintenance may last."""
    assert seconds_left([], NOW) == BUDGET_HOURS * 3600 == LONGEST_HOURS * 3600


def test_what_lies_in_the_window_is_used_up() -> None:
    """A maintenance that began before it counts from there on."""
    edge = NOW - WINDOW_DAYS * DAY
    assert seconds_left([(edge - DAY, edge + 3600)], NOW) == (BUDGET_HOURS - 1) * 3600
    assert seconds_left([(edge - DAY, edge)], NOW) == BUDGET_HOURS * 3600


@given(cuts)
def test_no_window_has_more_than_the_budget(times: list[float]) -> None:
    """Whatever was declared: what may be added never brings the window above its budget, and is never negative."""
    spans = list(zip(times[::2], times[1::2], strict=False))
    used = sum(max(0.0, end - max(begin, NOW - WINDOW_DAYS * DAY)) for begin, end in spans)
    left = seconds_left(spans, NOW)
    assert left >= 0
    assert left == 0 or abs(used + left - BUDGET_HOURS * 3600) < 1


def test_an_end_that_was_told_again_is_the_same() -> None:
    """Within a minute; none is the same as none only."""
    assert is_same_end(NOW, NOW + 59)
    assert not is_same_end(NOW, NOW + 61)
    assert is_same_end(None, None)
    assert not is_same_end(None, NOW)
