"""Work that blocks, in a thread; or right here, in a simulation, where nothing may depend on how fast a thread is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, TypeVarTuple

import trio
from trio.lowlevel import RunVar

__all__ = ["run_in_thread", "threads_at_work", "working_inline"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_at_work: RunVar[int] = RunVar("threads at work", 0)
_is_inline: RunVar[bool] = RunVar("no threads", False)


async def run_in_thread(work: Callable[[*Ts], T], *arguments: *Ts, limiter: trio.CapacityLimiter | None = None) -> T:
    """`work(*arguments)` in a thread, as `trio.to_thread.run_sync` does it. The thread cannot be cancelled: who is cancelled waits for it.

    Inside `working_inline` it runs in place, after a checkpoint.
    """
    if _is_inline.get():
        await trio.lowlevel.checkpoint()
        return work(*arguments)
    _at_work.set(_at_work.get() + 1)
    try:
        return await trio.to_thread.run_sync(work, *arguments, limiter=limiter)
    finally:
        _at_work.set(_at_work.get() - 1)


def threads_at_work() -> int:
    """How many calls of `run_in_thread` are under way in this trio run: a virtual clock stands still as long as there are any."""
    return _at_work.get()


@contextmanager
def working_inline() -> Iterator[None]:
    """In this block (of the whole trio run, not of the task only) `run_in_thread` uses no threads."""
    before = _is_inline.get()
    _is_inline.set(True)
    try:
        yield
    finally:
        _is_inline.set(before)
