"""Driving psycopg's generators on trio: waiting until a socket is ready, without starving other tasks."""

import select
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio
from psycopg import errors
from psycopg.abc import PQGen, PQGenConn
from psycopg.waiting import Ready, Wait

__all__ = ["drive", "drive_connecting"]

T = TypeVar("T")

BUSY_SECONDS: Final = 0.005
"""The longest time a chain of queries that never really wait may keep trio's loop; psycopg's own MAX_BUSY_TIME."""

_last_turn = 0.0
_READ: Final = int(Wait.R)
_WRITE: Final = int(Wait.W)


async def drive(gen: PQGen[T], fd: int, *, started: bool = False) -> T:
    """Run a generator that works on the connected socket `fd`; its result.

    Cancelling leaves the generator where it waits: it may be driven on with `started=True`.
    """
    try:
        wanted = gen.send(Ready.NONE) if started else next(gen)
        while True:
            wanted = gen.send(await _wait_ready(fd, wanted))
    except StopIteration as end:
        await _give_turn()  # e.g. AsyncCopy.write() never waits for anything
        return end.value  # type: ignore[no-any-return]


async def drive_connecting(gen: PQGenConn[T]) -> T:
    """Run a generator that says for each wait which file descriptor it means (connecting, cancel requests)."""
    try:
        fd, wanted = next(gen)
        while True:
            fd, wanted = gen.send(await _wait_ready(fd, wanted))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _wait_ready(fd: int, wanted: int) -> int:
    """Wait until `fd` is ready for `wanted` (flags of `Wait`); which of them it is ready for (flags of `Ready`)."""
    global _last_turn
    if wanted & _WRITE:  # nearly always possible at once: one system call instead of a sleep in epoll
        await _give_turn()
        if ready := _poll(fd, wanted):
            return ready
    try:
        return await _wait_events(fd, wanted)
    except (trio.ClosedResourceError, OSError) as error:
        raise errors.OperationalError("connection socket closed") from error
    finally:
        _last_turn = time.monotonic()


async def _wait_events(fd: int, wanted: int) -> int:
    if wanted == _READ:
        await trio.lowlevel.wait_readable(fd)
        return wanted
    if wanted == _WRITE:
        await trio.lowlevel.wait_writable(fd)
        return wanted
    await _wait_either(fd)
    return _poll(fd, wanted)


async def _wait_either(fd: int) -> None:
    """Return once `fd` is readable or writable, whichever comes first."""
    try:
        async with trio.open_nursery() as nursery:

            async def wait_one(wait: Callable[[int], Awaitable[None]]) -> None:
                await wait(fd)
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_one, trio.lowlevel.wait_readable)
            nursery.start_soon(wait_one, trio.lowlevel.wait_writable)
    except BaseExceptionGroup as group:
        # psycopg knows single exceptions only: a cancelled nursery raises one Cancelled here, not a group of them
        await trio.lowlevel.checkpoint_if_cancelled()
        raise errors.OperationalError("connection socket closed") from group


async def _give_turn() -> None:
    global _last_turn
    if time.monotonic() - _last_turn > BUSY_SECONDS:
        await trio.lowlevel.cancel_shielded_checkpoint()
        _last_turn = time.monotonic()


def _poll(fd: int, wanted: int) -> int:
    poll = select.poll()
    poll.register(fd, (select.POLLIN if wanted & _READ else 0) | (select.POLLOUT if wanted & _WRITE else 0))
    events = poll.poll(0)
    if not events:
        return 0
    mask = events[0][1]
    if mask & ~(select.POLLIN | select.POLLOUT):  # an error or a hang-up: libpq finds out which
        return wanted
    return (Ready.R if mask & select.POLLIN else 0) | (Ready.W if mask & select.POLLOUT else 0)
