"""Rounds of proofs: which replicas are asked for in which round, in which order, and when the coordinators must suspect themselves.

A round is cut into 240 parts of the slot space (each replica has a random slot that no node knows); which part comes when is drawn anew
for each round under a secret. A node with up to 4096 replicas is asked for all of them in every round. One with more is asked for those
whose slot falls into one class of `classes(count)`, another one each round, in an order drawn under the secret: about
max(4096, count/84) replicas a round, none twice before all have been asked for, and all of them within a cycle of 84 rounds (14 days) at
most. When `count` passes a multiple of 4096 the order is drawn anew.
"""

from collections.abc import Iterable
from typing import Final, Literal

import attrs
from blake3 import blake3

__all__ = [
    "CYCLE_ROUNDS",
    "MOST_TRIES",
    "PARTS",
    "SLOTS",
    "UNANSWERED",
    "Outcome",
    "Turnout",
    "class_of_round",
    "classes",
    "is_suspicious",
    "part_order",
    "slots_of",
]

Outcome = Literal["passed", "bad", "gone", "error", "timeout", "offline"]
"""How a challenge ended. bad: a wrong answer; gone: the node says that it has not got the replica; error: refused; timeout: no answer
over a connection that stands; offline: there was no connection."""
UNANSWERED: Final = frozenset({"timeout", "error"})
"""They say nothing of the replica yet: the same challenge is asked again."""

SLOTS: Final = 16384
PARTS: Final = 240
"""A minute each, in a round of four hours."""
CYCLE_ROUNDS: Final = 84
"""14 days of rounds of four hours."""
ASKED_IN_FULL: Final = 4096
MOST_TRIES: Final = 4
"""The same challenge is asked again three times; then it counts as missed, or refused."""
SUSPICIOUS_SHARE: Final = 0.2
SUSPICIOUS_NODES: Final = 3
SILENT_SHARE: Final = 0.1
"""A node of which so large a share did not answer has timed out in the round."""
ROUNDS_RUNNING: Final = 3
"""After so many suspicious rounds one after the other the nodes are judged all the same."""


@attrs.frozen
class Turnout:
    """How many of a node's challenges of a round were answered, rightly or wrongly, and how many not (or not in time) at the first try."""

    answered: int
    timeouts: int

    @property
    def has_timed_out(self) -> bool:
        """Whether so many went without an answer that it counts."""
        return self.timeouts > SILENT_SHARE * (self.answered + self.timeouts)


def part_order(secret: bytes, number: int) -> tuple[int, ...]:
    """The parts of round `number` in the order in which they are asked; `secret` has 32 bytes."""
    return _shuffled(secret, b"parts", number, PARTS)


def slots_of(part: int) -> range:
    """The slots of a part; all parts together have each slot once."""
    return range(part * SLOTS // PARTS, (part + 1) * SLOTS // PARTS)


def classes(count: int) -> int:
    """Into how many classes the replicas of a node that holds `count` are put: one of them is asked for in a round; 1..84."""
    return min(max(count // ASKED_IN_FULL, 1), CYCLE_ROUNDS)


def class_of_round(secret: bytes, number: int, count: int) -> int:
    """Which of `count` classes is asked for in round `number`: each one once in `count` rounds on end."""
    cycle, turn = divmod(number, count)
    return _shuffled(secret, b"classes", cycle, count)[turn]


def is_suspicious(turnouts: Iterable[Turnout], suspicious_before: int) -> bool:
    """Whether so many nodes did not answer in a round that nobody is to be blamed: more than a fifth of at least three.

    `turnouts` of vetted nodes, or of all while fewer than three are vetted; `suspicious_before`: how many rounds just before it were.
    """
    asked = [each for each in turnouts if each.answered + each.timeouts]
    if len(asked) < SUSPICIOUS_NODES or suspicious_before >= ROUNDS_RUNNING:
        return False
    return sum(each.has_timed_out for each in asked) > SUSPICIOUS_SHARE * len(asked)


def _shuffled(secret: bytes, what: bytes, number: int, count: int) -> tuple[int, ...]:
    """0..count-1 ordered by a keyed hash (BLAKE3) of each."""

    def key(index: int) -> bytes:
        return blake3(what + number.to_bytes(8, "big") + index.to_bytes(2, "big"), key=secret).digest()

    return tuple(sorted(range(count), key=key))
