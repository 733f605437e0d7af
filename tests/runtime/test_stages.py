"""Stages and signals: asked to stop, given a grace, cancelled after it."""

import signal

import pytest
import trio
import trio.testing

from fsn.runtime.stages import open_signals, open_stage


async def test_children_may_finish_within_the_grace(autojump_clock: trio.testing.MockClock) -> None:
    """A child that needs less than the grace after the body's end is waited for."""
    finished = []

    async def child() -> None:
        await trio.sleep(9)
        finished.append(trio.current_time())

    began = trio.current_time()
    async with open_stage("s", grace_seconds=10) as nursery:
        nursery.start_soon(child)
    assert finished == [began + 9]


async def test_children_are_cancelled_after_the_grace(autojump_clock: trio.testing.MockClock) -> None:
    """The grace counts from the end of the body, not from its beginning; then the stage ends without an error."""
    began = trio.current_time()
    async with open_stage("s", grace_seconds=10) as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep(100)
    assert trio.current_time() == began + 110


async def test_a_stage_without_children_ends_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody waits for a grace that nobody needs."""
    began = trio.current_time()
    async with open_stage("s", grace_seconds=10):
        pass
    assert trio.current_time() == began


async def test_stop_is_asked_not_thrown(autojump_clock: trio.testing.MockClock) -> None:
    """A child that holds the stopping event ends its work by itself; it is not cancelled."""
    told: list[str] = []
    stopping = trio.Event()

    async def child() -> None:
        await stopping.wait()
        await trio.sleep(1)
        told.append("ended by itself")

    async with open_stage("s", grace_seconds=10) as nursery:
        nursery.start_soon(child)
        await trio.testing.wait_all_tasks_blocked()
        stopping.set()
    assert told == ["ended by itself"]


async def test_an_error_in_the_body_gives_no_grace(autojump_clock: trio.testing.MockClock) -> None:
    """What failed does not wait for those who would never be told to stop."""
    began = trio.current_time()
    with pytest.RaisesGroup(OSError):
        async with open_stage("s", grace_seconds=10) as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise OSError
    assert trio.current_time() == began


async def test_a_cancellation_from_outside_gives_no_grace(autojump_clock: trio.testing.MockClock) -> None:
    """Who cancels the whole stage means it."""
    began = trio.current_time()
    with trio.move_on_after(3):
        async with open_stage("s", grace_seconds=10) as nursery:
            nursery.start_soon(trio.sleep_forever)
    assert trio.current_time() == began + 3


async def test_stages_inside_each_other_stop_from_the_inside(autojump_clock: trio.testing.MockClock) -> None:
    """The inner stage's grace is over before the outer one's begins."""
    ends: list[tuple[str, float]] = []

    async def child(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append((name, trio.current_time() - began))

    began = trio.current_time()
    async with open_stage("outer", grace_seconds=5) as outer:
        outer.start_soon(child, "outer")
        async with open_stage("inner", grace_seconds=2) as inner:
            inner.start_soon(child, "inner")
            await trio.sleep(1)
    assert ends == [("inner", 3), ("outer", 8)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_asks(number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C set the event; the body goes on until it has finished."""
    with trio.fail_after(5):
        async with open_signals() as stopping:
            assert not stopping.is_set()
            signal.raise_signal(number)
            await stopping.wait()
            await trio.testing.wait_all_tasks_blocked()


async def test_the_second_signal_cancels() -> None:
    """Whoever signals twice does not want to wait."""
    reached = False
    with trio.fail_after(5):
        async with open_signals() as stopping:
            signal.raise_signal(signal.SIGTERM)
            await stopping.wait()
            signal.raise_signal(signal.SIGINT)
            await trio.Event().wait()
            reached = True
    assert stopping.is_set()
    assert not reached


async def test_afterwards_signals_are_as_before() -> None:
    """The handlers stay no longer than the block."""
    before = signal.getsignal(signal.SIGTERM)
    with trio.fail_after(5):
        async with open_signals():
            assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
