"""Virtual time: trio's clock that jumps to the next deadline when every task waits and nothing real is under way."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import trio
from trio import _core

from fsn.core.errors import ConfigError
from fsn.runtime.threads import threads_at_work, working_inline

__all__ = ["EPOCH", "VirtualClock", "current_clock", "deterministic_scheduling"]

EPOCH: Final = datetime(2030, 1, 1, tzinfo=UTC)
"""What the clocks on the walls show when a simulation begins."""
_LOOK_SECONDS: Final = 0.001
_FOREVER: Final = 3600.0


class VirtualClock(trio.abc.Clock):
    """Begins at 0 and stands still while anything happens.

    trio asks a clock how long to sleep only when no task can run. That is the moment to jump, if nothing real is under way that could
    wake one: work in threads (`runtime.threads`), and what `hold_while` was told of. Sockets are not looked at: who waits for one from
    outside of this process waits for ever, while time flies.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._is_busy: list[Callable[[], bool]] = []
        self.jumps = 0
        """How often time has jumped."""

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """Seconds since the beginning."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """How long trio may sleep, in real seconds: not at all after a jump, a moment while something real is under way."""
        if deadline <= self._now:
            return 0.0
        if threads_at_work() or any(is_busy() for is_busy in self._is_busy):
            return _LOOK_SECONDS
        if math.isinf(deadline):
            return _FOREVER  # a deadlock, but for signals
        self._now = deadline
        self.jumps += 1
        return 0.0

    @contextmanager
    def hold_while(self, is_busy: Callable[[], bool]) -> Iterator[None]:
        """In this block time stands still as long as `is_busy`; it is asked whenever time would jump."""
        self._is_busy.append(is_busy)
        try:
            yield
        finally:
            self._is_busy.remove(is_busy)

    def wall(self, skew_seconds: Callable[[], float] = lambda: 0.0) -> Callable[[], datetime]:
        """A clock on the wall, so many seconds wrong."""
        return lambda: EPOCH + timedelta(seconds=self._now + skew_seconds())


def current_clock() -> VirtualClock:
    """The clock of this trio run. Raises ConfigError when it is not a virtual one."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, VirtualClock):
        raise ConfigError(
            "a simulated network lives in virtual time: run the program with fsn.simulate(main) in place of trio.run(main);"
            f" found the clock {type(clock).__name__}"
        )
    return clock


@contextmanager
def deterministic_scheduling(seed: int) -> Iterator[None]:
    """In this block trio runs tasks in an order that depends on `seed` only, and nothing is done in threads.

    trio shuffles the tasks of each turn, so that nobody comes to rely on an order. Its own hook for hypothesis makes the shuffle
    repeatable; the names are private, and trio's version is pinned.
    """
    run, chance = _core._run, _core._run._r
    before, state = run._ALLOW_DETERMINISTIC_SCHEDULING, chance.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    chance.seed(seed)
    try:
        with working_inline():
            yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        chance.setstate(state)
