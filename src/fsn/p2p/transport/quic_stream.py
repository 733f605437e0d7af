"""One stream of a QUIC connection: half-close, reset, and the promises of `base.Stream`. Flow control is the engine's."""

from typing import Final, Protocol

import trio

from fsn.core.ids import PeerId
from fsn.p2p.transport.base import Stream

__all__ = ["QuicStream"]

_RECEIVE_BYTES: Final = 256 * 1024
"""What `receive_some` returns at most when it is not told."""


class Home(Protocol):
    """What a stream needs of its connection."""

    peer: PeerId

    @property
    def is_outdated(self) -> bool:
        """Whether there is a better connection to the peer."""

    def room(self, stream: "QuicStream") -> int:
        """How many bytes it takes of this stream now."""

    async def wait_room(self, stream: "QuicStream") -> None:
        """Return when there is room, or the stream has ended."""

    def send(self, stream: "QuicStream", data: memoryview | bytes, *, eof: bool = False) -> None:
        """Queue bytes, and the end behind them."""

    def consumed(self, stream: "QuicStream", size: int) -> None:
        """The reader has taken so many bytes."""

    def stop(self, stream: "QuicStream") -> None:
        """Tell the peer that nobody reads this stream any more."""

    def reset(self, stream: "QuicStream") -> None:
        """Cut the stream behind what was sent."""

    def forget(self, stream: "QuicStream") -> None:
        """It is over, and nothing of it waits for a reader."""


class QuicStream(Stream):
    """See `base.Stream` for the promises."""

    def __init__(self, home: Home, stream_id: int) -> None:
        self.stream_id = stream_id
        self._home = home
        self._protocol = ""
        self._received = bytearray()
        self._readable = trio.Event()
        self._is_receiving = self._is_sending = False
        self._eof_sent = self._eof_received = False
        self._cannot_send = self._cannot_receive = self._closed = False

    @property
    def peer(self) -> PeerId:
        return self._home.peer

    @property
    def protocol(self) -> str:
        return self._protocol

    @property
    def is_outdated(self) -> bool:
        return self._home.is_outdated

    @property
    def cannot_send(self) -> bool:
        """Whether a sender has nothing to wait for."""
        return self._cannot_send or self._closed

    def set_protocol(self, protocol: str) -> None:
        """Name what was negotiated; once, before the stream is handed to anybody."""
        self._protocol = protocol

    # --- receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        limit = _checked_limit(max_bytes)
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._is_receiving = True
        try:
            # Waiting comes first and taking last, so that a cancellation never comes between taking and returning.
            if self._has_news():
                await trio.lowlevel.checkpoint()
            while not self._has_news():
                self._readable = trio.Event()
                await self._readable.wait()
            return self._take(limit)
        finally:
            self._is_receiving = False

    def _has_news(self) -> bool:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._cannot_receive and not self._received:
            raise trio.BrokenResourceError("the peer reset the stream, or the connection is lost")
        return bool(self._received) or self._eof_received

    def _take(self, limit: int) -> bytes:
        data = bytes(memoryview(self._received)[:limit])
        del self._received[: len(data)]
        if data and not (self._eof_received or self._cannot_receive):
            self._home.consumed(self, len(data))
        self._forget_when_done()
        return data

    # --- sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_can_send()
            view = memoryview(data).cast("B") if memoryview(data).contiguous else memoryview(bytes(data))
            while view:
                piece = view[: await self._wait_room()]
                view = view[len(piece) :]
                self._home.send(self, piece)
        finally:
            self._is_sending = False

    async def wait_send_all_might_not_block(self) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            await self._wait_room()
        finally:
            self._is_sending = False

    async def _wait_room(self) -> int:
        while True:
            self._check_can_send()
            if (room := self._home.room(self)) > 0:
                return room
            await self._home.wait_room(self)

    def _check_can_send(self) -> None:
        if self._closed or self._eof_sent:
            raise trio.ClosedResourceError("this stream's sending half was closed here")
        if self._cannot_send:
            raise trio.BrokenResourceError("the peer reset the stream, or the connection is lost")

    async def send_eof(self) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        if self._eof_sent and not self._closed:
            return
        self._check_can_send()
        self._eof_sent = True
        self._home.send(self, b"", eof=True)
        self._forget_when_done()

    # --- ending

    async def aclose(self) -> None:
        self.close_nowait()
        await trio.lowlevel.checkpoint()

    def close_nowait(self) -> None:
        """`aclose` without the checkpoint. The peer hears of it unless both sides had ended already."""
        if self._closed:
            return
        self._closed = True
        self._received.clear()
        if not (self._eof_received or self._cannot_receive):
            self._home.stop(self)
        if not (self._eof_sent or self._cannot_send):
            self._home.reset(self)
        self._home.forget(self)
        self._readable.set()

    # --- called by the connection

    def on_data(self, data: bytes, *, eof: bool) -> None:
        """Keep received bytes for the reader; the windows bound how many there can be."""
        if self._closed or self._cannot_receive or self._eof_received:
            return
        self._received += data
        self._eof_received = eof
        self._forget_when_done()
        self._readable.set()

    def on_reset(self) -> None:
        """The peer has cut its half. What came before can still be read, then the break."""
        self._cannot_receive = not self._eof_received
        self._forget_when_done()
        self._readable.set()

    def on_stop(self) -> None:
        """The peer reads no more."""
        self._cannot_send = True
        self._forget_when_done()

    def on_broken(self) -> None:
        """The connection is lost."""
        self.on_stop()
        self.on_reset()

    def _forget_when_done(self) -> None:
        no_more_in = self._eof_received or self._cannot_receive
        no_more_out = self._eof_sent or self._cannot_send
        if no_more_in and no_more_out and not self._received:
            self._home.forget(self)


def _checked_limit(max_bytes: int | None) -> int:
    if max_bytes is None:
        return _RECEIVE_BYTES
    if not isinstance(max_bytes, int):
        raise TypeError(f"max_bytes must be an integer or None; got {type(max_bytes).__name__}")
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be 1 or more; got {max_bytes}")
    return max_bytes
