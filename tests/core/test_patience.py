"""Patience: a multiple of what answers took lately, within bounds."""

from hypothesis import given
from hypothesis import strategies as st

from fsn.core.patience import FEWEST, REMEMBERED, Patience


def test_without_experience_it_waits_ten_times_the_least() -> None:
    """The first answers of a process come while everything is cold."""
    patience = Patience(3.0, 0.05)
    for _ in range(FEWEST - 1):
        patience.note(0.001)
    assert patience.seconds == 0.5
    patience.note(0.001)
    assert patience.seconds == 0.05


def test_it_follows_the_median_of_the_last_answers() -> None:
    """A slow network is given more time; a few stragglers change nothing; what was long ago is forgotten."""
    patience = Patience(3.0, 0.05)
    for number in range(REMEMBERED):
        patience.note(9.0 if number % 4 == 0 else 0.2)
    assert abs(patience.seconds - 0.6) < 1e-9
    for _ in range(REMEMBERED):
        patience.note(0.1)
    assert abs(patience.seconds - 0.3) < 1e-9


@given(st.lists(st.floats(0, 100), max_size=200))
def test_it_is_never_below_the_least_nor_above_the_multiple_of_the_slowest(answers: list[float]) -> None:
    """Whatever came."""
    patience = Patience(3.0, 0.05)
    for seconds in answers:
        patience.note(seconds)
    assert 0.05 <= patience.seconds <= max(0.5, 3 * max(answers, default=0))
