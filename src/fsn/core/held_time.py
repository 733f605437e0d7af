"""Agreed byte-hours: how many bytes a node has held for how long, from what it and the coordinator agreed on now and then."""

from typing import Final

import attrs

__all__ = ["LONGEST_GAP_SECONDS", "Agreement", "HeldDay", "held_days"]

_DAY_SECONDS: Final = 86_400
LONGEST_GAP_SECONDS: Final = 3 * _DAY_SECONDS
"""Between two agreements further apart nothing counts: nobody looked."""


@attrs.frozen
class Agreement:
    """At this moment, in whole seconds since 1970 (UTC), both sides had replicas of so many bytes, alike."""

    at: int
    size_bytes: int


@attrs.frozen
class HeldDay:
    """Of one day (days since 1970-01-01, UTC): bytes times seconds, and how many seconds of it were looked at."""

    day: int
    byte_seconds: int
    seconds: int


def held_days(earlier: Agreement, later: Agreement) -> tuple[HeldDay, ...]:
    """What was held between two agreements, day by day: the bytes go from the one to the other in a straight line.

    Exact, in whole numbers: the days add up to floor((earlier + later) * seconds / 2). Nothing when the later one is no later (a clock was
    put back) or more than LONGEST_GAP_SECONDS later.
    """
    whole = later.at - earlier.at
    if not 0 < whole <= LONGEST_GAP_SECONDS:
        return ()
    days, at = [], earlier.at
    while at < later.at:
        day = at // _DAY_SECONDS
        until = min(later.at, (day + 1) * _DAY_SECONDS)
        held = _held(earlier, later, until - earlier.at) - _held(earlier, later, at - earlier.at)
        days.append(HeldDay(day, held, until - at))
        at = until
    return tuple(days)


def _held(earlier: Agreement, later: Agreement, seconds: int) -> int:
    """Byte-seconds in the first `seconds`: the area below the line, rounded down. Never falls as `seconds` grows."""
    whole, grown = later.at - earlier.at, later.size_bytes - earlier.size_bytes
    return (2 * earlier.size_bytes * seconds * whole + grown * seconds * seconds) // (2 * whole)
