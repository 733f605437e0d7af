"""What waits to be sent on one Yamux connection: control frames first, then data frames in order, with a bound on the data."""

from collections import deque
from typing import Final, NamedTuple, Protocol

import trio

from fsn.p2p.transport.noise import MAX_PLAINTEXT_BYTES
from fsn.p2p.transport.yamux_frames import HEADER_BYTES

__all__ = ["Batch", "Output"]

_FULL_BYTES: Final = 1024 * 1024
_ROOM_AGAIN_BYTES: Final = 512 * 1024
_BATCH_BYTES: Final = 256 * 1024
_MAX_CONTROL_FRAMES: Final = 20_000
"""A peer that makes us answer (pings, SYNs) and does not read the answers is cut off here: 240 KB of headers."""


class Sender(Protocol):
    """The stream that a data frame belongs to."""

    @property
    def is_aborted(self) -> bool:
        """Whether its queued frames are to be dropped: the peer wants no more of them."""


class Batch(NamedTuple):
    """Frames to send in one go, and how many payload bytes they took out of the queue."""

    parts: list[bytes | memoryview]
    payload_bytes: int


class _DataFrame(NamedTuple):
    sender: Sender
    header: bytes
    payload: memoryview | None


class Output:
    """The queue between the streams of a connection and its one writing task."""

    def __init__(self) -> None:
        self._control: deque[bytes] = deque()
        self._data: deque[_DataFrame] = deque()
        self._payload_bytes = 0
        self._is_sending = False
        self._something = trio.Event()
        self._room = trio.Event()
        self._room.set()
        self._flushed = trio.Event()

    @property
    def is_full(self) -> bool:
        """Whether streams must wait before they queue more data; a full queue takes data again once half of it is sent."""
        return not self._room.is_set()

    def put_control(self, frame: bytes) -> None:
        """Queue a header ahead of all data."""
        self._control.append(frame)
        self._something.set()

    def check_control(self) -> None:
        """Raises `trio.BrokenResourceError` when the peer makes us answer more than it reads."""
        if len(self._control) > _MAX_CONTROL_FRAMES:
            raise trio.BrokenResourceError("the peer asks and does not read the answers")

    def put_data(self, sender: Sender, header: bytes, payload: memoryview | None = None) -> None:
        """Queue a frame behind all data so far. `payload` is not copied: its bytes must stay as they are."""
        self._data.append(_DataFrame(sender, header, payload))
        self._payload_bytes += 0 if payload is None else len(payload)
        if self._payload_bytes >= _FULL_BYTES and self._room.is_set():
            self._room = trio.Event()
        self._something.set()

    async def wait_room(self) -> None:
        """Return once the queue takes data (or the connection is gone)."""
        await self._room.wait()

    async def wait_flushed(self) -> None:
        """Return once all that is queued now has been sent. The caller sets the deadline."""
        while self._control or self._data or self._is_sending:
            self._flushed = trio.Event()
            await self._flushed.wait()

    async def wait_batch(self) -> Batch:
        """The next frames to send, as soon as there are any; report them by `sent`."""
        while not (self._control or self._data):
            self._flushed.set()
            self._something = trio.Event()
            await self._something.wait()
        return self._take_batch()

    def sent(self, batch: Batch) -> None:
        """The batch is with the operating system: make room for as much again."""
        self._is_sending = False
        self._payload_bytes -= batch.payload_bytes
        if self._payload_bytes < _ROOM_AGAIN_BYTES:
            self._room.set()

    def discard(self) -> None:
        """The connection is gone: forget everything and let nobody wait."""
        self._control.clear()
        self._data.clear()
        self._payload_bytes = 0
        self._is_sending = False
        self._room.set()
        self._flushed.set()

    def _take_batch(self) -> Batch:
        self._is_sending = True
        parts: list[bytes | memoryview] = list(self._control)
        size = len(parts) * HEADER_BYTES
        self._control.clear()
        taken = 0
        while self._data and size < _BATCH_BYTES:
            sender, header, payload = self._data.popleft()
            taken += 0 if payload is None else len(payload)
            if sender.is_aborted:
                continue
            parts += [header] if payload is None else _messages(header, payload)
            size += HEADER_BYTES + (0 if payload is None else len(payload))
        return Batch(parts, taken)


def _messages(header: bytes, payload: memoryview) -> list[bytes | memoryview]:
    """A frame cut where Noise messages end, so that the other end sees few pieces; only the first is copied."""
    first = MAX_PLAINTEXT_BYTES - len(header)
    rest = range(first, len(payload), MAX_PLAINTEXT_BYTES)
    return [b"".join((header, payload[:first])), *(payload[at : at + MAX_PLAINTEXT_BYTES] for at in rest)]
