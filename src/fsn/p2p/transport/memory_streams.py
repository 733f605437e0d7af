"""Streams of a memory network: two pipes, bytes that are on their way for a while, ends and breaks."""

import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from fsn.core.ids import PeerId
from fsn.p2p.transport.base import Stream

__all__ = ["MemoryStream", "Pipe"]

_PIPE_BYTES: Final = 256 * 1024
"""What a sender may be ahead of its receiver."""
_RECEIVE_BYTES: Final = 256 * 1024


class Pipe:
    """One direction of a stream: bytes in order, at most `_PIPE_BYTES` ahead, then an end or a break.

    `arrival` says when so many bytes sent now will be there. While the pipe `is_held` nothing arrives; nothing is lost either.
    """

    def __init__(self, pipes: "dict[Pipe, None]", arrival: Callable[[int], float], *, is_held: bool = False) -> None:
        self.is_ended = self.is_broken = False
        self._pipes = pipes
        self._pipes[self] = None
        self._arrival = arrival
        self._is_held = is_held
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._last_arrival = -math.inf
        self._changed = trio.Event()

    @property
    def has_room(self) -> bool:
        return self._size < _PIPE_BYTES

    @property
    def has_data(self) -> bool:
        """Whether bytes have arrived."""
        return bool(self._chunks) and not self._is_held and self._chunks[0][0] <= trio.current_time()

    @property
    def is_at_end(self) -> bool:
        """Whether the end has arrived, behind all bytes."""
        return self.is_ended and not self._is_held and not self._chunks and self._last_arrival <= trio.current_time()

    @property
    def is_at_break(self) -> bool:
        """Whether the break has arrived, behind all bytes."""
        return self.is_broken and not self._is_held and not self._chunks

    def put(self, data: bytes) -> int:
        """Keep as much as there is room for; the result is how much."""
        taken = data[: _PIPE_BYTES - self._size]
        self._chunks.append((self._arrives(len(taken)), taken))
        self._size += len(taken)
        self._notify()
        return len(taken)

    def take(self, limit: int) -> bytes:
        """The next bytes, b"" at the end."""
        if not self.has_data:
            return b""
        arrived, chunk = self._chunks.popleft()
        if len(chunk) > limit:
            self._chunks.appendleft((arrived, chunk[limit:]))
        self._size -= min(len(chunk), limit)
        self._notify()
        return chunk[:limit]

    def end(self) -> None:
        """No more bytes come; those there can still be taken."""
        self._arrives(0)
        self.is_ended = True
        self._notify()

    def break_off(self, *, unless_ended: bool = False) -> None:
        """No more bytes come, and what there is ends in a break; with `unless_ended`, what ended cleanly still does."""
        if not self._is_held:  # else its end is still to be told
            self._pipes.pop(self, None)
        if not (unless_ended and self.is_ended):
            self.is_broken = True
        self._notify()

    def cut(self) -> None:
        """The connection is gone: what was on its way is lost, what has arrived can be read."""
        now, was_held = trio.current_time(), self._is_held
        arrived = [] if was_held else [chunk for chunk in self._chunks if chunk[0] <= now]
        is_whole = self.is_ended and not was_held and self._last_arrival <= now
        self._chunks = deque(arrived)
        self._size = sum(len(data) for _, data in arrived)
        self._is_held = False
        self.break_off(unless_ended=is_whole)

    def hold(self) -> None:
        """Nothing arrives any more."""
        self._is_held = True

    def let_go(self) -> None:
        """What was held arrives now."""
        self._is_held = False
        if self.is_broken:
            self._pipes.pop(self, None)
        self._notify()

    async def wait_changed(self) -> None:
        """Return when anything about the pipe has changed."""
        await self._changed.wait()

    async def wait_arrival(self) -> None:
        """Return when something has arrived, or anything else has changed; to be called when nothing is there."""
        due = self._next_arrival()
        if math.isinf(due):
            await self._changed.wait()
        else:
            with trio.move_on_at(due):
                await self._changed.wait()

    def _next_arrival(self) -> float:
        if self._is_held:
            return math.inf
        if self._chunks:
            return self._chunks[0][0]
        return self._last_arrival if self.is_ended else math.inf

    def _arrives(self, size_bytes: int) -> float:
        self._last_arrival = max(self._arrival(size_bytes), self._last_arrival)
        return self._last_arrival

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class MemoryStream(Stream):
    """One end of a stream; see `base.Stream` for the promises."""

    def __init__(self, peer: PeerId, protocol: str, *, receiving: Pipe, sending: Pipe) -> None:
        self._peer = peer
        self._protocol = protocol
        self._in = receiving
        self._out = sending
        self._closed = self._is_receiving = self._is_sending = False

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def protocol(self) -> str:
        return self._protocol

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        limit = _RECEIVE_BYTES if max_bytes is None else max_bytes
        if not isinstance(limit, int):
            raise TypeError("max_bytes must be an integer or None")
        if limit < 1:
            raise ValueError("max_bytes must be 1 or more")
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._is_receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._has_news():
                await self._in.wait_arrival()
            return self._in.take(limit)
        finally:
            self._is_receiving = False

    def _has_news(self) -> bool:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._in.is_at_break:
            raise trio.BrokenResourceError("the peer reset the stream, or the connection is lost")
        return self._in.has_data or self._in.is_at_end

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._sending():
            left = bytes(data)
            self._check_can_send()
            while left:
                await self._wait_room()
                left = left[self._out.put(left) :]

    async def wait_send_all_might_not_block(self) -> None:
        async with self._sending():
            self._check_can_send()
            await self._wait_room()

    @asynccontextmanager
    async def _sending(self) -> AsyncIterator[None]:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            self._is_sending = False

    async def _wait_room(self) -> None:
        self._check_can_send()
        while not self._out.has_room:
            await self._out.wait_changed()
            self._check_can_send()

    def _check_can_send(self) -> None:
        if self._closed or self._out.is_ended:
            raise trio.ClosedResourceError("this stream's sending half was closed here")
        if self._out.is_broken:
            raise trio.BrokenResourceError("the peer reset the stream, or the connection is lost")

    async def send_eof(self) -> None:
        async with self._sending():
            if not self._closed and self._out.is_ended:
                return
            self._check_can_send()
            self._out.end()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._out.break_off(unless_ended=True)
            self._in.break_off()
        await trio.lowlevel.checkpoint()
