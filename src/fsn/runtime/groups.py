"""One error out of a nursery's group: callers act on what went wrong, not on how many tasks it went wrong in."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from fsn.core.errors import FsnError

__all__ = ["leaves_of", "sole_error"]


@contextmanager
def sole_error() -> Iterator[None]:
    """Around nurseries that are no business of the caller's: what was raised inside comes out as it was raised.

    A group of one error becomes that error; a group of FsnErrors (beside cancellations) the first of them; any other group stays.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error = _sole(list(leaves_of(group)))
        if error is None:
            raise
        raise error from error.__cause__


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group of groups, in order; an error that is no group is its own only leaf."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    else:
        yield error


def _sole(errors: list[BaseException]) -> BaseException | None:
    if len(errors) == 1:
        return errors[0]
    if all(isinstance(error, FsnError | trio.Cancelled) for error in errors):
        return next((error for error in errors if isinstance(error, FsnError)), None)
    return None
