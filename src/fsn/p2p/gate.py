"""Who is at work for peers: requests under way are counted, so that a daemon that stops can let them end and take no more."""

from types import TracebackType

import trio

from fsn.p2p.wire.messages import Refusal, RefusalCode

__all__ = ["Gate"]

RETRY_AFTER_MS = 5000
"""A restart takes about so long."""


class Gate:
    """Open, it counts who is inside; closed, it lets nobody in any more."""

    def __init__(self) -> None:
        self.is_closed = False
        self.inside = 0
        self._left = trio.Event()

    def __enter__(self) -> None:
        self.inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.inside -= 1
        if not self.inside:
            self._left.set()

    def close(self) -> None:
        """Requests that come from now on are answered with `refusal`; harmless when closed."""
        self.is_closed = True

    async def wait_idle(self) -> None:
        """Return when nobody is inside; refusals that are being sent count, too."""
        while self.inside:
            self._left = trio.Event()
            await self._left.wait()

    @property
    def refusal(self) -> Refusal:
        """What who comes too late is told."""
        return Refusal(RefusalCode.BUSY, "this peer is stopping; ask another one", RETRY_AFTER_MS)
