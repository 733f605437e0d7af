"""Clocks: what time it is, truly and virtually."""

from datetime import UTC, datetime, timedelta

import trio
import trio.testing

from fsn.runtime.clock import system_clock, virtual_clock


def test_the_systems_time_is_in_utc() -> None:
    """A time of day always says its zone."""
    before = datetime.now(UTC)
    now = system_clock()
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


async def test_virtual_time_runs_with_trios(autojump_clock: trio.testing.MockClock) -> None:
    """An hour of virtual sleep is an hour on the clock."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    clock = virtual_clock(start)
    before = clock()
    await trio.sleep(3600)
    assert clock() - before == timedelta(hours=1)
    assert before == start + timedelta(seconds=trio.current_time() - 3600)
