"""What is done about a chunk, and when nothing is."""

from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.ids import NodeId
from fsn.core.placement import Candidate
from fsn.core.repair import Grace, Holder, PauseRule, Plan, backoff_seconds, fell_together, must_pause, plan

GRACE = Grace()
MINUTE, HOUR = 60.0, 3600.0


def holder(
    mark: int, status: str = "online", silent: float | None = None, *, lost: bool = False, domain: str = ""
) -> Holder[int]:
    """A replica on a node of its own."""
    candidate = Candidate(NodeId(UUID(int=mark)), domain or f"operator {mark}", None, None, 10**9)
    return Holder(mark, status, silent, lost, candidate)


def marks(holders: tuple[Holder[int], ...]) -> set[int]:
    """Who they are."""
    return {each.mark for each in holders}


@pytest.mark.parametrize(
    ("third", "missing"),
    [
        (holder(3), 0),
        (holder(3, "joining"), 0),
        (holder(3, "offline", 24 * HOUR - 1), 0),
        (holder(3, "offline", 24 * HOUR), 1),
        (holder(3, "online", 24 * HOUR), 1),  # nobody has written down yet that it is offline
        (holder(3, "maintenance", 100 * HOUR), 0),
        (holder(3, "draining"), 1),
        (holder(3, "left"), 1),
        (holder(3, "disqualified"), 1),
        (holder(3, lost=True), 1),
    ],
)
def test_with_two_others_a_silent_node_has_a_day(third: Holder[int], missing: int) -> None:
    """What is lost, left, judged or on its way out is missing at once."""
    assert plan([holder(1), holder(2), third], 3, GRACE).missing == missing


@pytest.mark.parametrize("second", [holder(2, "offline", 40 * MINUTE), holder(2, lost=True), holder(2, "draining")])
def test_with_fewer_others_it_has_half_an_hour(second: Holder[int]) -> None:
    """A node that is silent itself, or leaves, is no reason to wait."""
    before = plan([holder(1), second, holder(3, "offline", 29 * MINUTE)], 3, GRACE)
    after = plan([holder(1), second, holder(3, "offline", 30 * MINUTE)], 3, GRACE)
    assert after.missing == 2
    assert after.missing - before.missing == (2 if second.silent_seconds else 1)


def test_a_pause_waits_for_the_silent_only() -> None:
    """A lost replica is made good in a pause; what silence alone would make missing waits, and is not forgotten."""
    silent, lost = holder(3, "offline", 30 * HOUR), holder(2, lost=True)
    paused = plan([holder(1), lost, silent], 3, GRACE, is_paused=True)
    assert (paused.missing, paused.is_waiting) == (1, True)
    only_silent = plan([holder(1), holder(2), silent], 3, GRACE, is_paused=True)
    assert (only_silent.missing, only_silent.is_waiting, only_silent.is_settled) == (0, True, False)


def test_a_drained_replica_leaves_after_its_copy() -> None:
    """Not before."""
    three = [holder(1), holder(2), holder(3, "draining")]
    assert marks(plan(three, 3, GRACE).leaving) == set()
    assert marks(plan([*three, holder(4)], 3, GRACE).leaving) == {3}


def test_a_lost_replica_is_read_last_and_leaves_when_it_was_replaced() -> None:
    """Its row is not given up before: it may be all there is."""
    three = [holder(1, lost=True), holder(2, lost=True), holder(3, "disqualified")]
    found = plan(three, 3, GRACE)
    assert (found.missing, found.live, found.sources) == (3, 0, ())
    assert marks(found.last_resort) == {1, 2, 3}
    assert found.leaving == ()
    assert marks(plan([*three, holder(4), holder(5), holder(6)], 3, GRACE).leaving) == {1, 2, 3}


def test_surplus_is_trimmed_and_the_best_spread_kept() -> None:
    """Of two at one operator one goes; what is on silent nodes stays, and does not count for it."""
    spread = [holder(1), holder(2, domain="same"), holder(3, domain="same"), holder(4)]
    assert marks(plan(spread, 3, GRACE).leaving) < {2, 3}
    assert len(plan(spread, 3, GRACE).leaving) == 1
    silent = [holder(1), holder(2), holder(3), holder(4, "offline", MINUTE)]
    assert plan(silent, 3, GRACE).is_settled
    away = [holder(1), holder(2), holder(3), holder(4, "maintenance")]
    assert plan(away, 3, GRACE).is_settled


