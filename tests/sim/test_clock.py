"""Virtual time jumps when everybody waits, and stands still while something real happens."""

import threading

import pytest
import trio

from fsn.core.errors import ConfigError
from fsn.runtime.threads import run_in_thread
from fsn.sim import Network, simulate
from fsn.sim.clock import EPOCH, VirtualClock, deterministic_scheduling


async def test_a_month_takes_no_time(virtual_clock: VirtualClock) -> None:
    """A long sleep is a jump, straight to its end."""
    assert trio.current_time() == 0
    await trio.sleep(30 * 86400)
    assert trio.current_time() == 30 * 86400
    assert virtual_clock.jumps == 1


async def test_time_stands_still_while_a_thread_works(virtual_clock: VirtualClock) -> None:
    """A deadline does not pass while a thread is busy, however long that takes; nor does it afterwards by itself."""
    release = threading.Timer(0.2, lambda: None)
    release.start()
    with trio.move_on_after(1) as scope:
        await run_in_thread(release.join)
    assert not scope.cancelled_caught
    assert trio.current_time() == 0


async def test_time_can_be_held(virtual_clock: VirtualClock) -> None:
    """As long as somebody says that he is busy, nothing jumps."""
    asked = iter([True, True, True, False])
    with virtual_clock.hold_while(lambda: next(asked)):
        await trio.sleep(5)
    assert virtual_clock.jumps == 1
    assert next(asked, None) is None


async def test_wall_clocks_may_be_wrong(virtual_clock: VirtualClock) -> None:
    """They follow virtual time, each by its own skew."""
    right, wrong = virtual_clock.wall(), virtual_clock.wall(lambda: -60.0)
    await trio.sleep(3600)
    assert (right() - EPOCH).total_seconds() == 3600
    assert (wrong() - EPOCH).total_seconds() == 3540


def test_tasks_run_in_an_order_that_the_seed_decides() -> None:
    """The same seed gives the same order; among ten seeds there are several orders."""

    async def main(seed: int) -> tuple[int, ...]:
        order: list[int] = []

        async def work(number: int) -> None:
            await trio.sleep(1)
            order.append(number)

        with deterministic_scheduling(seed):
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(work, number)
        return tuple(order)

    orders = [simulate(main, seed) for seed in range(10)]
    assert orders == [simulate(main, seed) for seed in range(10)]
    assert len(set(orders)) > 3


async def test_a_network_needs_virtual_time() -> None:
    """Under another clock it says what to do."""
    with pytest.raises(ConfigError, match="run the program with"):
        async with Network(nodes=0):
            pass
