"""Asking peers: many requests, pipelined, on one long-lived stream for each peer and protocol."""

import itertools
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import attrs
import structlog
import trio

from fsn.core.errors import PeerError, PeerRefused, PeerTimeout, ProtocolViolation, Unreachable
from fsn.core.ids import PeerId
from fsn.p2p.transport.base import Stream, Transport
from fsn.p2p.wire.codec import decode, encode_parts
from fsn.p2p.wire.framing import FrameDecoder
from fsn.p2p.wire.messages import (
    PROTOCOL_OF,
    ChunkRetrieved,
    ChunksDeleted,
    ChunkStored,
    Declaration,
    Declared,
    DeleteChunks,
    DialBack,
    DialedBack,
    Heartbeat,
    HeartbeatAnswer,
    HeldProof,
    LossesReported,
    Message,
    ProveHeld,
    Reconcile,
    Reconciled,
    Refusal,
    ReportLosses,
    Request,
    Response,
    RetrieveChunk,
    StoreChunk,
)
from fsn.runtime.window import Window

__all__ = ["Requester", "open_requester"]

log = structlog.get_logger()

WINDOW_BYTES = 8 << 20
"""Request bytes that may be queued or unanswered on one stream; more wait their turn."""
OPENING_SECONDS = 10.0
SENDING_SECONDS = 60.0
"""A peer that takes longer to accept one request has its stream given up; as long as `server.SENDING_SECONDS`."""
LONGEST_DEADLINE_MS = 2**32 - 1
SMALL_FRAME_BYTES = 256
READ_BYTES = 512 << 10

_ANSWERS: Mapping[type[Request], type[Response]] = {
    StoreChunk: ChunkStored,
    RetrieveChunk: ChunkRetrieved,
    ProveHeld: HeldProof,
    DeleteChunks: ChunksDeleted,
    Heartbeat: HeartbeatAnswer,
    Reconcile: Reconciled,
    ReportLosses: LossesReported,
    Declaration: Declared,
    DialBack: DialedBack,
}


@asynccontextmanager
async def open_requester(transport: Transport, *, window_bytes: int = WINDOW_BYTES) -> AsyncIterator["Requester"]:
    """A requester over `transport`; its streams live in this block's nursery and end with it."""
    async with trio.open_nursery() as nursery:
        requester = Requester(transport, nursery, window_bytes)
        try:
            yield requester
        finally:
            requester.close()


class Requester:
    """Sends requests to connected peers and matches the answers. Never dials."""

    def __init__(self, transport: Transport, nursery: trio.Nursery, window_bytes: int) -> None:
        self._transport = transport
        self._nursery = nursery
        self._window_bytes = window_bytes
        self._channels: dict[tuple[PeerId, str], _Channel] = {}
        self._is_closed = False

    def close(self) -> None:
        """End all streams; who waits for an answer, or asks from now on, gets Unreachable."""
        self._is_closed = True
        self._nursery.cancel_scope.cancel()

    async def request(self, peer: PeerId, message: Request, *, within_seconds: float) -> Response:
        """The peer's answer, of the kind that belongs to the request.

        Raises Unreachable (no connection, or it broke: the request may have been carried out all the same), PeerTimeout, PeerRefused,
        ProtocolViolation. Cancelled, it disturbs no other request; the peer may carry it out all the same.
        """
        with trio.move_on_after(within_seconds):
            return _checked(peer, message, await self._channel(peer, PROTOCOL_OF[type(message)]).ask(message))
        raise PeerTimeout(f"{peer} did not answer {type(message).__name__} within {within_seconds:g} s")

    def in_flight_bytes(self, peer: PeerId, protocol: str) -> int:
        """Request bytes queued or unanswered at `peer` on `protocol`: how busy it is with us."""
        channel = self._channels.get((peer, protocol))
        return channel.window.taken_bytes if channel is not None else 0

    def _channel(self, peer: PeerId, protocol: str) -> "_Channel":
        if self._is_closed:
            raise Unreachable(f"{peer} is not asked any more: we are closing")
        channel = self._channels.get((peer, protocol))
        if channel is not None and channel.is_outdated:
            channel.retire()
            channel = None
        if channel is None or channel.failure is not None:
            channel = _Channel(self._transport, peer, protocol, self._window_bytes)
            self._channels[peer, protocol] = channel
            self._nursery.start_soon(self._run, channel, name=f"channel {protocol} to {peer}")
        return channel

    async def _run(self, channel: "_Channel") -> None:
        await channel.run()
        if self._channels.get((channel.peer, channel.protocol)) is channel:
            del self._channels[channel.peer, channel.protocol]


@attrs.define(eq=False)
class _Waiter:
    """One request without an answer yet."""

    done: trio.Event = attrs.field(factory=trio.Event)
    answer: Message | None = None


