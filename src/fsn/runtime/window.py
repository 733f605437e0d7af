"""A bound on what is in flight, counted in bytes, first come first served."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["Window"]


class Window:
    """At most `limit_bytes` in flight. One item larger than the whole window goes alone rather than never."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    async def acquire(self, size_bytes: int) -> None:
        """Wait for room, in the order of asking. Cancelled, it has taken nothing. No checkpoint where there is room at once."""
        if not self._waiting and self._fits(size_bytes):
            self.taken_bytes += size_bytes
            return
        turn = (size_bytes, trio.Event())
        self._waiting.append(turn)
        try:
            await turn[1].wait()
        except trio.Cancelled:  # not swallowed: our place is given back, the cancellation goes on
            if turn[1].is_set():
                self.release(size_bytes)
            else:
                self._waiting.remove(turn)
                self._admit()
            raise

    def release(self, size_bytes: int) -> None:
        """Give back what `acquire` took."""
        self.taken_bytes -= size_bytes
        self._admit()

    @asynccontextmanager
    async def holding(self, size_bytes: int) -> AsyncIterator[None]:
        """Hold `size_bytes` of the window for the length of the block."""
        await self.acquire(size_bytes)
        try:
            yield
        finally:
            self.release(size_bytes)

    def _fits(self, size_bytes: int) -> bool:
        return self.taken_bytes == 0 or self.taken_bytes + size_bytes <= self.limit_bytes

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size_bytes, turn = self._waiting.popleft()
            self.taken_bytes += size_bytes
            turn.set()
