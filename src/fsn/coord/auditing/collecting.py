"""What the challenges of some parts came to, on its way into the catalogue."""

from collections import defaultdict

from fsn.coord.auditing.asking import Asked
from fsn.coord.database.proof_writing import Failure, Retry, Sums, Written
from fsn.core.audit import MOST_TRIES, UNANSWERED
from fsn.core.ids import NodeId

__all__ = ["Collected"]


class Collected:
    """Endings, as they are written."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._sums: dict[NodeId, Sums] = defaultdict(Sums)
        self._failures: list[Failure] = []
        self._retries: list[Retry] = []

    def add(self, asked: Asked, *, tries: int) -> None:
        """`tries`: this one included. A first time-out or refusal is no end: it is asked again; a fourth is one."""
        sums, outcome = self._sums[asked.replica.node], asked.outcome
        if outcome in UNANSWERED and tries < MOST_TRIES:
            sums.timeouts += 1
            self._retries.append(_retry(asked, self._number))
        elif outcome == "offline":
            sums.asked, sums.offline = sums.asked + 1, sums.offline + 1
        elif outcome == "passed":
            sums.note_passed(round(asked.seconds * 1000))
        elif outcome is not None:
            self._fail(sums, asked, tries)

    def _fail(self, sums: Sums, asked: Asked, tries: int) -> None:
        sums.asked += 1
        kind = "missed" if asked.outcome == "timeout" else str(asked.outcome)
        if kind == "missed":
            sums.missed += 1
        elif kind == "error":
            sums.errors += 1
        else:
            sums.failed += 1
        challenge = asked.challenge
        self._failures.append(
            Failure(challenge.challenge, asked.replica, kind, challenge.seed, challenge.difficulty, tries, asked.detail)
        )

    def written(self) -> Written:
        """All that there is to write."""
        return Written(dict(self._sums), self._failures, self._retries)


def _retry(asked: Asked, number: int) -> Retry:
    challenge = asked.challenge
    return Retry(challenge.challenge, number, asked.replica, challenge.seed, challenge.difficulty, 1)
