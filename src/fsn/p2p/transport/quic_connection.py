"""A QUIC connection: one task that drives the engine, the streams on it, and our own liveness. Knows nothing of py-libp2p.

The same shape as `yamux.YamuxConnection`, so that one adapter shows both to py-libp2p (`upgrading`). Sends through a function that
it is given, and takes time from trio's clock: tests run it over anything, in virtual time.
"""

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import Any, Final

import structlog
import trio
from aioquic.quic import events

from fsn.core.errors import ProtocolViolation, Unreachable
from fsn.core.ids import PeerId
from fsn.p2p.transport.quic_engine import MAX_STREAMS, Engine
from fsn.p2p.transport.quic_flow import Room, Windows
from fsn.p2p.transport.quic_identity import peer_of
from fsn.p2p.transport.quic_stream import QuicStream

__all__ = ["PING_EVERY_SECONDS", "SILENCE_SECONDS", "QuicConnection", "SendDatagrams"]

BACKLOG: Final = 64
"""Inbound streams that nobody has accepted yet; those beyond it are reset."""
PING_EVERY_SECONDS: Final = 3.0
"""Routers forget a UDP mapping after 30 s of silence at the least; and a dead peer is to be noticed within 12 s."""
SILENCE_SECONDS: Final = 10.0
_FLUSH_SECONDS: Final = 1.0

_log = structlog.get_logger("fsn.p2p")

SendDatagrams = Callable[[Iterable[tuple[bytes, Any]]], OSError | None]
"""Hands datagrams to the network; one that cannot be sent is lost, which QUIC is made for. Never waits; tells the first failure."""


