"""How long to wait for an answer before somebody else is asked as well: a multiple of what answers have taken lately."""

from collections import deque
from statistics import median
from typing import Final

import attrs

__all__ = ["FEWEST", "REMEMBERED", "Patience"]

REMEMBERED: Final = 64
FEWEST: Final = 8
_EVERY: Final = 16


@attrs.define
class Patience:
    """Learns from answers; `seconds` is `factor` times the median of the last 64 of them, never below `least_seconds`.

    Asking a second node only when the first is late costs few requests and cuts the slowest answers: Dean and Barroso, "The Tail at
    Scale" (2013), there after the 95th percentile. A multiple of the median is used because one slow node of three would move that
    percentile to itself. Until eight answers are known it is ten times `least_seconds`.
    """

    factor: float
    least_seconds: float
    seconds: float = attrs.field(init=False)
    _lately: deque[float] = attrs.field(init=False, factory=lambda: deque(maxlen=REMEMBERED))
    _count: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.seconds = 10 * self.least_seconds

    def note(self, seconds: float) -> None:
        """An answer took so long."""
        self._lately.append(seconds)
        self._count += 1
        if self._count == FEWEST or self._count % _EVERY == 0:
            self.seconds = max(self.least_seconds, self.factor * median(self._lately))
