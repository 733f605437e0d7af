"""What tests in a lab share: the lab, an end to each hang, and a reason for skipping where there can be no lab."""

import faulthandler
import functools
import inspect
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import trio

from scenarios.netlab.entering import is_inside, why_not
from scenarios.netlab.lab import Lab, open_lab

__all__ = ["end_of_hangs", "lab", "prepare"]

SEED = int(os.environ.get("NETLAB_SEED", "1"))
STORY_SECONDS = 420.0
"""A story takes 10 to 90 s alone on a machine."""
HANG_SECONDS = 600.0

_real_stderr = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)


def prepare(items: list[pytest.Item]) -> None:
    """For `pytest_collection_modifyitems`: all tests marked `netns` get a deadline, or are skipped with the reason."""
    reason = (
        None
        if is_inside()
        else why_not() or "start it with `make scenarios`, or `python -m scenarios.netlab pytest ...`"
    )
    for item in items:
        if item.get_closest_marker("netns") is None or not isinstance(item, pytest.Function):
            continue
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj)


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*arguments: object, **fixtures: object) -> None:
        with trio.fail_after(STORY_SECONDS):
            await test(*arguments, **fixtures)

    return run


@pytest.fixture(autouse=True)
def end_of_hangs() -> Iterator[None]:
    """The last resort, should a story's own deadline fail: print all stacks and end the process, and with it everything in the lab."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=_real_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """An empty lab with the seed NETLAB_SEED (1 if not given)."""
    print(f"NETLAB_SEED={SEED}")
    async with open_lab(SEED) as lab:
        yield lab
