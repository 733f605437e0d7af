"""Supervision: steps, rests, back-off, and when it gives up."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from fsn.core.errors import Unavailable
from fsn.runtime.supervise import Bell, Rest, backoff_seconds, supervise


class Script:
    """A worker that does in each step what the script says, and notes when."""

    name = "scripting"

    def __init__(self, *steps: Callable[[], Rest | None]) -> None:
        self.steps = list(steps)
        self.began: list[float] = []
        self.stopping = trio.Event()

    async def step(self) -> Rest | None:
        self.began.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if not self.steps:
            self.stopping.set()
            return None
        return self.steps.pop(0)()

    @property
    def pauses(self) -> list[float]:
        """Seconds between the beginnings of steps."""
        return [later - earlier for earlier, later in zip(self.began, self.began[1:], strict=False)]


def fails() -> Rest | None:
    """A step that goes wrong."""
    raise OSError("the disk is on fire")


def is_away() -> Rest | None:
    """A step that meets an outage."""
    raise Unavailable("the database is away")


def works() -> Rest | None:
    """A step after which there is more."""
    return None


def rests() -> Rest | None:
    """A step after which there is nothing to do for a while."""
    return Rest(5)


async def test_steps_follow_each_other_and_rests_last(autojump_clock: trio.testing.MockClock) -> None:
    """None means more work at once, Rest so many seconds."""
    worker = Script(works, rests, works)
    await supervise(worker, worker.stopping)
    assert worker.pauses == [0, 5, 0]


async def test_failures_are_tried_again_after_longer_and_longer(autojump_clock: trio.testing.MockClock) -> None:
    """1, 2, 4 ... 60 seconds; the eighth failure in a row is the supervisor's own."""
    worker = Script(*[fails] * 8)
    with pytest.raises(OSError, match="on fire"):
        await supervise(worker, worker.stopping)
    assert worker.pauses == [1, 2, 4, 8, 16, 32, 60]


async def test_an_outage_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """However long the database is away the worker goes on trying, once a minute; failures of other kinds still add up."""
    worker = Script(*[is_away] * 20, *[fails] * 7, is_away, fails)
    with pytest.raises(OSError, match="on fire"):
        await supervise(worker, worker.stopping)
    assert worker.pauses == [1, 2, 4, 8, 16, 32, *[60] * 22]


async def test_an_endless_outage_does_not_overflow() -> None:
    """After a month of failures the pause is what it was after an hour."""
    assert backoff_seconds(50_000) == 60


async def test_a_success_forgives_all_failures(autojump_clock: trio.testing.MockClock) -> None:
    """Only failures in a row count, and back-off begins anew."""
    worker = Script(*[fails] * 7, works, *[fails] * 7)
    await supervise(worker, worker.stopping)
    assert worker.pauses == [1, 2, 4, 8, 16, 32, 60, 0, 1, 2, 4, 8, 16, 32, 60]


async def test_a_step_under_way_is_finished_when_stopping(autojump_clock: trio.testing.MockClock) -> None:
    """Stopping waits for the step, and begins no other."""
    finished = []

    class Slow:
        name = "slow"

        async def step(self) -> Rest | None:
            await trio.sleep(10)
            finished.append(trio.current_time())
            return None

    stopping, began = trio.Event(), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise, Slow(), stopping)
        await trio.sleep(3)
        stopping.set()
    assert finished == [began + 10]


@pytest.mark.parametrize("step", [lambda: Rest(1000), fails], ids=["rest", "back-off"])
async def test_stopping_does_not_wait_for_a_rest(
    autojump_clock: trio.testing.MockClock, step: Callable[[], Rest | None]
) -> None:
    """Neither a rest nor a back-off delays the end."""
    worker, began = Script(step, works), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise, worker, worker.stopping)
        await trio.sleep(0.5)
        worker.stopping.set()
    assert trio.current_time() == began + 0.5
    assert len(worker.began) == 1


async def test_asked_to_stop_before_it_began_it_does_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """No step is begun."""
    worker = Script(works)
    worker.stopping.set()
    await supervise(worker, worker.stopping)
    assert worker.began == []


async def test_a_worker_that_always_has_more_can_be_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """Steps without a wait of their own do not starve the rest of the program."""

    class Eager:
        name = "eager"

        async def step(self) -> Rest | None:
            return None

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise, Eager(), trio.Event())
            await trio.lowlevel.checkpoint()
            scope.cancel()
    assert scope.cancelled_caught


async def test_a_bell_ends_a_rest(autojump_clock: trio.testing.MockClock) -> None:
    """Rung in the middle, the rest is over at once; the next one lasts again."""
    bell = Bell()
    worker, began = Script(lambda: Rest(100, bell), lambda: Rest(100, bell)), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise, worker, worker.stopping)
        await trio.sleep(7)
        bell.ring()
        bell.ring()
    assert [at - began for at in worker.began] == [0, 7, 107]


async def test_a_bell_rung_during_a_step_is_not_lost(autojump_clock: trio.testing.MockClock) -> None:
    """What came up while the worker worked is done right after."""
    bell = Bell()

    def rung_meanwhile() -> Rest:
        bell.ring()
        return Rest(100, bell)

    worker = Script(rung_meanwhile)
    await supervise(worker, worker.stopping)
    assert worker.pauses == [0]


async def test_a_cancelled_wait_leaves_the_bell_rung(autojump_clock: trio.testing.MockClock) -> None:
    """Ringing is taken by a wait that returns, not by one that was cancelled."""
    bell = Bell()
    bell.ring()
    with trio.CancelScope() as scope:
        scope.cancel()
        await bell.wait()
    with trio.fail_after(1):
        await bell.wait()
