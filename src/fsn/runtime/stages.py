"""Stages of a daemon: nurseries that are asked to stop, one inside the other, and given a grace to finish."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

__all__ = ["open_signals", "open_stage"]

log = structlog.get_logger()


@asynccontextmanager
async def open_stage(name: str, *, grace_seconds: float) -> AsyncIterator[trio.Nursery]:
    """A nursery whose children get a deadline of now + grace once the body ends.

    Children are asked to stop (by an event they hold) at the end of the body, and cancelled only when the grace is over. An exception
    in the body, or a cancellation from outside, cancels them at once.
    """
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.deadline = trio.current_time() + grace_seconds
        if nursery.child_tasks:
            log.debug("stage_stopping", stage=name, tasks=len(nursery.child_tasks), grace_seconds=grace_seconds)


@asynccontextmanager
async def open_signals() -> AsyncIterator[trio.Event]:
    """An event that SIGTERM or SIGINT sets: a polite request to stop. A second signal cancels the body."""
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_signals, stopping, nursery.cancel_scope)
        yield stopping
        nursery.cancel_scope.cancel()


async def _watch_signals(
    stopping: trio.Event, everything: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started()
        async for number in received:
            if stopping.is_set():
                log.warning("stop_forced", signal=signal.Signals(number).name)
                everything.cancel()
            else:
                log.info("stop_asked", signal=signal.Signals(number).name)
                stopping.set()
