"""What time it is, as an argument: the system's clock in a daemon, a virtual one in a test."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import trio

__all__ = ["Clock", "system_clock", "virtual_clock"]

Clock = Callable[[], datetime]
"""Returns the time of day, always in UTC. For durations and deadlines use `trio.current_time()`, which never jumps."""


def system_clock() -> datetime:
    """The machine's own idea of the time; it may jump."""
    return datetime.now(UTC)


def virtual_clock(start: datetime) -> Clock:
    """A clock that shows `start` at trio's time 0 and runs with trio's (mock) clock from there."""
    return lambda: start + timedelta(seconds=trio.current_time())