class _Channel:
    """One stream: a queue of frames going out, a table of requests waiting for answers."""

    def __init__(self, transport: Transport, peer: PeerId, protocol: str, window_bytes: int) -> None:
        self.peer = peer
        self.protocol = protocol
        self.window = Window(window_bytes)
        self.failure: PeerError | None = None
        self._transport = transport
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiter] = {}
        self._outgoing: OrderedDict[int, list[bytes | memoryview]] = OrderedDict()
        self._has_outgoing = trio.Event()
        self._stream: Stream | None = None
        self._scope = trio.CancelScope()
        self._askers = 0
        self._is_retired = False

    @property
    def is_outdated(self) -> bool:
        """Whether a better connection to the peer exists by now."""
        return self._stream is not None and self._stream.is_outdated

    def retire(self) -> None:
        """Take no more requests (there will be another channel); end once those under way have their answers."""
        self._is_retired = True
        self._end_if_retired()

    def _end_if_retired(self) -> None:
        if self._is_retired and not self._askers:
            self._scope.cancel()

    @property
    def queued_bytes(self) -> int:
        """Bytes of frames that nobody has begun to send."""
        return sum(len(part) for parts in self._outgoing.values() for part in parts)

    async def ask(self, message: Request) -> Message:
        """Send `message` and wait for what comes back under its number. The caller sets the deadline, which the peer is told."""
        self._askers += 1
        try:
            return await self._asked(message)
        finally:
            self._askers -= 1
            self._end_if_retired()

    async def _asked(self, message: Request) -> Message:
        number, waiter, size_bytes = next(self._numbers), _Waiter(), _size_of(message)
        await self.window.acquire(size_bytes)
        try:
            if self.failure is not None:
                raise self._failed()
            self._outgoing[number] = encode_parts(number, message, deadline_ms=_deadline_ms())
            self._waiting[number] = waiter
            self._has_outgoing.set()
            await waiter.done.wait()
        finally:
            self._waiting.pop(number, None)
            self._outgoing.pop(
                number, None
            )  # not begun: it takes no memory beyond the window, and spares the peer the work
            self.window.release(size_bytes)
        if waiter.answer is None:
            raise self._failed()
        return waiter.answer

    async def run(self) -> None:
        """Open the stream, move frames both ways until it breaks, then fail whatever waits."""
        try:
            with trio.fail_after(OPENING_SECONDS):
                stream = await self._transport.open_stream(self.peer, self.protocol)
            self._stream = stream
            with self._scope:
                await self._move(stream)
        except PeerError as error:
            self._fail(error)
        except trio.TooSlowError:
            self._fail(Unreachable(f"{self.peer} did not open a stream within {OPENING_SECONDS:g} s"))
        finally:
            self._fail(Unreachable(f"the stream to {self.peer} was closed"))

    async def _move(self, stream: Stream) -> None:
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._until_broken, self._send, stream, nursery.cancel_scope)
            nursery.start_soon(self._until_broken, self._receive, stream, nursery.cancel_scope)

    async def _until_broken(
        self, move: Callable[[Stream], Awaitable[None]], stream: Stream, both: trio.CancelScope
    ) -> None:
        """Run one direction; when it ends, for whatever reason, so does the other, and everybody who waits is told the first reason."""
        try:
            await move(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._fail(Unreachable(f"the connection to {self.peer} broke: {error}"))
        except ProtocolViolation as error:
            self._fail(ProtocolViolation(f"{self.peer}: {error.message}"))
        except trio.TooSlowError:
            self._fail(Unreachable(f"{self.peer} took nothing for {SENDING_SECONDS:g} s"))
        self._fail(Unreachable(f"{self.peer} ended the stream"))
        both.cancel()

    async def _send(self, stream: Stream) -> None:
        while True:
            while self._outgoing:
                _, parts = self._outgoing.popitem(last=False)
                with trio.fail_after(SENDING_SECONDS):
                    for part in parts:
                        await stream.send_all(part)
            self._has_outgoing = trio.Event()
            await self._has_outgoing.wait()

    async def _receive(self, stream: Stream) -> None:
        frames = FrameDecoder()
        while data := await stream.receive_some(READ_BYTES):
            for frame in frames.feed(data):
                envelope = decode(frame)
                waiter = self._waiting.get(envelope.request_id)
                if waiter is not None:  # else the asker has gone
                    waiter.answer = envelope.message
                    waiter.done.set()

    def _failed(self) -> PeerError:
        """The failure, as an exception of one's own: many askers raise it."""
        failure = self.failure or Unreachable(f"the stream to {self.peer} was closed")
        return type(failure)(failure.message)

    def _fail(self, failure: PeerError) -> None:
        if self.failure is not None:
            return
        self.failure = failure
        self._outgoing.clear()
        for waiter in self._waiting.values():
            waiter.done.set()


def _checked(peer: PeerId, message: Request, answer: Message) -> Response:
    wanted = _ANSWERS[type(message)]
    if isinstance(answer, Refusal):
        raise PeerRefused(f"{peer} refused: {answer.message} ({answer.code})", refusal=str(answer.code))
    if not isinstance(answer, wanted):
        raise ProtocolViolation(f"{peer} answered {type(message).__name__} with {type(answer).__name__}")
    return answer


def _deadline_ms() -> int:
    """How long the caller will wait from now on, as the wire says it: 0 would mean that it was not said."""
    left_seconds = trio.current_effective_deadline() - trio.current_time()
    return max(1, min(LONGEST_DEADLINE_MS, math.ceil(max(0.0, min(left_seconds, LONGEST_DEADLINE_MS)) * 1000)))


def _size_of(message: Request) -> int:
    """About the bytes of its frame: known before it is made, so that what waits for the window holds no copy."""
    return SMALL_FRAME_BYTES + (len(message.data) if isinstance(message, StoreChunk) else 0)