def test_two_replicas_on_one_node_are_surplus_first() -> None:
    """Whatever the spread of the others."""
    double = attrs.evolve(holder(9), candidate=holder(1).candidate)
    assert marks(plan([holder(1), double, holder(2, domain="same"), holder(3, domain="same")], 3, GRACE).leaving) < {
        1,
        9,
    }


statuses = st.sampled_from(["joining", "online", "offline", "maintenance", "draining", "left", "disqualified"])
silences = st.none() | st.sampled_from([1.0, 29 * MINUTE, 30 * MINUTE, 23 * HOUR, 24 * HOUR, 100 * HOUR])


@st.composite
def chunks(draw: st.DrawFn) -> list[Holder[int]]:
    """Any number of replicas in any state, each on a node of its own, some at one operator."""
    count = draw(st.integers(0, 7))
    return [
        holder(
            n, draw(statuses), draw(silences), lost=draw(st.booleans()), domain=draw(st.sampled_from(["", "a", "b"]))
        )
        for n in range(count)
    ]


@given(chunks(), st.integers(1, 5), st.booleans())
def test_a_plan_never_makes_it_worse(holders: list[Holder[int]], wanted: int, is_paused: bool) -> None:
    """Nothing leaves while something is missing, and what stays still counts as wanted; nothing is in two places of the plan."""
    found: Plan[int] = plan(holders, wanted, GRACE, is_paused=is_paused)
    assert not (found.missing and found.leaving)
    stay = [each for each in holders if each not in found.leaving]
    after = plan(stay, wanted, GRACE, is_paused=is_paused)
    assert after.missing == found.missing
    assert not after.leaving, "and there is an end to it"
    if any(each in found.counting for each in found.leaving):
        assert sum(each.is_heard for each in after.counting) >= wanted
    assert marks(found.sources).isdisjoint(marks(found.last_resort))
    assert marks(found.sources) | marks(found.last_resort) == marks(tuple(holders))


@given(chunks(), st.integers(1, 5))
def test_copies_make_it_whole(holders: list[Holder[int]], wanted: int) -> None:
    """With as many copies on other nodes as are missing, nothing is; then all that was to leave leaves, and it is settled."""
    missing = plan(holders, wanted, GRACE).missing
    whole = [*holders, *(holder(100 + n) for n in range(missing))]
    found = plan(whole, wanted, GRACE)
    assert found.missing == 0
    assert plan([each for each in whole if each not in found.leaving], wanted, GRACE).is_settled


@given(chunks(), st.integers(1, 5))
def test_nobody_who_comes_back_makes_anything_missing(holders: list[Holder[int]], wanted: int) -> None:
    """A node that is heard again never makes a chunk worse off."""
    before = plan(holders, wanted, GRACE)
    back = [attrs.evolve(each, silent_seconds=None) for each in holders]
    assert plan(back, wanted, GRACE).missing <= before.missing


def test_who_fell_silent_together() -> None:
    """The largest group within a quarter of an hour; long silences are another matter."""
    rule = PauseRule()
    assert fell_together([], rule) == 0
    assert fell_together([10, 20, 910, 920, 1000], rule) == 3
    assert fell_together([49 * HOUR] * 5, rule) == 0


@pytest.mark.parametrize(
    ("silent", "heard", "expected"),
    [
        ([60.0] * 2, 8, False),  # a fifth
        ([60.0] * 3, 7, True),
        ([60.0] * 3, 6, False),  # too few to tell
        ([float(n) * HOUR for n in range(9)], 11, False),  # one after the other
        ([60.0] * 9, 0, False),
        ([60.0] * 10, 0, True),
        ([60.0 + 49 * HOUR] * 10, 10, False),  # long ago
    ],
)
def test_repair_pauses_when_more_than_a_fifth_fall_silent(silent: list[float], heard: int, expected: bool) -> None:
    """Together, of ten or more."""
    assert must_pause(silent, heard, PauseRule()) is expected


@given(st.integers(0, 10**6))
def test_back_off_grows_to_six_hours(tries: int) -> None:
    """And not beyond."""
    assert MINUTE <= backoff_seconds(tries) <= backoff_seconds(tries + 1) <= 6 * HOUR
