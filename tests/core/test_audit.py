"""Which replicas are asked for when, and when a coordinator suspects itself."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.audit import (
    CYCLE_ROUNDS,
    PARTS,
    SLOTS,
    Turnout,
    class_of_round,
    classes,
    is_suspicious,
    part_order,
    slots_of,
)

SECRET = bytes(range(32))
FINE, SILENT = Turnout(100, 0), Turnout(0, 100)


def test_the_parts_have_each_slot_once() -> None:
    """None is left out at the borders."""
    assert [slot for part in range(PARTS) for slot in slots_of(part)] == list(range(SLOTS))


def test_the_order_of_parts_differs_from_round_to_round_and_with_the_secret() -> None:
    """And is the same for all coordinators."""
    orders = {part_order(SECRET, number) for number in range(20)}
    assert len(orders) == 20
    assert all(sorted(order) == list(range(PARTS)) for order in orders)
    assert part_order(SECRET, 1) == part_order(SECRET, 1) != part_order(bytes(32), 1)


@pytest.mark.parametrize(
    ("held", "expected"),
    [(0, 1), (4096, 1), (8191, 1), (8192, 2), (84 * 4096, 84), (10**9, 84)],
)
def test_a_node_with_many_replicas_is_asked_for_a_part_of_them(held: int, expected: int) -> None:
    """At least 4096 a round, and at least an eighty-fourth."""
    assert classes(held) == expected
    assert held // classes(held) >= min(held, 4096)


@given(st.integers(1, CYCLE_ROUNDS), st.integers(0, 10**6))
def test_every_class_comes_once_in_a_cycle(count: int, cycle: int) -> None:
    """None twice before all."""
    rounds = range(cycle * count, (cycle + 1) * count)
    assert Counter(class_of_round(SECRET, number, count) for number in rounds) == Counter(range(count))


@pytest.mark.parametrize(
    ("turnouts", "before", "expected"),
    [
        ([FINE, FINE, SILENT], 0, True),  # a third
        ([FINE] * 4 + [SILENT], 0, False),  # a fifth is not more than a fifth
        ([FINE] * 3 + [SILENT], 0, True),
        ([SILENT, SILENT], 0, False),  # two nodes say nothing of us
        ([SILENT] * 10, 2, True),
        ([SILENT] * 10, 3, False),  # in the fourth round running it is they
        ([Turnout(95, 5)] * 10, 0, False),  # a few late answers are no silence
        ([Turnout(0, 0)] * 10 + [SILENT] * 2, 0, False),  # who was not asked does not count
    ],
)
def test_when_too_many_do_not_answer_the_coordinators_suspect_themselves(
    turnouts: list[Turnout], before: int, expected: bool
) -> None:
    """More than a fifth of at least three, at most three rounds running."""
    assert is_suspicious(turnouts, before) is expected
