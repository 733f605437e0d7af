"""How much may be on the way on a QUIC connection: windows for what comes, room for what goes."""

from typing import Final, Protocol

import trio

from fsn.p2p.transport.quic_engine import FIRST_WINDOW_BYTES, Engine

__all__ = ["MAX_RECEIVE_BYTES", "SEND_BYTES", "WINDOW_BYTES", "Room", "Sender", "Windows"]

WINDOW_BYTES: Final = 512 * 1024
"""What a stream may receive ahead of its reader while the connection has bytes left to give."""
MAX_RECEIVE_BYTES: Final = 8 * 1024 * 1024
"""Windows beyond the first 64 KiB that all streams of a connection share; when it is spent, a new stream keeps the 64 KiB."""
SEND_BYTES: Final = 768 * 1024
"""What is queued or on the way to the peer on all streams of a connection together."""
STREAM_SEND_BYTES: Final = 256 * 1024


class Windows:
    """What each stream may receive ahead of its reader."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[int, tuple[int, int]] = {}  # stream id -> size of its window, bytes that its reader took
        self.bytes_left = MAX_RECEIVE_BYTES

    def __len__(self) -> int:
        return len(self._open)

    def open(self, stream_id: int) -> None:
        """Give a new stream its window."""
        extra = min(WINDOW_BYTES - FIRST_WINDOW_BYTES, self.bytes_left)
        self.bytes_left -= extra
        self._open[stream_id] = (FIRST_WINDOW_BYTES + extra, 0)
        self._engine.grant(stream_id, FIRST_WINDOW_BYTES + extra)

    def consume(self, stream_id: int, size: int) -> bool:
        """Note what a reader took; whether there is news for the peer, who is told once half of a window was read."""
        window, taken = self._open[stream_id]
        taken += size
        self._open[stream_id] = (window, taken)
        stream = self._engine.stream(stream_id)
        if stream is None or stream.max_stream_data_local - taken > window // 2:
            return False
        self._engine.grant(stream_id, taken + window)
        return True

    def close(self, stream_id: int) -> None:
        """The stream is over: what it had is for others."""
        window, _ = self._open.pop(stream_id)
        self.bytes_left += window - FIRST_WINDOW_BYTES


class Sender(Protocol):
    """A stream that wants to send."""

    @property
    def stream_id(self) -> int:
        """Its id."""

    @property
    def cannot_send(self) -> bool:
        """Whether it has nothing to wait for."""


class Room:
    """Who may send how much, and who waits for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[Sender, trio.Event] = {}

    def of(self, sender: Sender) -> int:
        """How many bytes are taken of this stream now: by the peer's window, and by our bounds of what is on the way."""
        room = self._own(sender)
        return min(room, SEND_BYTES - self._engine.unsent_bytes()) if room > 0 else 0

    async def wait(self, sender: Sender) -> None:
        """Return when there is room for the stream, or it has ended. One task for each stream."""
        self._waiting[sender] = trio.Event()
        try:
            await self._waiting[sender].wait()
        finally:
            del self._waiting[sender]

    def look(self) -> None:
        """Wake those for whom there is room by now, and no others."""
        if self._waiting:
            is_room = self._engine.unsent_bytes() < SEND_BYTES
            for sender, event in self._waiting.items():
                if sender.cannot_send or (is_room and self._own(sender) > 0):
                    event.set()

    def wake(self, sender: Sender) -> None:
        """The stream is over."""
        if (event := self._waiting.get(sender)) is not None:
            event.set()

    def _own(self, sender: Sender) -> int:
        stream_id = sender.stream_id
        return min(self._engine.sendable_bytes(stream_id), STREAM_SEND_BYTES - self._engine.unsent_bytes(stream_id))
