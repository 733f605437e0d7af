"""When a request is sent again: a bounded number of times, with growing, jittered pauses."""

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs
import trio

from fsn.core.errors import FsnError

__all__ = ["Retrying"]

T = TypeVar("T")


@attrs.frozen
class Retrying:
    """How often and how fast to try again after a transient error (`FsnError.transient`).

    `attempts` counts the first try as well. The pause doubles from `first_seconds` up to `longest_seconds`, with half of it
    drawn at random, so that many clients of a server that comes back do not arrive in one instant. A server's Retry-After is
    honoured up to `longest_seconds`.
    """

    attempts: int = 5
    first_seconds: float = 0.25
    longest_seconds: float = 10.0
    rng: random.Random = attrs.field(factory=random.Random, repr=False, eq=False)

    def pause_seconds(self, failures: int, error: FsnError) -> float:
        """The pause after `failures` (from 1) failures in a row, the last of them `error`."""
        wanted = error.facts.get("retry_after_seconds")
        if isinstance(wanted, int | float):
            return min(float(wanted), self.longest_seconds)
        longest = min(self.first_seconds * 2.0 ** (failures - 1), self.longest_seconds)
        return longest * (0.5 + self.rng.random() / 2)

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of `attempt()`, tried again while it raises transient errors; the last error when the attempts are used up."""
        for failures in range(1, self.attempts):
            try:
                return await attempt()
            except FsnError as error:
                if not error.transient:
                    raise
                pause = self.pause_seconds(failures, error)
            await trio.sleep(pause)
        return await attempt()
