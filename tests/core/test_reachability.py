"""What a coordinator may be made to dial, and what follows from how it went."""

import pytest

from fsn.core.reachability import (
    DialOutcome,
    DialResult,
    Reach,
    Verdict,
    judge,
    may_be_told,
    refused_target,
    telling_outcome,
)

HERE = "/ip4/192.0.2.7/tcp/4001"
THERE = "/ip4/192.0.2.8/tcp/4001"


def judged(*outcomes: DialOutcome) -> Verdict:
    """Of a connected node, dialled at as many addresses as there are outcomes."""
    results = [DialResult(f"/ip4/192.0.2.{n}/tcp/1", outcome) for n, outcome in enumerate(outcomes)]
    return judge(is_connected=True, failure="", results=results)


def test_one_answer_is_enough_to_be_reached_directly() -> None:
    """At the addresses that answered, each named once, whatever became of the others."""
    results = [
        DialResult(THERE, DialOutcome.NO_ANSWER),
        DialResult(HERE, DialOutcome.REACHED),
        DialResult(HERE, DialOutcome.REACHED),
    ]
    verdict = judge(is_connected=True, failure="", results=results)
    assert (verdict.reach, verdict.addresses) == (Reach.DIRECT, (HERE,))


def test_without_a_connection_nothing_else_counts() -> None:
    """A node that was reached an hour ago and has no coordinator now cannot be reached, and says why."""
    results = [DialResult(HERE, DialOutcome.REACHED)]
    assert judge(is_connected=False, failure="refused", results=results) == Verdict(Reach.NONE, "refused")
    assert judge(is_connected=False, failure="", results=None).reason == "no coordinator is connected"


def test_what_was_not_tested_is_not_claimed() -> None:
    """Neither good nor bad, with the reason if there is one."""
    assert judge(is_connected=True, failure="", results=None) == Verdict(Reach.UNTESTED, "not tested yet")
    assert judge(is_connected=True, failure="busy", results=None).reason == "busy"


@pytest.mark.parametrize(
    ("outcomes", "advice"),
    [
        ((DialOutcome.NO_ANSWER,), "NAT or a firewall"),
        ((DialOutcome.NO_ANSWER, DialOutcome.REFUSED), "forward it to this machine"),
        ((DialOutcome.REFUSED, DialOutcome.WRONG_PEER), "another machine"),
        ((DialOutcome.NO_ANSWER, DialOutcome.BROKEN), "another program"),
        ((), "announces none"),
        ((DialOutcome.NOT_TRIED,), "not_tried"),
    ],
)
def test_the_most_telling_outcome_becomes_the_advice(outcomes: tuple[DialOutcome, ...], advice: str) -> None:
    """What an operator can mend comes before what he cannot."""
    verdict = judged(*outcomes)
    assert verdict.reach == Reach.OWN_CONNECTION
    assert advice in verdict.reason


def test_an_outcome_of_a_later_version_is_borne() -> None:
    """It is shown as it came."""
    results = [DialResult(HERE, "melted")]
    assert telling_outcome(results) == "melted"
    assert "melted" in judge(is_connected=True, failure="", results=results).reason


@pytest.mark.parametrize(
    ("ip", "observed", "is_refused"),
    [
        ("10.0.0.5", "10.0.0.5", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("::ffff:10.0.0.5", "10.0.0.5", False),
        ("8.8.8.8", "1.1.1.1", False),
        ("2001:4860:4860::8888", None, False),
        ("10.0.0.6", "10.0.0.5", True),
        ("127.0.0.1", "8.8.8.8", True),
        ("::1", "8.8.8.8", True),
        ("::ffff:127.0.0.1", "8.8.8.8", True),
        ("169.254.169.254", "8.8.8.8", True),
        ("224.0.0.1", "8.8.8.8", True),
        ("0.0.0.0", "8.8.8.8", True),
        ("fe80::1", None, True),
        ("example.org", "8.8.8.8", True),
    ],
)
def test_only_ones_own_and_public_addresses_are_dialled(ip: str, observed: str | None, is_refused: bool) -> None:
    """Nobody looks around in the coordinator's own network by asking to be dialled back."""
    assert bool(refused_target(ip, observed)) == is_refused


@pytest.mark.parametrize(
    ("ip", "teller", "is_believed"),
    [
        ("8.8.8.8", "1.1.1.1", True),
        ("8.8.8.8", None, True),
        ("10.0.0.6", "10.0.0.5", True),
        ("10.0.0.6", "1.1.1.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", None, False),
        ("0.0.0.0", "10.0.0.5", False),
        ("224.0.0.1", "1.1.1.1", False),
        ("nonsense", "1.1.1.1", False),
    ],
)
def test_private_addresses_are_believed_from_within_only(ip: str, teller: str | None, is_believed: bool) -> None:
    """A stranger on the Internet cannot make us knock at doors inside our own network."""
    assert may_be_told(ip, teller) == is_believed
