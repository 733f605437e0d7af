"""Reputation: what a node's rounds of proofs make of it, and when it is vetted, suspended or disqualified.

Two tracks, each a sum of shares in which the past fades, as in "The Beta Reputation System" (Josang and Ismail, 2002):

* **Holding**, from proofs that passed and failed. It forgets 2 % a round; below 0.96 the node is disqualified. In the long run a node
  may fail 4 % of what it is asked; one that lost everything is out with its third round (0.98, 0.9604, 0.9412).
* **Answering**, from proofs that passed against errors and missed ones: faults that do not show that data is lost. It forgets 5 % a round;
  below 0.6 the node is suspended, and at 0.6 and above it is not. A node that was well and now answers nothing is suspended with the
  tenth round in which it is asked for anything (0.95^10 = 0.599: 40 hours at least); one that answered nothing for long is back with its
  18th good one (1 - 0.95^18 = 0.603: 3 days).

The factor and threshold of the second track, its being a track of its own, and the threshold of the first are those of Storj's satellite
(`UnknownAuditLambda`, `UnknownAuditDQ`, `AuditDQ` in its `satellite/reputation/config.go`). It counts single audits; we count shares of a
round, so that how much a node holds does not change how fast it is judged. Both tracks start where a node without fault stays, at
1/(1 - factor), so a new node is judged like an old one.
"""

from typing import Final, Literal

import attrs

__all__ = [
    "DISQUALIFIED_BELOW",
    "SUSPENDED_BELOW",
    "VETTING_PROOFS",
    "VETTING_SECONDS",
    "Reputation",
    "RoundSums",
    "Verdict",
    "after_round",
    "is_vetted",
    "placement_weight",
    "verdict",
    "vetting_left",
]

Verdict = Literal["fine", "suspended", "disqualified"]

DISQUALIFIED_BELOW: Final = 0.96
SUSPENDED_BELOW: Final = 0.6

VETTING_PROOFS: Final = 100
VETTING_SECONDS: Final = 7 * 86_400.0

_HOLDING_FACTOR: Final = 0.98
_ANSWERING_FACTOR: Final = 0.95
_HOLDING_START: Final = 50.0
_ANSWERING_START: Final = 20.0


def _not_negative(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must not be negative; got {value}")


@attrs.frozen
class RoundSums:
    """What became of a node's challenges in one round, in numbers of challenges.

    `failed`: a wrong answer, or the node said that it has not got the replica. `missed`: no answer in time, in all tries. `errors`: a
    refusal that says nothing about the replica. `offline`: the node was not there; no part of reputation, uptime counts it.
    """

    asked: int = attrs.field(validator=_not_negative)
    passed: int = attrs.field(default=0, validator=_not_negative)
    failed: int = attrs.field(default=0, validator=_not_negative)
    missed: int = attrs.field(default=0, validator=_not_negative)
    errors: int = attrs.field(default=0, validator=_not_negative)
    offline: int = attrs.field(default=0, validator=_not_negative)

    def __attrs_post_init__(self) -> None:
        ended = self.passed + self.failed + self.missed + self.errors
        if ended > self.asked:
            raise ValueError(f"no more challenges end than were asked; got {ended} of {self.asked}")


@attrs.frozen
class Reputation:
    """A node's two tracks, and how far its vetting is; a new node's by default.

    `passed` counts proofs since vetting began, `first_passed_at` is when a round with the first of them ended, in seconds
    since 1970.
    """

    alpha: float = _HOLDING_START
    beta: float = 0.0
    answer_alpha: float = _ANSWERING_START
    answer_beta: float = 0.0
    passed: int = 0
    first_passed_at: float | None = None

    @property
    def score(self) -> float:
        """Holding: 0.0 to 1.0, the faded share of proofs that did not fail."""
        return _share(self.alpha, self.beta)

    @property
    def answering(self) -> float:
        """Answering: 0.0 to 1.0, the faded share of proofs that were neither missed nor errors."""
        return _share(self.answer_alpha, self.answer_beta)


def after_round(reputation: Reputation, sums: RoundSums, at: float) -> Reputation:
    """What one round, which ended at `at` (seconds since 1970), makes of a reputation; a round that asked nothing changes nothing.

    alpha = 0.98 alpha + passed/asked, beta = 0.98 beta + failed/asked; answering the same with 0.95, and misses and errors as its failures.
    """
    if sums.asked == 0:
        return reputation
    passed, failed = sums.passed / sums.asked, sums.failed / sums.asked
    unanswered = (sums.missed + sums.errors) / sums.asked
    return Reputation(
        alpha=_HOLDING_FACTOR * reputation.alpha + passed,
        beta=_HOLDING_FACTOR * reputation.beta + failed,
        answer_alpha=_ANSWERING_FACTOR * reputation.answer_alpha + passed,
        answer_beta=_ANSWERING_FACTOR * reputation.answer_beta + unanswered,
        passed=reputation.passed + sums.passed,
        first_passed_at=at if reputation.first_passed_at is None and sums.passed else reputation.first_passed_at,
    )


def verdict(reputation: Reputation) -> Verdict:
    """How a node with this reputation stands: disqualified goes before suspended."""
    if reputation.score < DISQUALIFIED_BELOW:
        return "disqualified"
    return "suspended" if reputation.answering < SUSPENDED_BELOW else "fine"


def is_vetted(passed: int, first_passed_at: float | None, now: float) -> bool:
    """Whether a node has passed 100 proofs, and the first of them 7 days ago or more."""
    return passed >= VETTING_PROOFS and vetting_left(first_passed_at, now) == 0.0


def vetting_left(first_passed_at: float | None, now: float) -> float:
    """Seconds of the 7 days that are still to come, zero when they are over; they begin with the first proof passed."""
    if first_passed_at is None:
        return VETTING_SECONDS
    return min(max(first_passed_at + VETTING_SECONDS - now, 0.0), VETTING_SECONDS)


def placement_weight(score: float, answering: float) -> float:
    """0.0 to 1.0: how a node's share of new data shrinks as its tracks near their thresholds, to nothing at either."""
    return _margin(score, DISQUALIFIED_BELOW) * _margin(answering, SUSPENDED_BELOW)


def _margin(score: float, threshold: float) -> float:
    return min(max((score - threshold) / (1.0 - threshold), 0.0), 1.0)


def _share(good: float, bad: float) -> float:
    """Without any record left (it fades below what a float can hold in some twenty years), there is nothing against the node."""
    return good / (good + bad) if good + bad > 0.0 else 1.0
