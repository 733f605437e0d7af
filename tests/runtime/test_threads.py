"""Work in threads is counted, and can be kept out of threads."""

import threading

import trio

from fsn.runtime.threads import run_in_thread, threads_at_work, working_inline


async def test_work_runs_in_a_thread_and_is_counted() -> None:
    """While the thread works there is one at work; then there is none, whatever came of it."""
    release = threading.Event()
    found: list[int] = []

    async def look() -> None:
        while not threads_at_work():
            await trio.lowlevel.checkpoint()
        found.append(threads_at_work())
        release.set()

    def work(number: int) -> tuple[int, str]:
        release.wait(30)
        return number, threading.current_thread().name

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        number, name = await run_in_thread(work, 7)
    assert (number, found) == (7, [1])
    assert name != threading.current_thread().name
    assert threads_at_work() == 0


async def test_inline_there_is_no_thread() -> None:
    """Inside `working_inline` the work runs in the caller's thread; what it raises flies on."""
    with working_inline():
        assert await run_in_thread(threading.get_ident) == threading.get_ident()
    assert await run_in_thread(threading.get_ident) != threading.get_ident()
