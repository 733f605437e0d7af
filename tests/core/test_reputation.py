"""What rounds of proofs make of a node's reputation."""

from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.reputation import (
    DISQUALIFIED_BELOW,
    Reputation,
    RoundSums,
    after_round,
    is_vetted,
    placement_weight,
    verdict,
    vetting_left,
)

AT = 1_795_651_200.0  # 2026-11-26, UTC
ROUND = 4 * 3600.0
DAY = 86_400.0

ALL_PASSED = RoundSums(asked=4096, passed=4096)
ALL_FAILED = RoundSums(asked=4096, failed=4096)
ALL_MISSED = RoundSums(asked=4096, missed=4096)
ALL_ERRORS = RoundSums(asked=4096, errors=4096)
ALL_OFFLINE = RoundSums(asked=4096, offline=4096)


def after_rounds(*rounds: RoundSums, begin: Reputation | None = None) -> Reputation:
    """The reputation after these rounds, one after the other."""
    reputation = begin or Reputation()
    for number, sums in enumerate(rounds, start=1):
        reputation = after_round(reputation, sums, AT + number * ROUND)
    return reputation


@st.composite
def _sums(draw: st.DrawFn) -> RoundSums:
    parts = [draw(st.integers(0, 5000)) for _ in range(4)]
    offline = draw(st.integers(0, 5000))
    passed, failed, missed, errors = parts
    return RoundSums(sum(parts) + offline, passed, failed, missed, errors, offline)


rounds = st.lists(_sums(), max_size=60)


def test_a_node_that_lost_everything_is_disqualified_in_its_third_round() -> None:
    """Its score goes 0.98, 0.9604, 0.9412; the threshold is 0.96."""
    scores = [round(after_rounds(*[ALL_FAILED] * count).score, 6) for count in (0, 1, 2, 3)]
    assert scores == [1.0, 0.98, 0.9604, 0.941192]
    assert [verdict(after_rounds(*[ALL_FAILED] * count)) for count in (0, 1, 2)] == ["fine"] * 3
    assert verdict(after_rounds(*[ALL_FAILED] * 3)) == "disqualified"


def test_worked_vector() -> None:
    """One round of a new node by hand: 200 asked, 150 passed, 20 failed, 10 missed, 4 errors, 16 while it was away."""
    result = after_round(Reputation(), RoundSums(200, 150, 20, 10, 4, 16), AT)
    assert result.alpha == pytest.approx(49.75)  # 0.98 * 50 + 150/200
    assert result.beta == pytest.approx(0.1)  # 0.98 * 0 + 20/200
    assert result.answer_alpha == pytest.approx(19.75)  # 0.95 * 20 + 150/200
    assert result.answer_beta == pytest.approx(0.07)  # 0.95 * 0 + 14/200
    assert result.score == pytest.approx(49.75 / 49.85)
    assert result.answering == pytest.approx(19.75 / 19.82)
    assert (result.passed, result.first_passed_at) == (150, AT)
    assert verdict(result) == "fine"


@pytest.mark.parametrize("trouble", [ALL_MISSED, ALL_ERRORS])
def test_a_node_that_never_answers_is_suspended_in_its_tenth_round_and_not_disqualified(trouble: RoundSums) -> None:
    """0.95^9 = 0.630 is above 0.6, 0.95^10 = 0.599 is not."""
    assert verdict(after_rounds(*[trouble] * 9)) == "fine"
    assert verdict(after_rounds(*[trouble] * 10)) == "suspended"
    assert after_rounds(*[trouble] * 500).score == 1.0


def test_a_suspension_is_lifted_by_rounds_that_pass() -> None:
    """Just suspended: after one. After a long time without an answer: after the 18th (1 - 0.95^18 = 0.603)."""
    assert verdict(after_rounds(*[ALL_ERRORS] * 10, ALL_PASSED)) == "fine"
    silent = after_rounds(*[ALL_ERRORS] * 500)
    assert verdict(after_rounds(*[ALL_PASSED] * 17, begin=silent)) == "suspended"
    assert verdict(after_rounds(*[ALL_PASSED] * 18, begin=silent)) == "fine"


def test_a_node_that_is_away_loses_no_reputation() -> None:
    """Uptime counts absence; neither score moves, however long it lasts."""
    reputation = after_rounds(ALL_PASSED, *[ALL_OFFLINE] * 100)
    assert (reputation.score, reputation.answering) == (1.0, 1.0)


def test_no_record_left_says_nothing_against_a_node() -> None:
    """What a float can hold no more is no fault."""
    gone = Reputation(alpha=0.0, beta=0.0, answer_alpha=0.0, answer_beta=0.0)
    assert (gone.score, gone.answering, verdict(gone)) == (1.0, 1.0, "fine")


def test_a_node_may_fail_four_in_a_hundred_for_ever_and_not_five() -> None:
    """The score settles at the share that did not fail."""
    assert verdict(after_rounds(*[RoundSums(1000, 961, 39)] * 2000)) == "fine"
    assert verdict(after_rounds(*[RoundSums(1000, 950, 50)] * 2000)) == "disqualified"


