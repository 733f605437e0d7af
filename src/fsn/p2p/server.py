"""Answering peers: frames in, a bounded number of handlers at work, answers out; and the barrier that survives any handler's bug."""

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
import structlog
import trio

from fsn.core.errors import (
    Conflict,
    Corrupt,
    DiskFull,
    Forbidden,
    FsnError,
    Invalid,
    NotFound,
    PeerRefused,
    ProtocolViolation,
    QuotaExceeded,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from fsn.core.ids import PeerId
from fsn.p2p.gate import Gate
from fsn.p2p.transport.base import Stream, Transport
from fsn.p2p.wire.codec import Envelope, decode, encode_parts
from fsn.p2p.wire.framing import FrameDecoder
from fsn.p2p.wire.messages import PROTOCOL_OF, Refusal, RefusalCode, Request, Response

__all__ = ["RequestHandler", "refusal_for", "serve_requests"]

log = structlog.get_logger()

RequestHandler = Callable[[PeerId, Any], Awaitable[Response]]
"""Answers one request of a peer, whose id the secured connection has proved."""

AT_WORK = 64
"""Requests of one stream under way together: 64 x 256 KiB = 16 MiB. Further frames wait in the stream's receive window."""
LONGEST_SECONDS = 60.0
"""The longest that a handler may take, whatever deadline the peer names."""
SENDING_SECONDS = 60.0
"""A peer that takes longer to accept one answer is cut off; the time that an answer waits behind others does not count."""
READ_BYTES = 512 << 10

_REFUSALS: Mapping[type[FsnError], RefusalCode] = {
    NotFound: RefusalCode.NOT_FOUND,
    Corrupt: RefusalCode.CORRUPT,
    DiskFull: RefusalCode.FULL,
    Invalid: RefusalCode.INVALID,
    Conflict: RefusalCode.INVALID,
    TooLarge: RefusalCode.INVALID,
    Unauthorized: RefusalCode.NOT_AUTHORISED,
    Forbidden: RefusalCode.NOT_AUTHORISED,
    Unavailable: RefusalCode.BUSY,
    QuotaExceeded: RefusalCode.BUSY,
}


def serve_requests(
    transport: Transport,
    handlers: Mapping[type[Request], RequestHandler],
    *,
    may_ask: Callable[[PeerId], bool],
    gate: Gate | None = None,
) -> None:
    """Answer the kinds of requests in `handlers`, each on its own protocol id; peers that `may_ask` denies get NOT_AUTHORISED.

    Requests under way stand in `gate`; once it is closed, further ones get BUSY.
    """
    gate = gate or Gate()
    for kind, handler in handlers.items():
        serving = functools.partial(_serve_stream, kind=kind, handler=handler, may_ask=may_ask, gate=gate)
        transport.serve(PROTOCOL_OF[kind], serving)


def refusal_for(error: FsnError) -> Refusal:
    """What a peer is told of `error`."""
    if isinstance(error, PeerRefused) and error.refusal:
        return Refusal(error.refusal, error.message)
    for kind, code in _REFUSALS.items():
        if isinstance(error, kind):
            return Refusal(code, error.message, retry_after_ms=1000 if error.transient else 0)
    return Refusal(RefusalCode.INTERNAL, error.message)


async def _serve_stream(
    stream: Stream, kind: type[Request], handler: RequestHandler, may_ask: Callable[[PeerId], bool], gate: Gate
) -> None:
    """Serve one stream until the peer closes it, breaks it or breaks the protocol; returns in each of these cases."""
    service = _Service(stream, kind, handler, may_ask, gate)
    try:
        async with trio.open_nursery() as nursery:
            await service.receive(nursery)
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        log.debug("stream_broke", peer=stream.peer, protocol=stream.protocol)
    except* trio.TooSlowError:
        log.warning("peer_does_not_read", peer=stream.peer, protocol=stream.protocol, seconds=SENDING_SECONDS)
    except* ProtocolViolation as group:
        log.warning("protocol_violation", peer=stream.peer, protocol=stream.protocol, reason=str(group.exceptions[0]))


@attrs.define
class _Service:
    stream: Stream
    kind: type[Request]
    handler: RequestHandler
    may_ask: Callable[[PeerId], bool]
    gate: Gate
    _room: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(AT_WORK))
    _sending: trio.Lock = attrs.field(factory=trio.Lock)

    async def receive(self, nursery: trio.Nursery) -> None:
        frames = FrameDecoder()
        while data := await self.stream.receive_some(READ_BYTES):
            for frame in frames.feed(data):
                envelope = decode(frame)
                await _acquire(self._room)
                if self.may_ask(self.stream.peer):
                    nursery.start_soon(self._answer, envelope)
                else:
                    await self._answer(envelope)  # one after the other: of a stranger's bytes one request is held

    async def _answer(self, envelope: Envelope) -> None:
        try:
            with self.gate:
                parts = await self._handle(envelope)
                await self._send(parts)
        finally:
            self._room.release()

    async def _send(self, parts: Sequence[bytes | memoryview]) -> None:
        await _acquire(self._sending)
        try:
            with trio.fail_after(SENDING_SECONDS):
                for part in parts:
                    await self.stream.send_all(part)
        finally:
            self._sending.release()

    async def _handle(self, envelope: Envelope) -> list[bytes | memoryview]:
        """The answer to one request, encoded. The barrier: a handler's bug is logged and becomes a refusal."""
        try:
            return encode_parts(envelope.request_id, await self._outcome(envelope))
        except FsnError as error:
            answer = refusal_for(error)
        except Exception:
            log.exception("handler_failed", peer=self.stream.peer, request=self.kind.__name__)
            answer = Refusal(
                RefusalCode.INTERNAL, "the request failed inside; the log of the one who was asked says more"
            )
        return encode_parts(envelope.request_id, answer)

    async def _outcome(self, envelope: Envelope) -> Response:
        """Who may ask is judged at each request: a stream lives long, and its peer may register or be struck off meanwhile."""
        request, peer = envelope.message, self.stream.peer
        if not self.may_ask(peer):
            return Refusal(RefusalCode.NOT_AUTHORISED, f"{peer} is not known here: register first")
        if not isinstance(request, self.kind):
            return Refusal(RefusalCode.INVALID, f"{type(request).__name__} is not spoken on {self.stream.protocol}")
        if self.gate.is_closed:
            return self.gate.refusal
        limit = min(envelope.deadline_ms / 1000 or LONGEST_SECONDS, LONGEST_SECONDS)
        with trio.move_on_after(limit):
            return await self.handler(peer, request)
        return Refusal(RefusalCode.BUSY, f"no answer within {limit:g} s", retry_after_ms=1000)


async def _acquire(what: trio.Lock | trio.Semaphore) -> None:
    """As `what.acquire()`, without a trip through the scheduler where nobody has to wait: 20 us, three times a request."""
    try:
        what.acquire_nowait()
    except trio.WouldBlock:
        await what.acquire()
