"""One error out of a nursery's group: callers act on what went wrong, not on how many tasks it went wrong in."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from fsn.core.errors import FsnError

__all__ = ["sole_error"]


@contextmanager
def sole_error() -> Iterator[None]:
    """Around a nursery: a group of FsnErrors (beside cancellations) becomes the first of them; any other group stays what it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        ours = [error for error in errors if isinstance(error, FsnError)]
        if ours and all(isinstance(error, FsnError | trio.Cancelled) for error in errors):
            raise ours[0] from None
        raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
