"""A Yamux connection: many streams over one secured connection, with keep-alive. Knows nothing of py-libp2p.

Speaks /yamux/1.0.0 like py-libp2p's own, and differs where that one cannot run in a daemon (docs/decisions/0004, defects B5 to
B9): one task writes, so that no cancelled stream can cut a frame; the reader never waits for the writer, so that bulk traffic in
both directions cannot deadlock; a slow reader makes the sender wait as long as it takes; windows are enforced; a silent peer is
noticed.
"""

import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog
import trio

from fsn.core.errors import Unreachable
from fsn.core.ids import PeerId
from fsn.p2p.transport.yamux_frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    INITIAL_WINDOW_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    FrameParser,
    Header,
    pack_header,
)
from fsn.p2p.transport.yamux_output import Output
from fsn.p2p.transport.yamux_stream import YamuxStream

__all__ = ["ABANDONED_SECONDS", "PING_EVERY_SECONDS", "PING_TIMEOUT_SECONDS", "SecuredSession", "YamuxConnection"]

WINDOW_BYTES: Final = 4 * 1024 * 1024
"""What a stream may receive ahead of its reader: a gigabit over 30 ms of round trip."""
MAX_RECEIVE_BYTES: Final = 64 * 1024 * 1024
"""Windows beyond the initial 256 KiB that all streams of a connection share; when it is spent, a new stream keeps the 256 KiB."""
MAX_STREAMS: Final = 256
"""Streams of a connection at a time, those of both sides together; one that ended counts until its bytes are read."""
BACKLOG: Final = 64
"""Inbound streams that nobody has accepted yet; those beyond it are reset."""
PING_EVERY_SECONDS: Final = 3.0
"""So something is unacknowledged within 3 s of a silent cut, and TCP_USER_TIMEOUT (7 s) ends the connection on both sides within 10 s;
a ping that came later would silence the kernel's keep-alive just before it noticed. NAT mappings, the shortest of 30 s, are held."""
PING_TIMEOUT_SECONDS: Final = 10.0
"""A frozen peer, whose kernel goes on acknowledging, is given up after 13 s at most."""
ABANDONED_SECONDS: Final = 15.0
"""A stream that we ended and closed, and that the peer does not end for so long, is reset."""
_FLUSH_SECONDS: Final = 1.0

_log = structlog.get_logger("fsn.p2p")


class SecuredSession(Protocol):
    """What a connection runs over: `noise.NoiseSession`."""

    async def receive_messages(self) -> list[bytes]:
        """See there."""

    async def send_parts(self, parts: Sequence[bytes | memoryview]) -> None:
        """See there."""

    async def aclose(self) -> None:
        """See there."""


