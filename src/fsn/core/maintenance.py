"""Declared maintenance: how long a node may be away without its silence counting against it. Times are in seconds, of one clock."""

from collections.abc import Iterable
from typing import Final

__all__ = ["BUDGET_HOURS", "LONGEST_HOURS", "WINDOW_DAYS", "is_same_end", "seconds_left"]

LONGEST_HOURS: Final = 72.0
"""At a time: a weekend, and the part that comes on Monday."""
WINDOW_DAYS: Final = 30
BUDGET_HOURS: Final = 72.0
"""In any `WINDOW_DAYS`: a tenth. Else a node that is never there could declare itself away for ever, and its replicas would count."""

_SAME_SECONDS: Final = 60.0


def seconds_left(spans: Iterable[tuple[float, float]], now: float) -> float:
    """How much maintenance a node may still declare at `now`: what `BUDGET_HOURS` leaves of the window that ends now.

    `spans` are its maintenances (begin, end), in any order, not overlapping; one that lasts ends now.
    """
    begin = now - WINDOW_DAYS * 86_400
    used = sum(max(0.0, min(end, now) - max(start, begin)) for start, end in spans)
    return max(0.0, BUDGET_HOURS * 3600 - used)


def is_same_end(one: float | None, other: float | None) -> bool:
    """Whether two ends are the same one, told at different times: as spans they pass through clocks that differ, and are rounded up."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _SAME_SECONDS
