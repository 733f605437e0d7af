"""One stream of a Yamux connection: flow control by windows, half-close, reset, and the promises of `base.Stream`."""

from collections import deque
from typing import Final, Protocol

import trio

from fsn.core.ids import PeerId
from fsn.p2p.transport.base import Stream
from fsn.p2p.transport.noise import MAX_PLAINTEXT_BYTES
from fsn.p2p.transport.yamux_frames import (
    DATA,
    FIN,
    HEADER_BYTES,
    INITIAL_WINDOW_BYTES,
    RST,
    WINDOW_UPDATE,
    pack_header,
)
from fsn.p2p.transport.yamux_output import Output

__all__ = ["YamuxStream"]

_FRAME_BYTES: Final = 4 * MAX_PLAINTEXT_BYTES - HEADER_BYTES
"""Payload of one data frame: with its header it fills four Noise messages exactly. Against a frame for each message it saves a
twentieth of the CPU per MB; it is no longer than what is sealed in one go."""
_RECEIVE_BYTES: Final = 256 * 1024
"""What `receive_some` returns at most when it is not told."""
_SMALL_BYTES: Final = 1024
_COLLECTED_BYTES: Final = 16 * 1024


class Home(Protocol):
    """What a stream needs of its connection."""

    peer: PeerId
    output: Output

    def forget(self, stream: "YamuxStream") -> None:
        """No frame of this stream matters any more; and if it `has_unread` bytes, it will say so again when it has none."""