class QuicConnection:
    """The connection. `drive` must be running for anything to move; `closed` is set, and all streams broken, before it returns."""

    def __init__(self, engine: Engine, send: SendDatagrams, *, is_initiator: bool) -> None:
        self.engine = engine
        self.is_initiator = is_initiator
        self.peer = PeerId("")
        self.has_better: Callable[[], bool] = lambda: False
        self.established = trio.Event()
        self.closed = trio.Event()
        self.failure = ""
        self.is_broken_by_engine = False
        self.send_error: OSError | None = None
        self.on_ids: Callable[[bytes, bool], None] = lambda connection_id, is_ours: None
        self._send_datagrams = send
        self._streams: dict[int, QuicStream] = {}
        self._windows, self._room = Windows(engine), Room(engine)
        self._to_reset: set[int] = set()
        self._next_inbound = 1 if is_initiator else 0
        self._skipped: set[int] = set()
        self._to_backlog, self._backlog = trio.open_memory_channel[QuicStream](BACKLOG)
        self._wake, self._change, self._idle = trio.Event(), trio.Event(), trio.Event()
        self._pings = 0
        self._ping_at = trio.current_time() + PING_EVERY_SECONDS
        self._closing = False

    @property
    def is_open(self) -> bool:
        """Whether streams can be opened: proved, not closed, not closing."""
        return self.established.is_set() and not self._closing and not self.closed.is_set()

    @property
    def is_outdated(self) -> bool:
        """Whether new streams to the peer had better go over another connection."""
        return self.has_better()

    @property
    def remote(self) -> tuple[str, int] | None:
        """IP text and port that the peer's packets come from now: peers may move."""
        address: Any = self.engine.get_peer_address()
        return None if address is None else (str(address[0]).removeprefix("::ffff:"), int(address[1]))

    @property
    def stream_count(self) -> int:
        """Streams that are not over, or hold bytes which nobody has read."""
        return len(self._streams)

    # --- running

    async def drive(self) -> None:
        """Move packets until the connection ends, by whichever side. Raises nothing of the connection's own troubles."""
        try:
            while not self.closed.is_set():
                self._wake = trio.Event()
                self._transmit()
                with trio.move_on_at(self._next_at()):
                    await self._wake.wait()
                await self._on_clock()
        finally:
            self.close_nowait()

    async def wait_established(self) -> None:
        """Return when the peer has proved who it is. Has no deadline.

        Raises `Unreachable` when it does not come to that, `OSError` when the network does not even take our packets.
        """
        while not self.established.is_set():
            if self.closed.is_set():
                raise Unreachable(self.failure)
            if self.send_error is not None:
                raise self.send_error
            await self.wait_change()
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Return when the connection is over; cancelled, end it. (The one who opened it runs `drive`.)"""
        try:
            await self.closed.wait()
        finally:
            self.close_nowait()

    def _next_at(self) -> float:
        timer = self.engine.get_timer()
        own = (
            min(self._ping_at, self.engine.last_heard + SILENCE_SECONDS) if self.established.is_set() else float("inf")
        )
        return own if timer is None else min(timer, own)

    async def _on_clock(self) -> None:
        now = trio.current_time()
        timer = self.engine.get_timer()
        if timer is not None and timer <= now:
            with self._guarded():
                self.engine.handle_timer(now)
            self.take_events()
        if not self.is_open:
            return
        if now >= self.engine.last_heard + SILENCE_SECONDS:
            # After a pause of our own (a suspended machine) what came meanwhile is read first, then the peer is judged.
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            if now >= self.engine.last_heard + SILENCE_SECONDS:
                self._end(f"nothing heard for {SILENCE_SECONDS:.0f} s")
        elif now >= self._ping_at:
            self._ping_if_quiet(now)

    def _ping_if_quiet(self, now: float) -> None:
        # The one who dialled may be behind a NAT, whose mapping its own packets keep; the other one asks only when it does not.
        quiet_at = self.engine.last_heard + PING_EVERY_SECONDS + (0.0 if self.is_initiator else 0.5)
        if now < quiet_at:
            self._ping_at = quiet_at
        else:
            self._ping_at = now + PING_EVERY_SECONDS
            self._pings += 1
            self.engine.send_ping(self._pings)

    def send_now(self) -> None:
        """Let the driving task send what the engine has."""
        self._wake.set()

    def _transmit(self) -> None:
        if not self.engine.is_started:
            return
        with self._guarded():
            self._reset_what_is_sent()
            self.send_error = self._send_datagrams(self.engine.datagrams_to_send(trio.current_time()))
        if self.send_error is not None:
            self._change.set()

    @contextmanager
    def _guarded(self) -> Any:
        """What the engine raises is the doing of the peer's bytes, or a bug; it costs this connection."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the barrier: a peer's packets must not end the daemon
            self.is_broken_by_engine = True
            _log.warning("quic_connection_failed", peer=self.peer, reason=repr(error))
            self._end(f"the QUIC engine failed: {error!r}", tell="")

    # --- datagrams in

    def on_datagram(self, data: bytes, address: Any) -> None:
        """Take one datagram; call `take_events` after the last of several."""
        if not self.closed.is_set():
            with self._guarded():
                self.engine.receive_datagram(data, address, trio.current_time())

    def take_events(self) -> None:
        """Pass on what the datagrams said, and let the driving task answer."""
        with self._guarded():
            while (event := self.engine.next_event()) is not None:
                self._on_event(event)
        if self.engine.is_ending and not self._closing:
            self._end(self.engine.end_reason or "the peer closed the connection")
        self._room.look()
        self._change.set()
        self._wake.set()

    def _on_event(self, event: events.QuicEvent) -> None:
        match event:
            case events.StreamDataReceived(data, end_stream, stream_id):
                if stream := self._stream_of(stream_id):
                    stream.on_data(data, eof=end_stream)
            case events.StreamReset(_, stream_id):
                if stream := self._stream_of(stream_id):
                    stream.on_reset()
            case events.StopSendingReceived(_, stream_id):
                if stream := self._stream_of(stream_id):
                    stream.on_stop()
            case events.HandshakeCompleted():
                self._on_handshake()
            case events.ConnectionIdIssued(connection_id):
                self.on_ids(connection_id, True)
            case events.ConnectionIdRetired(connection_id):
                self.on_ids(connection_id, False)

    def _on_handshake(self) -> None:
        certificate = self.engine.peer_certificate
        try:
            if certificate is None:
                raise ProtocolViolation("the peer showed no certificate")
            self.peer = peer_of(certificate)
        except ProtocolViolation as error:
            self._end(error.message)
        else:
            self._ping_at = trio.current_time() + PING_EVERY_SECONDS
            self.established.set()

    def _stream_of(self, stream_id: int) -> QuicStream | None:
        """The stream that an event is about; a new one when the peer opens it by this; None when it is over for us."""
        if (stream := self._streams.get(stream_id)) is not None:
            return stream
        if not self._is_new(stream_id):
            return None
        if len(self._streams) >= MAX_STREAMS or self._backlog.statistics().current_buffer_used >= BACKLOG:
            self._refuse(stream_id)
            return None
        stream = self._add(stream_id)
        self._to_backlog.send_nowait(stream)
        return stream

    def _is_new(self, stream_id: int) -> bool:
        """Whether the peer has not been heard of on this stream before; packets come in any order, and ids are never used again."""
        if stream_id % 2 != self._next_inbound % 2:
            return False
        if stream_id >= self._next_inbound:
            self._skipped.update(range(self._next_inbound, stream_id, 4))
            self._next_inbound = stream_id + 4
            return True
        if stream_id in self._skipped:
            self._skipped.discard(stream_id)
            return True
        return False

    def _refuse(self, stream_id: int) -> None:
        self._stop(stream_id)
        self.engine.reset_stream(stream_id, 0)

    # --- streams

    async def open_stream(self) -> QuicStream:
        """A new stream to the peer, usable at once; waits while the peer takes no more. The caller sets the deadline.

        Raises `Unreachable` when the connection is lost or full of streams.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if not self.is_open:
                raise Unreachable(f"the connection to {self.peer} is closed")
            if len(self._streams) >= MAX_STREAMS:
                raise Unreachable(f"{MAX_STREAMS} streams are open to {self.peer} already")
            if self.engine.may_open_stream:
                break
            await self.wait_change()
        stream_id = self.engine.get_next_available_stream_id()
        self.engine.send_stream_data(stream_id, b"")  # takes the id
        return self._add(stream_id)

    async def accept_stream(self) -> QuicStream:
        """The next stream that the peer opened. Raises `trio.EndOfChannel` when the connection is over."""
        return await self._backlog.receive()

    async def wait_idle(self) -> None:
        """Return when no stream is left (or the connection is gone)."""
        while self._streams:
            self._idle = trio.Event()
            await self._idle.wait()

    def _add(self, stream_id: int) -> QuicStream:
        self._streams[stream_id] = stream = QuicStream(self, stream_id)
        self._windows.open(stream_id)
        return stream

    # --- called by streams

    def room(self, stream: QuicStream) -> int:
        """How many bytes are taken of this stream now."""
        return self._room.of(stream)

    async def wait_room(self, stream: QuicStream) -> None:
        """Return when there is room for the stream, or it has ended."""
        await self._room.wait(stream)

    async def wait_change(self) -> None:
        """Return when anything has come from the peer, or the connection is gone."""
        if self._change.is_set() and not self.closed.is_set():
            self._change = trio.Event()
        await self._change.wait()

    def send(self, stream: QuicStream, data: memoryview | bytes, *, eof: bool = False) -> None:
        """Queue bytes of a stream, and its end."""
        if not self.closed.is_set():
            self.engine.send_stream_data(stream.stream_id, data, end_stream=eof)  # type: ignore[arg-type]
            self._wake.set()

    def consumed(self, stream: QuicStream, size: int) -> None:
        """Let the peer send as much again, once half of the window was read."""
        if self._windows.consume(stream.stream_id, size):
            self._wake.set()

    def stop(self, stream: QuicStream) -> None:
        """Nobody reads the stream any more."""
        self._stop(stream.stream_id)
        self._wake.set()

    def _stop(self, stream_id: int) -> None:
        if self.engine.stream(stream_id) is not None:
            self.engine.stop_stream(stream_id, 0)

    def reset(self, stream: QuicStream) -> None:
        """Cut the stream once all that was sent has arrived: a reset that overtook it would take it away from the reader."""
        self._to_reset.add(stream.stream_id)
        self._wake.set()

    def _reset_what_is_sent(self) -> None:
        for stream_id in [each for each in self._to_reset if not self.engine.unsent_bytes(each)]:
            self._to_reset.discard(stream_id)
            self.engine.reset_stream(stream_id, 0)

    def forget(self, stream: QuicStream) -> None:
        """The stream is over."""
        self._room.wake(stream)
        if self._streams.pop(stream.stream_id, None) is None:
            return
        self._windows.close(stream.stream_id)
        if not self._streams:
            self._idle.set()

    # --- ending

    async def aclose(self) -> None:
        """Send what is queued (a second at most), then end the connection and all its streams. Again is harmless.

        A cancellation skips only the sending.
        """
        try:
            if self.is_open:
                self._closing = True
                with trio.move_on_after(_FLUSH_SECONDS):
                    while self.engine.unsent_bytes() and not self.closed.is_set():
                        await self.wait_change()
        finally:
            self.close_nowait()
        await trio.lowlevel.checkpoint()

    def close_nowait(self) -> None:
        """End the connection without waiting for anything; the peer is told."""
        self._end("closed here")

    def _end(self, reason: str, *, tell: str | None = None) -> None:
        if self.closed.is_set():
            return
        self._closing = True
        self.failure = reason
        self.closed.set()
        if not self.engine.is_ending:
            _log.debug("connection_lost", peer=self.peer, reason=reason)
            self._say_goodbye(reason if tell is None else tell)
        for stream in list(self._streams.values()):
            stream.on_broken()
        self._room.look()
        self._to_backlog.close()
        self._to_reset.clear()
        for event in (self._wake, self._change, self._idle):
            event.set()

    def _say_goodbye(self, reason: str) -> None:
        if not self.engine.is_started:
            return
        with self._guarded():
            self.engine.close(reason_phrase=reason[:100])
            self._send_datagrams(self.engine.datagrams_to_send(trio.current_time()))
