"""A context manager around nurseries that are no business of the caller's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["sole_error"]


@asynccontextmanager
async def sole_error() -> AsyncIterator[None]:
    """What the body raised, as it raised it: taken out of the exception groups of the nurseries inside, when it is the only one."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from error.__cause__
