"""Background workers: one step at a time, with back-off in place of a crash, and an end when failing goes on."""

import math
from collections.abc import Awaitable, Callable
from typing import Protocol

import attrs
import structlog
import trio

from fsn.core.errors import FsnError

__all__ = ["Bell", "Rest", "Worker", "backoff_seconds", "supervise"]

log = structlog.get_logger()

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
FAILURES_IN_A_ROW = 8
MOST_DOUBLINGS = 10


class Bell:
    """Wakes a resting worker early. Ringing twice before it wakes is ringing once; ringing while it works is not lost."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake whoever waits, or whoever waits next."""
        self._rung.set()

    async def wait(self) -> None:
        """Return once rung since the last `wait`."""
        await self._rung.wait()
        self._rung = trio.Event()


@attrs.frozen
class Rest:
    """There is nothing to do for `seconds`, or until `bell` rings."""

    seconds: float
    bell: Bell | None = None


class Worker(Protocol):
    """Something that works in the background, a step at a time."""

    @property
    def name(self) -> str:
        """For logs; an -ing noun."""

    async def step(self) -> Rest | None:
        """Do one bounded unit of work; None: there is more. Cancelled or failed in the middle, the next step makes good."""


async def supervise(worker: Worker, stopping: trio.Event, *, shortest_rest_seconds: float = 0.0) -> None:
    """Run `worker` until `stopping` is set, finishing the step under way.

    A step that raises is tried again after 1 s, then 2, 4 ... 60 s; the eighth failure in a row is raised on. Transient ones (the
    database is away) only lengthen the pause: ending the process would bring back nothing that it waits for.

    No rest is shorter than `shortest_rest_seconds`, unless its bell ends it: a simulation of months has no use for a look each second.
    """
    failures = lasting = 0
    while not stopping.is_set():
        try:
            rest = await worker.step()
            failures = lasting = 0
        except Exception as error:
            failures += 1
            lasting += not _is_transient(error)
            if lasting == FAILURES_IN_A_ROW:
                raise
            backoff = backoff_seconds(failures)
            log.warning(
                "worker_failed", worker=worker.name, failures=failures, retry_in_seconds=backoff, exc_info=error
            )
            rest = Rest(backoff)
        if rest is not None:
            await _rest(attrs.evolve(rest, seconds=max(rest.seconds, shortest_rest_seconds)), stopping)
        else:
            await trio.lowlevel.checkpoint()


def backoff_seconds(failures: int) -> float:
    """The pause after so many failures in a row: 1, 2, 4 ... 60."""
    return min(math.ldexp(FIRST_BACKOFF_SECONDS, min(failures - 1, MOST_DOUBLINGS)), LONGEST_BACKOFF_SECONDS)


def _is_transient(error: Exception) -> bool:
    return isinstance(error, FsnError) and error.transient


async def _rest(rest: Rest, stopping: trio.Event) -> None:
    with trio.move_on_after(rest.seconds):
        if rest.bell is None:
            await stopping.wait()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after, stopping.wait, nursery.cancel_scope)
            await rest.bell.wait()
            nursery.cancel_scope.cancel()


async def _cancel_after(wait: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()
