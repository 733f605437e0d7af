"""Asking peers: many requests, pipelined, on one long-lived stream for each peer and protocol."""

import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import structlog
import trio

from fsn.core.errors import PeerError, PeerRefused, PeerTimeout, ProtocolViolation, Unreachable
from fsn.core.ids import PeerId
from fsn.p2p.transport.base import Stream, Transport
from fsn.p2p.wire.codec import decode, encode
from fsn.p2p.wire.framing import FrameDecoder
from fsn.p2p.wire.messages import PROTOCOL_OF, Refusal, Request, Response, StoreChunk
from fsn.runtime.window import Window

__all__ = ["Requester", "open_requester"]

log = structlog.get_logger()

WINDOW_BYTES = 8 << 20
"""Request bytes that may be queued or unanswered on one stream; more wait their turn."""
OPENING_SECONDS = 10.0
SMALL_FRAME_BYTES = 256
READ_BYTES = 512 << 10


@asynccontextmanager
async def open_requester(transport: Transport, *, window_bytes: int = WINDOW_BYTES) -> AsyncIterator["Requester"]:
    """A requester over `transport`; its streams live in this block's nursery and end with it."""
    async with trio.open_nursery() as nursery:
        yield Requester(transport, nursery, window_bytes)
        nursery.cancel_scope.cancel()


class Requester:
    """Sends requests to connected peers and matches the answers. Never dials."""

    def __init__(self, transport: Transport, nursery: trio.Nursery, window_bytes: int) -> None:
        self._transport = transport
        self._nursery = nursery
        self._window_bytes = window_bytes
        self._channels: dict[tuple[PeerId, str], _Channel] = {}

    async def request(self, peer: PeerId, message: Request, *, within_seconds: float) -> Response:
        """The peer's answer.

        Raises Unreachable (no connection, or it broke: the request may have been carried out all the same), PeerTimeout, PeerRefused,
        ProtocolViolation. Cancelled, it disturbs no other request; the peer may carry it out all the same.
        """
        with trio.move_on_after(within_seconds):
            answer = await self._channel(peer, PROTOCOL_OF[type(message)]).ask(message, within_seconds)
            if isinstance(answer, Refusal):
                raise PeerRefused(f"{peer} refused: {answer.message} ({answer.code})", refusal=str(answer.code))
            return answer
        raise PeerTimeout(f"{peer} did not answer {type(message).__name__} within {within_seconds:g} s")

    def in_flight_bytes(self, peer: PeerId, protocol: str) -> int:
        """Request bytes queued or unanswered at `peer` on `protocol`: how busy it is with us."""
        channel = self._channels.get((peer, protocol))
        return channel.window.taken_bytes if channel is not None else 0

    def _channel(self, peer: PeerId, protocol: str) -> "_Channel":
        channel = self._channels.get((peer, protocol))
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
    answer: Response | None = None


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
        self._outgoing: deque[tuple[int, bytes]] = deque()
        self._has_outgoing = trio.Event()

    async def ask(self, message: Request, within_seconds: float) -> Response:
        number, waiter, size_bytes = next(self._numbers), _Waiter(), _size_of(message)
        await self.window.acquire(size_bytes)
        try:
            if self.failure is not None:
                raise self._failed()
            frame = encode(number, message, deadline_ms=int(within_seconds * 1000))
            self._waiting[number] = waiter
            self._outgoing.append((number, frame))
            self._has_outgoing.set()
            await waiter.done.wait()
        finally:
            self._waiting.pop(number, None)
            self.window.release(size_bytes)
        if waiter.answer is None:
            raise self._failed()
        return waiter.answer

    async def run(self) -> None:
        """Open the stream, move frames both ways until it breaks, then fail whatever waits."""
        try:
            with trio.fail_after(OPENING_SECONDS):
                stream = await self._transport.open_stream(self.peer, self.protocol)
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._until_broken, self._send, stream, nursery.cancel_scope)
                nursery.start_soon(self._until_broken, self._receive, stream, nursery.cancel_scope)
        except PeerError as error:
            self._fail(error)
        except trio.TooSlowError:
            self._fail(Unreachable(f"{self.peer} did not open a stream within {OPENING_SECONDS:g} s"))
        finally:
            self._fail(Unreachable(f"the stream to {self.peer} was closed"))

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
        both.cancel()

    async def _send(self, stream: Stream) -> None:
        while True:
            while self._outgoing:
                number, frame = self._outgoing.popleft()
                if number in self._waiting:  # else the asker has gone: spare the peer the work
                    await stream.send_all(frame)
            self._has_outgoing = trio.Event()
            await self._has_outgoing.wait()

    async def _receive(self, stream: Stream) -> None:
        frames = FrameDecoder()
        while data := await stream.receive_some(READ_BYTES):
            for frame in frames.feed(data):
                envelope = decode(frame)
                waiter = self._waiting.get(envelope.request_id)
                if waiter is not None:  # else the asker has gone
                    waiter.answer = envelope.message  # type: ignore[assignment]
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


def _size_of(message: Request) -> int:
    """About the bytes of its frame: known before it is made, so that what waits for the window holds no copy."""
    return SMALL_FRAME_BYTES + (len(message.data) if isinstance(message, StoreChunk) else 0)