@given(rounds)
def test_scores_follow_the_formula_exactly(history: list[RoundSums]) -> None:
    """The sums of shares, each faded by the rounds since, reckoned in fractions."""
    alpha, beta = Fraction(50) * Fraction(98, 100) ** (count := sum(1 for each in history if each.asked)), Fraction(0)
    for index, each in enumerate(each for each in history if each.asked):
        faded = Fraction(98, 100) ** (count - 1 - index)
        alpha += faded * Fraction(each.passed, each.asked)
        beta += faded * Fraction(each.failed, each.asked)
    assert after_rounds(*history).score == pytest.approx(float(alpha / (alpha + beta)), abs=1e-12)


@given(rounds)
def test_scores_stay_between_nought_and_one(history: list[RoundSums]) -> None:
    """And a node with a failure in its record has less than a full score."""
    reputation = after_rounds(*history)
    assert 0.0 <= reputation.score <= 1.0
    assert 0.0 <= reputation.answering <= 1.0
    assert (reputation.score == 1.0) == all(each.failed == 0 for each in history)


@given(rounds)
def test_no_history_without_a_failure_disqualifies(history: list[RoundSums]) -> None:
    """Misses and errors suspend; only what shows that data is lost disqualifies."""
    honest = [attrs.evolve(each, failed=0) for each in history]
    assert verdict(after_rounds(*honest)) != "disqualified"


@given(rounds, _sums(), st.integers(0, 5000))
def test_a_failure_more_never_helps(history: list[RoundSums], last: RoundSums, more: int) -> None:
    """Nor does one pass less."""
    worse = attrs.evolve(last, passed=last.passed - min(more, last.passed), failed=last.failed + min(more, last.passed))
    before = after_rounds(*history)
    assert after_round(before, worse, AT).score <= after_round(before, last, AT).score + 1e-15


@given(rounds, st.integers(1, 1000))
def test_how_much_a_node_holds_does_not_change_how_it_is_judged(history: list[RoundSums], times: int) -> None:
    """Rounds are judged by shares."""
    larger = [RoundSums(*(number * times for number in attrs.astuple(each))) for each in history]
    one, other = after_rounds(*history), after_rounds(*larger)
    assert (other.score, other.answering) == pytest.approx((one.score, one.answering), abs=1e-12)


@given(rounds)
def test_after_enough_good_rounds_any_node_is_fine(history: list[RoundSums]) -> None:
    """Nothing is held against a node for ever: 300 rounds (50 days) bring the worst back, unless it was disqualified meanwhile."""
    assert verdict(after_rounds(*history, *[ALL_PASSED] * 300)) == "fine"


def test_a_round_that_asked_nothing_changes_nothing() -> None:
    """An empty node stays as it is."""
    reputation = after_rounds(ALL_FAILED, ALL_PASSED)
    assert after_round(reputation, RoundSums(0), AT) == reputation


@pytest.mark.parametrize(
    ("passed", "days", "expected"),
    [(100, 7, True), (99, 7, False), (10**6, 6.99, False), (100, 365, True), (0, 365, False)],
)
def test_vetting_takes_100_proofs_and_7_days(passed: int, days: float, expected: bool) -> None:
    """Both."""
    assert is_vetted(passed, AT, AT + days * DAY) is expected


def test_vetting_begins_with_the_first_proof_passed() -> None:
    """Not with the first round, nor the first one asked."""
    reputation = after_rounds(RoundSums(3, errors=3), RoundSums(3, passed=1, missed=2), ALL_PASSED)
    assert reputation.first_passed_at == AT + 2 * ROUND
    assert reputation.passed == 4097
    assert not is_vetted(0, None, AT + 365 * DAY)


def test_the_rest_of_vetting() -> None:
    """Between nothing and 7 days, also when the clock was ahead."""
    assert vetting_left(None, AT) == 7 * DAY
    assert vetting_left(AT, AT + 2 * DAY) == 5 * DAY
    assert vetting_left(AT, AT + 9 * DAY) == 0.0
    assert vetting_left(AT, AT - 9 * DAY) == 7 * DAY


def test_weight_shrinks_towards_the_thresholds() -> None:
    """A node half-way to disqualification or suspension gets half; at a threshold it gets nothing."""
    assert placement_weight(1.0, 1.0) == 1.0
    assert placement_weight(0.98, 1.0) == pytest.approx(0.5)
    assert placement_weight(1.0, 0.8) == pytest.approx(0.5)
    assert placement_weight(DISQUALIFIED_BELOW, 1.0) == placement_weight(1.0, 0.6) == placement_weight(0.5, 0.1) == 0.0


@pytest.mark.parametrize("wrong", [{"asked": 2, "passed": 1, "failed": 2}, {"asked": -1}, {"asked": 1, "missed": -1}])
def test_sums_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    """Before they spoil a reputation."""
    with pytest.raises(ValueError, match=r"got"):
        RoundSums(**wrong)
