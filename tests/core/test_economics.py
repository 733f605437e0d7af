"""A day's pay: by hand, against a slow model written another way, and what must hold for any inputs."""

import random
from fractions import Fraction
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.economics import (
    FIRST_HASH,
    HELD_BACK_DAYS,
    DayInputs,
    daily_statement,
    statement_bytes,
    statement_hash,
)
from fsn.core.ids import NodeId

DAY, CREDIT, GB = 86_400, 1_000_000, 10**9
NODE = NodeId(UUID(int=7))
GOOD = DayInputs(
    NODE, 20_783, age_days=200, byte_seconds=100 * GB * DAY, present=DAY, counted=DAY, asked=600, missed=0, failed=0, rounds=6,
    unproved=0, tariff=1, reward=CREDIT,
)  # fmt: skip


def slowly(inputs: DayInputs) -> int:
    """The same by exact fractions of a credit-month, as the specification reads."""
    months = Fraction(inputs.byte_seconds, GB) / (720 * 3600)
    pay = months * inputs.reward
    if inputs.rounds:
        pay *= 1 - Fraction(min(inputs.unproved, inputs.rounds), inputs.rounds)
    if inputs.counted:
        uptime = Fraction(inputs.present, inputs.counted)
        pay *= 0 if uptime < Fraction(1, 2) else min(Fraction(1), uptime / Fraction(95, 100))
    if inputs.asked:
        pay *= max(
            Fraction(0), 1 - 10 * Fraction(inputs.missed, inputs.asked) - 100 * Fraction(inputs.failed, inputs.asked)
        )
    return int(pay)


@st.composite
def days(draw: st.DrawFn) -> DayInputs:
    """Any day of any node."""
    counted = draw(st.integers(0, DAY))
    asked = draw(st.integers(0, 50_000))
    missed = draw(st.integers(0, asked))
    return DayInputs(
        NODE,
        draw(st.integers(0, 40_000)),
        draw(st.integers(0, 4_000)),
        draw(st.integers(0, 10**20)),
        draw(st.integers(0, counted)),
        counted,
        asked,
        missed,
        draw(st.integers(0, asked - missed)),
        draw(st.integers(0, 6)),
        draw(st.integers(0, 6)),
        1,
        draw(st.integers(0, 10 * CREDIT)),
    )


def test_a_good_day_by_hand() -> None:
    """100 GB for a day at one credit a GB-month: 100/30 credits."""
    statement = daily_statement(GOOD)
    assert statement.earned == 3_333_333
    assert [(line.rule, line.micro_credits) for line in statement.lines] == [
        ("storage", 3_333_333), ("unproved rounds", 0), ("uptime", 0), ("proofs", 0),
    ]  # fmt: skip
    assert statement.held == 0


def test_a_bad_day_by_hand() -> None:
    """76 % uptime pays four fifths; 3 of 600 missed take 5 %, 1 failed 16.7 %; a quarter of a young node's pay is held back."""
    bad = attrs.evolve(GOOD, present=DAY * 76 // 100, missed=3, failed=1, age_days=10)
    statement = daily_statement(bad)
    assert [line.micro_credits for line in statement.lines] == [3_333_333, 0, -666_667, -577_778]
    assert statement.earned == 2_088_888 == int(Fraction(10**8, 30) * Fraction(8, 10) * Fraction(600 - 30 - 100, 600))
    assert statement.held == 522_222


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"present": DAY // 2 - 1}, 0),
        ({"present": DAY // 2}, Fraction(50, 95)),
        ({"present": DAY * 95 // 100}, 1),
        ({"present": 0, "counted": 0}, 1),
        ({"failed": 6}, 0),
        ({"missed": 60}, 0),
        ({"asked": 0}, 1),
        ({"unproved": 2}, Fraction(4, 6)),
        ({"unproved": 6}, 0),
        ({"rounds": 0}, 1),
    ],
)
def test_each_rule(changes: dict[str, int], share: Fraction | int) -> None:
    """At its edges."""
    assert daily_statement(attrs.evolve(GOOD, **changes)).earned == int(Fraction(10**8, 30) * share)  # type: ignore[arg-type]


@given(days())
def test_it_agrees_with_the_slow_model_and_adds_up(inputs: DayInputs) -> None:
    """To the micro-credit; nothing is negative; no more is held back than was earned."""
    statement = daily_statement(inputs)
    assert statement.earned == slowly(inputs)
    assert sum(line.micro_credits for line in statement.lines) == statement.earned
    assert 0 <= statement.held <= statement.earned
    assert statement.held == (statement.earned // 4 if inputs.age_days < HELD_BACK_DAYS else 0)


def test_a_year_of_random_days_agrees_with_the_slow_model() -> None:
    """Every day of twenty nodes, to the micro-credit."""
    rng = random.Random(5)
    for node in range(20):
        for day in range(365):
            counted, asked = rng.randrange(DAY + 1), rng.randrange(4096)
            inputs = DayInputs(
                NodeId(UUID(int=node)), day, day, rng.randrange(10**17), rng.randrange(counted + 1), counted, asked,
                rng.randrange(asked // 20 + 1), rng.randrange(asked // 200 + 1), 6, rng.randrange(20) // 17, 1, CREDIT,
            )  # fmt: skip
            assert daily_statement(inputs).earned == slowly(inputs)


def test_what_is_hashed_is_a_promise() -> None:
    """Golden bytes: programs of others recompute them."""
    statement = daily_statement(attrs.evolve(GOOD, age_days=1))
    assert statement_bytes(statement, FIRST_HASH).decode() == (
        "fsn-statement-v1\nnode=00000000000000000000000000000007\nday=20783\nage_days=1\nbyte_seconds=8640000000000000\n"
        "present=86400\ncounted=86400\nasked=600\nmissed=0\nfailed=0\nrounds=6\nunproved=0\ntariff=1\nreward=1000000\n"
        "line storage=3333333\nline unproved rounds=0\nline uptime=0\nline proofs=0\nearned=3333333\nheld=833333\n"
        f"previous={'0' * 64}\n"
    )
    assert statement_hash(statement, FIRST_HASH) != statement_hash(statement, bytes([1]) * 32)


def test_negative_inputs_are_refused() -> None:
    """They are somebody's mistake."""
    with pytest.raises(ValueError, match="present must not be negative; got -1"):
        attrs.evolve(GOOD, present=-1)
