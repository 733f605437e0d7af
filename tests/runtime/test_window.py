"""The window: what is in flight is bounded, in order, and given back whatever happens."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from fsn.runtime.window import Window


async def test_those_who_wait_come_in_the_order_of_asking(autojump_clock: trio.testing.MockClock) -> None:
    """A small one does not overtake a large one that waits before it."""
    window, order = Window(10), []

    async def take(name: str, size: int) -> None:
        async with window.holding(size):
            order.append(name)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for name, size in (("first", 6), ("large", 10), ("small", 1)):
            nursery.start_soon(take, name, size)
            await trio.testing.wait_all_tasks_blocked()
    assert order == ["first", "large", "small"]
    assert window.taken_bytes == 0


async def test_an_item_larger_than_the_window_goes_alone(autojump_clock: trio.testing.MockClock) -> None:
    """It waits until nothing is in flight, and nothing joins it."""
    window, together = Window(10), []

    async def take(size: int) -> None:
        async with window.holding(size):
            together.append(window.taken_bytes)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for size in (5, 50, 5):
            nursery.start_soon(take, size)
            await trio.testing.wait_all_tasks_blocked()
    assert together == [5, 50, 5]


async def test_nothing_takes_no_room_but_keeps_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    """Zero bytes fit into a full window."""
    window = Window(1)
    await window.acquire(1)
    await window.acquire(0)
    assert window.taken_bytes == 1


async def test_cancelled_while_waiting_it_has_taken_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """And those behind it move up at once."""
    window = Window(10)
    await window.acquire(8)
    got = []

    async def small() -> None:
        await window.acquire(2)
        got.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(_after_a_while, small)
            await window.acquire(9)
        cancelled_at = trio.current_time()
    assert got == [cancelled_at]
    assert window.taken_bytes == 10


async def _after_a_while(take: Callable[[], Awaitable[None]]) -> None:
    await trio.sleep(0.5)
    await take()


async def test_cancelled_in_the_moment_of_its_turn_it_gives_the_room_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Admitted and cancelled before it ran again: the room goes to the next."""
    window = Window(10)
    await window.acquire(10)
    got = []

    async def take(name: str, scope: trio.CancelScope) -> None:
        with scope:
            await window.acquire(10)
            got.append(name)

    scopes = [trio.CancelScope(), trio.CancelScope()]
    async with trio.open_nursery() as nursery:
        for name, scope in zip("ab", scopes, strict=True):
            nursery.start_soon(take, name, scope)
            await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        window.release(10)  # gives the turn to one who has been cancelled, and does not know it yet
    assert got == ["b"]
    assert window.taken_bytes == 10


async def test_leaving_a_block_by_an_error_or_a_cancellation_gives_back(autojump_clock: trio.testing.MockClock) -> None:
    """Whatever ends the block."""
    window = Window(10)
    with pytest.raises(OSError, match="x"):
        async with window.holding(4):
            raise OSError("x")
    with trio.move_on_after(1):
        async with window.holding(4):
            await trio.sleep_forever()
    assert window.taken_bytes == 0


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(
    limit=st.integers(1, 20),
    items=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 5), st.integers(0, 5), st.integers(0, 8)), min_size=1, max_size=12
    ),
)
def test_never_more_than_the_limit_and_nothing_in_the_end(limit: int, items: list[tuple[int, int, int, int]]) -> None:
    """Any mixture of sizes, arrivals, durations and cancellations stays within the window and ends with it empty."""

    async def story() -> None:
        window, held = Window(limit), dict[int, int]()

        async def take(number: int, size: int, arrival: int, duration: int, patience: int) -> None:
            await trio.sleep(arrival)
            with trio.move_on_after(patience):
                async with window.holding(size):
                    held[number] = size
                    assert window.taken_bytes <= limit or window.taken_bytes == size
                    try:
                        await trio.sleep(duration)
                    finally:
                        del held[number]

        async with trio.open_nursery() as nursery:
            for number, item in enumerate(items):
                nursery.start_soon(take, number, *item)
        assert (window.taken_bytes, held) == (0, {})
        with trio.fail_after(1):
            await window.acquire(limit)

    trio.run(story, clock=trio.testing.MockClock(autojump_threshold=0))