class YamuxConnection:
    """The connection. `run` must be running for anything to move; `closed` is set, and all streams broken, before `run` returns."""

    def __init__(self, session: SecuredSession, *, peer: PeerId, is_initiator: bool) -> None:
        self.peer = peer
        self.output = Output()
        self.closed = trio.Event()
        self.round_trip_seconds: float | None = None
        self._session = session
        self._streams: dict[int, YamuxStream] = {}
        self._counted: set[YamuxStream] = set()  # those, and others that hold bytes which nobody has read
        self._next_id = 1 if is_initiator else 2
        self._receive_bytes_left = MAX_RECEIVE_BYTES
        self._parser = FrameParser()
        self._receiving: YamuxStream | None = None
        self._payload_left = 0
        self._flags_after_payload = 0
        self._to_backlog, self._backlog = trio.open_memory_channel[YamuxStream](BACKLOG)
        self._scope = trio.CancelScope()
        self._started = self._closing = False
        self._pinged = -1, 0.0  # the number of the last ping, and when it went out
        self._idle = trio.Event()
        self._last_heard = trio.current_time()

    @property
    def is_open(self) -> bool:
        """Whether streams can be opened: not closed, not closing, and not known to be lost."""
        return not self._closing and not self.closed.is_set()

    async def run(self) -> None:
        """Move frames until the connection ends, by whichever side. Raises nothing of the connection's own troubles."""
        self._started = True
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for part in (self._read, self._write, self._keep_alive):
                        nursery.start_soon(self._run_part, part)
        finally:
            await self._end()

    async def open_stream(self) -> YamuxStream:
        """A new stream to the peer, usable at once. Raises `Unreachable` when the connection is lost or full of streams."""
        await trio.lowlevel.checkpoint()
        if not self.is_open:
            raise Unreachable(f"the connection to {self.peer} is closed")
        if len(self._counted) >= MAX_STREAMS:
            raise Unreachable(f"{MAX_STREAMS} streams are open to {self.peer} already")
        stream = self._new_stream(self._next_id)
        self._next_id += 2
        self.output.put_control(
            pack_header(WINDOW_UPDATE, SYN, stream.stream_id, stream.window_bytes - INITIAL_WINDOW_BYTES)
        )
        return stream

    async def accept_stream(self) -> YamuxStream:
        """The next stream that the peer opened. Raises `trio.EndOfChannel` when the connection is over."""
        return await self._backlog.receive()

    async def wait_idle(self) -> None:
        """Return when no stream is left, or the connection is gone."""
        while self._streams and not self.closed.is_set():
            self._idle = trio.Event()
            await self._idle.wait()

    async def aclose(self) -> None:
        """Send what is queued (a second at most), then end the connection and all its streams. Again is harmless.

        Returns when the socket is closed. A cancellation skips only the sending.
        """
        try:
            if self.is_open and self._started:
                self._closing = True
                await self._flush()
        finally:
            self._closing = True
            self._scope.cancel()
            if not self._started:
                await self._end()
        await self.closed.wait()

    def forget(self, stream: YamuxStream) -> None:
        """Called by the stream when its end is known to both sides, and again when its last byte is read or dropped.

        Until then it counts: else a peer that fills streams and resets them, one after the other, has us hold any number of them.
        """
        if self._streams.get(stream.stream_id) is stream:
            del self._streams[stream.stream_id]
            if not self._streams:
                self._idle.set()
        if stream in self._counted and not stream.has_unread:
            self._counted.discard(stream)
            self._receive_bytes_left += stream.window_bytes - INITIAL_WINDOW_BYTES

    # --- running

    async def _run_part(self, part: Callable[[], Awaitable[None]]) -> None:
        """Whichever part ends first, by the peer's doing or the network's, takes the connection with it."""
        try:
            await part()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            _log.debug("connection_lost", peer=self.peer, reason=str(error))
        finally:
            self._scope.cancel()

    async def _end(self) -> None:
        if self.closed.is_set():
            return
        self._closing = True
        self.closed.set()
        self._to_backlog.close()
        for stream in list(self._streams.values()):
            stream.on_broken()
        self._idle.set()
        self.output.discard()
        with trio.move_on_after(_FLUSH_SECONDS, shield=True):
            await self._session.aclose()

    async def _flush(self) -> None:
        with trio.move_on_after(_FLUSH_SECONDS):
            await self.output.wait_flushed()
            self.output.put_control(pack_header(GO_AWAY, 0, 0, 0))
            await self.output.wait_flushed()

    async def _write(self) -> None:
        while True:
            batch = await self.output.wait_batch()
            if batch.parts:
                await self._session.send_parts(batch.parts)
            self.output.sent(batch)

    async def _read(self) -> None:
        while messages := await self._session.receive_messages():
            self._last_heard = trio.current_time()
            for message in messages:
                self._on_message(message)
            self.output.check_control()

    async def _keep_alive(self) -> None:
        for number in itertools.count():
            await trio.sleep(PING_EVERY_SECONDS)
            self._reset_abandoned()
            # Pings queue behind bulk data in the kernel: what counts is that anything at all was heard. And they go out whether the
            # one before was answered or not, for the peer may hear little else from us.
            if trio.current_time() - self._last_heard >= PING_TIMEOUT_SECONDS:
                raise trio.BrokenResourceError(f"nothing heard for {PING_TIMEOUT_SECONDS:.0f} s")
            self._pinged = number & 0xFFFFFFFF, trio.current_time()
            self.output.put_control(pack_header(PING, SYN, 0, self._pinged[0]))

    def _reset_abandoned(self) -> None:
        """Streams that we ended and closed a while ago, and that the peer does not end: it may have forgotten them."""
        long_ago = trio.current_time() - ABANDONED_SECONDS
        for stream in list(self._streams.values()):
            if stream.closed_at is not None and stream.closed_at <= long_ago:
                stream.reset_nowait()

    # --- frames in

    def _on_message(self, message: bytes) -> None:
        for item in self._parser.feed(message):
            if isinstance(item, Header):
                self._on_header(item)
            else:
                self._on_payload(item, len(message))

    def _on_header(self, header: Header) -> None:
        if header.kind in (DATA, WINDOW_UPDATE):
            stream = self._accepted(header.stream) if header.flags & SYN else self._streams.get(header.stream)
            self._on_stream_header(stream, header)
        elif header.kind == PING:
            self._on_ping(header)
        else:
            raise trio.BrokenResourceError(f"the peer says go away, code {header.length}")

    def _on_stream_header(self, stream: YamuxStream | None, header: Header) -> None:
        if header.kind == WINDOW_UPDATE:
            if stream is not None:
                stream.on_window(header.length)
            self._on_flags(stream, header.flags)
            return
        if stream is not None:
            stream.on_data_announced(header.length)
        elif header.length > WINDOW_BYTES:
            raise trio.BrokenResourceError(f"a data frame of {header.length} bytes for a stream that is not there")
        self._receiving, self._payload_left, self._flags_after_payload = stream, header.length, header.flags
        if not header.length:
            self._on_flags(stream, header.flags)

    def _on_payload(self, piece: memoryview, message_bytes: int) -> None:
        if self._receiving is not None:
            self._receiving.on_payload(piece, message_bytes)
        self._payload_left -= len(piece)
        if not self._payload_left:
            stream, self._receiving = self._receiving, None
            self._on_flags(stream, self._flags_after_payload)

    def _on_flags(self, stream: YamuxStream | None, flags: int) -> None:
        if stream is None:
            return
        if flags & RST:
            stream.on_broken()
        elif flags & FIN:
            stream.on_eof()

    def _on_ping(self, header: Header) -> None:
        if header.flags & SYN:
            self.output.put_control(pack_header(PING, ACK, 0, header.length))
        elif header.length == self._pinged[0]:
            self.round_trip_seconds = trio.current_time() - self._pinged[1]

    def _accepted(self, stream_id: int) -> YamuxStream | None:
        """The stream that the peer opens just now; None when there are too many, which the peer is told by a reset."""
        if stream_id == 0 or stream_id % 2 == self._next_id % 2 or stream_id in self._streams:
            raise trio.BrokenResourceError(f"the peer may not open a stream {stream_id}")
        if len(self._counted) >= MAX_STREAMS or self._backlog.statistics().current_buffer_used >= BACKLOG:
            self.output.put_control(pack_header(WINDOW_UPDATE, RST, stream_id, 0))
            return None
        stream = self._new_stream(stream_id)
        self.output.put_control(pack_header(WINDOW_UPDATE, ACK, stream_id, stream.window_bytes - INITIAL_WINDOW_BYTES))
        self._to_backlog.send_nowait(stream)
        return stream

    def _new_stream(self, stream_id: int) -> YamuxStream:
        extra = min(WINDOW_BYTES - INITIAL_WINDOW_BYTES, self._receive_bytes_left)
        self._receive_bytes_left -= extra
        stream = YamuxStream(self, stream_id, window_bytes=INITIAL_WINDOW_BYTES + extra)
        self._streams[stream_id] = stream
        self._counted.add(stream)
        return stream
