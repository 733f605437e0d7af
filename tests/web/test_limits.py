"""Buckets by key and slots, under a clock of the test's own."""

import pytest

from fsn.core.errors import RateLimited
from fsn.core.rates import Rate
from fsn.web.limits import Buckets, Slots


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def takes(buckets: Buckets, key: object, tries: int) -> int:
    """How many of so many tries are granted."""
    granted = 0
    for _ in range(tries):
        try:
            buckets.take(key)
        except RateLimited:
            continue
        granted += 1
    return granted


def test_keys_do_not_share(time: Time) -> None:
    """One key's excess is no other key's."""
    buckets = Buckets("things", Rate(1, 3), time)
    assert [takes(buckets, key, 5) for key in ("a", "b")] == [3, 3]


def test_a_refusal_says_when(time: Time) -> None:
    """The error has what is limited, and the seconds after which the next try is granted."""
    buckets = Buckets("things", Rate(0.5, 1), time)
    buckets.take("a")
    time.now += 0.5
    with pytest.raises(RateLimited, match=r"too many things: 1 at once and 30 a minute .* in 1\.5 s") as raised:
        buckets.take("a")
    assert raised.value.facts == {"retry_after_seconds": 1.5}
    time.now += 1.5
    buckets.take("a")


def test_full_buckets_are_forgotten(time: Time) -> None:
    """Once those who asked have rested, their buckets go while others ask."""
    buckets = Buckets("things", Rate(1, 5), time)
    for number in range(1000):
        buckets.take(number)
    time.now += 10
    for number in range(1000, 2000):
        buckets.take(number)
    assert len(buckets) == 1000


def test_a_million_addresses_take_no_more_room_than_some(time: Time) -> None:
    """Beyond the limit the bucket that was not asked for the longest is forgotten; one that is in use stays."""
    buckets = Buckets("things", Rate(0.001, 5), time, remembered=1000)
    assert takes(buckets, "busy", 10) == 5
    for number in range(100_000):
        buckets.take(number)
        if number % 500 == 0:
            assert takes(buckets, "busy", 1) == 0
    assert len(buckets) == 1000


def test_without_a_rate_nothing_is_limited_or_remembered(time: Time) -> None:
    """So a limit is turned off."""
    buckets = Buckets("things", None, time)
    assert takes(buckets, "a", 1000) == 1000
    buckets.give_back("a")
    assert len(buckets) == 0


def test_what_is_given_back_counts_again(time: Time) -> None:
    """A try that is undone leaves the bucket as it was; undoing one that was forgotten does nothing."""
    buckets = Buckets("things", Rate(1, 2), time)
    for _ in range(10):
        buckets.take("a")
        buckets.give_back("a")
    buckets.give_back("never seen")
    assert takes(buckets, "a", 5) == 2


def test_slots_are_held_for_a_block() -> None:
    """As many as allowed at once; leaving a block, also by an error, frees its slot, and nothing is remembered of it."""
    slots = Slots("uploads", 2)
    with slots.hold("a"), slots.hold("b"):
        with pytest.raises(ZeroDivisionError), slots.hold("a"):
            raise ZeroDivisionError
        with slots.hold("a"):
            with pytest.raises(RateLimited, match="2 uploads at once") as raised, slots.hold("a"):
                pass
            assert (raised.value.code, raised.value.facts["limit"]) == ("too_many_transfers", 2)
    assert not slots._held


def test_no_limit_is_no_limit() -> None:
    """Zero turns the limit off."""
    slots = Slots("uploads", 0)
    with slots.hold("a"), slots.hold("a"), slots.hold("a"):
        pass
