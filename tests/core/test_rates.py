"""Token buckets, and who shares one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.rates import Rate, give_back, source_network, take

rates = st.builds(Rate, st.floats(0.01, 1000), st.integers(1, 100))
pauses = st.lists(st.one_of(st.just(0.0), st.floats(0, 2), st.floats(0, 1000)), max_size=200)


def grants(rate: Rate, pauses: list[float], start: float = 0.0) -> list[float]:
    """When tokens were given to somebody who asks after each pause."""
    now, full_at, given = start, float("-inf"), []
    for pause in pauses:
        now += pause
        taken = take(rate, full_at, now)
        full_at = taken.full_at
        if not taken.wait_seconds:
            given.append(now)
    return given


@given(rates, pauses, st.floats(0, 1e6))
def test_no_stretch_of_time_sees_more_than_burst_and_rate(rate: Rate, pauses: list[float], start: float) -> None:
    """Between any two grants lie at most `burst + seconds * per_second` of them."""
    given = grants(rate, pauses, start)
    for first, began in enumerate(given):
        for last in range(first, len(given)):
            allowed = rate.burst + (given[last] - began) * rate.per_second
            assert last - first + 1 <= allowed + 1e-6 * (1 + rate.per_second)


@given(rates, pauses)
def test_waiting_as_told_is_enough_and_no_less_is(rate: Rate, pauses: list[float]) -> None:
    """A refusal takes nothing; the next try after `wait_seconds` succeeds, and one clearly before it does not."""
    now, full_at = 0.0, float("-inf")
    for pause in pauses:
        now += pause
        taken = take(rate, full_at, now)
        if taken.wait_seconds:
            assert taken.full_at == full_at
            assert take(rate, full_at, now + taken.wait_seconds).wait_seconds == 0
            assert take(rate, full_at, now + taken.wait_seconds * 0.9 - 1e-5).wait_seconds > 0
        full_at = taken.full_at


@given(rates, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_full_bucket_is_like_one_never_used(rate: Rate, now: float, rest: float) -> None:
    """So it can be forgotten."""
    assert take(rate, now - rest, now) == take(rate, float("-inf"), now)


@given(rates, st.integers(1, 300))
def test_after_a_rest_a_burst_is_given_and_no_more(rate: Rate, tries: int) -> None:
    """Of many tries in one moment exactly `burst` succeed."""
    assert len(grants(rate, [0.0] * tries)) == min(tries, rate.burst)


@given(rates, st.floats(0, 1e4))
def test_what_is_given_back_can_be_taken_again(rate: Rate, now: float) -> None:
    """A bucket that was emptied and got one token back gives one."""
    full_at = float("-inf")
    for _ in range(rate.burst):
        full_at = take(rate, full_at, now).full_at
    assert take(rate, full_at, now).wait_seconds > 0
    taken = take(rate, give_back(rate, full_at), now)
    assert taken.wait_seconds == 0
    assert take(rate, taken.full_at, now).wait_seconds > 0


@pytest.mark.parametrize(("per_second", "burst"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_rates_that_cannot_be(per_second: float, burst: int) -> None:
    """A rate gives something."""
    with pytest.raises(ValueError):
        Rate(per_second, burst)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("<local>", "<local>"),
        ("", ""),
    ],
)
def test_an_ipv6_network_is_one_source(address: str, source: str) -> None:
    """IPv4 counts by address, IPv6 by /64; what is no address counts as it is."""
    assert source_network(address) == source