class YamuxStream(Stream):
    """See `base.Stream` for the promises. `window_bytes` is what the peer may have sent that was not received yet."""

    def __init__(self, home: Home, stream_id: int, *, window_bytes: int) -> None:
        self.stream_id = stream_id
        self.window_bytes = window_bytes
        self._home = home
        self._protocol = ""
        self._received: deque[memoryview | bytearray] = deque()
        self._peer_may_send = window_bytes
        self._consumed = 0
        self._may_send = INITIAL_WINDOW_BYTES
        self._readable = trio.Event()
        self._writable = trio.Event()
        self._is_receiving = self._is_sending = False
        self._eof_sent = self._eof_received = False
        self._cannot_send = self._cannot_receive = self._closed = False
        self.closed_at: float | None = None

    @property
    def peer(self) -> PeerId:
        return self._home.peer

    @property
    def protocol(self) -> str:
        return self._protocol

    def set_protocol(self, protocol: str) -> None:
        """Name what was negotiated; once, before the stream is handed to anybody."""
        self._protocol = protocol

    @property
    def is_aborted(self) -> bool:
        """Whether data that is still queued is to be dropped: the peer has reset the stream."""
        return self._cannot_send

    @property
    def has_unread(self) -> bool:
        """Whether received bytes wait for a reader."""
        return bool(self._received)

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
            return self._take(limit) if self._received else b""
        finally:
            self._is_receiving = False

    def _has_news(self) -> bool:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._cannot_receive and not self._received:
            raise trio.BrokenResourceError("the peer reset the stream, or the connection is lost")
        return bool(self._received) or self._eof_received

    def _take(self, limit: int) -> bytes:
        first = self._received[0]
        if len(first) > limit:
            data = bytes(first[:limit])
            self._received[0] = first[limit:]
        elif len(self._received) == 1:
            data = bytes(self._received.popleft())
        else:
            data = b"".join(self._pieces_up_to(limit))
        self._note_consumed(len(data))
        return data

    def _pieces_up_to(self, limit: int) -> list[memoryview | bytearray]:
        pieces = []
        while self._received and len(self._received[0]) <= limit:
            limit -= len(self._received[0])
            pieces.append(self._received.popleft())
        return pieces

    def _note_consumed(self, size: int) -> None:
        self._consumed += size
        if self._eof_received or self._cannot_receive:
            self._forget_when_done()
        elif self._consumed >= self.window_bytes // 2:
            self._home.output.put_control(pack_header(WINDOW_UPDATE, 0, self.stream_id, self._consumed))
            self._peer_may_send += self._consumed
            self._consumed = 0

    # --- sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            view = _lasting_view(data)
            await self._wait_can_send(at_once=not view)
            while view:
                await self._wait_can_send()
                piece = view[: min(self._may_send, _FRAME_BYTES)]
                view = view[len(piece) :]
                self._may_send -= len(piece)
                self._home.output.put_data(self, pack_header(DATA, 0, self.stream_id, len(piece)), piece)
        finally:
            self._is_sending = False

    async def wait_send_all_might_not_block(self) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            await self._wait_can_send()
        finally:
            self._is_sending = False

    async def _wait_can_send(self, *, at_once: bool = False) -> None:
        """Return when both the peer's window and our queue take a byte; with `at_once`, only see that the stream is fit."""
        while True:
            self._check_can_send()
            if at_once:
                return
            if self._home.output.is_full:
                await self._home.output.wait_room()
            elif self._may_send <= 0:
                self._writable = trio.Event()
                await self._writable.wait()
            else:
                return

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
        self._home.output.put_data(self, pack_header(WINDOW_UPDATE, FIN, self.stream_id, 0))
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
        self.closed_at = trio.current_time()
        self._received.clear()
        if self._cannot_send or (self._eof_sent and self._eof_received):
            self._home.forget(self)
        elif not self._eof_sent or self._peer_may_send <= 0:
            self.reset_nowait()
        # Else the peer has our end, and may be reading up to it: a reset now would have others than us drop what they have not
        # read. It comes when the peer sends more, or is silent for long (`yamux`). At a spent window it would wait for ever.
        self._wake()

    def reset_nowait(self) -> None:
        """Tell the peer that nobody is here any more."""
        # The reset waits its turn behind the data, so that it overtakes neither the answer of the negotiation nor a clean end.
        self._home.output.put_data(self, pack_header(WINDOW_UPDATE, RST, self.stream_id, 0))
        self._home.forget(self)

    # --- called by the connection as frames come in

    def on_payload(self, piece: memoryview, message_bytes: int) -> None:
        """Keep received bytes for the reader; the message that they are a view of has `message_bytes`."""
        if self._closed or self._cannot_receive or self._eof_received:
            return  # nobody reads it, or the peer breaks its own word
        last = self._received[-1] if self._received else None
        if 2 * len(piece) >= message_bytes and len(piece) >= _SMALL_BYTES:
            self._received.append(piece)
        elif len(piece) >= _SMALL_BYTES:
            # A view keeps its whole message: 1 KiB for us beside 63 KiB of anything would be held at 64 times its size.
            self._received.append(memoryview(bytes(piece)))
        elif isinstance(last, bytearray) and len(last) < _COLLECTED_BYTES:
            # A view costs 200 bytes and more: a window full of one-byte frames must not take a thousand times its size.
            last += piece
        else:
            self._received.append(bytearray(piece))
        self._readable.set()

    def on_data_announced(self, size: int) -> None:
        """Count a data frame against the window. Raises `trio.BrokenResourceError` when the peer sends more than it may."""
        if self._closed and size:
            self.reset_nowait()
        self._peer_may_send -= size
        if self._peer_may_send < 0:
            raise trio.BrokenResourceError("the peer sent more than the stream's window allows")

    def on_window(self, size: int) -> None:
        """The peer takes `size` bytes more."""
        self._may_send += size
        if self._may_send > 0:
            self._writable.set()

    def on_eof(self) -> None:
        """The peer sends no more."""
        self._eof_received = True
        self._forget_when_done()
        self._wake()

    def on_broken(self) -> None:
        """The peer reset the stream, or the connection is lost. What came before can still be read, then its end or the break."""
        self._cannot_send = True
        self._cannot_receive = not self._eof_received
        self._home.forget(self)
        self._wake()

    def _forget_when_done(self) -> None:
        if not self._received and (self._cannot_send or (self._eof_sent and self._eof_received)):
            self._home.forget(self)

    def _wake(self) -> None:
        self._readable.set()
        self._writable.set()


def _checked_limit(max_bytes: int | None) -> int:
    if max_bytes is None:
        return _RECEIVE_BYTES
    if not isinstance(max_bytes, int):
        raise TypeError(f"max_bytes must be an integer or None; got {type(max_bytes).__name__}")
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be 1 or more; got {max_bytes}")
    return max_bytes


def _lasting_view(data: bytes | bytearray | memoryview) -> memoryview:
    """A byte view that stays as it is while it waits in the queue: of the data itself when it cannot change, else of a copy."""
    if type(data) is bytes or (isinstance(data, memoryview) and type(data.obj) is bytes and data.contiguous):
        return memoryview(data).cast("B")
    return memoryview(bytes(data))
