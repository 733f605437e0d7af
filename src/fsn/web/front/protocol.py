"""HTTP/1.1 on one connection: Hypercorn's h11 protocol, with a short way for bodies and no answer before it is due."""

from http import HTTPStatus
from typing import Any

import h11
import msgspec
from h11._readers import ContentLengthReader
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import H11SendableEvent

from fsn.web.front.strict import StrictBuffer, origin_form, request_fault

__all__ = ["FrontProtocol"]

REFUSAL_CHARACTERS = 300
"""h11 repeats what it could not read, which may be long."""
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class FrontProtocol(H11Protocol):
    """Changes against Hypercorn 0.18:

    * a body with Content-Length goes to the application past h11, which copies each byte four times and makes several events a read;
    * `100 Continue` is sent when the application first reads, and with its reason phrase (botocore before 1.31 needs three words);
    * a response's head leaves together with the first piece of its body;
    * an answer that comes before the body was read says that the connection ends with it;
    * what a proxy may read otherwise than we do is refused (request smuggling; see `strict.py`);
    * a pipelined request that waits for its turn does not hold the connection after the client has gone;
    * HTTP/2 and WebSocket upgrades are ignored: such a request is answered over HTTP/1.1 like any other.
    """

    connection: h11.Connection
    _head = b""
    _over = False
    _is_head = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connection._receive_buffer = StrictBuffer(self.config.h11_max_incomplete_size)

    @property
    def is_over(self) -> bool:
        """The connection is closed, or closing: nothing more goes out."""
        return self._over

    @property
    def is_body_awaited(self) -> bool:
        """The client owes body bytes and is not itself waiting for our `100 Continue`."""
        connection = self.connection
        return connection.their_state is h11.SEND_BODY and not connection.they_are_waiting_for_100_continue

    @property
    def may_still_send(self) -> bool:
        """The client is in the middle of a message, so a plain close would reset the connection under our answer."""
        return self.connection.their_state in (h11.SEND_BODY, h11.ERROR)

    async def handle(self, event: Event) -> None:
        if isinstance(event, Closed):
            self._over = True
            await self.can_read.set()
        if isinstance(event, RawData) and (reader := self._direct_reader(event.data)) is not None:
            await self._pass_body(reader, event.data)
        else:
            await super().handle(event)

    def _direct_reader(self, data: bytes) -> ContentLengthReader | None:
        """h11's reader of the current body, if all of `data` belongs to that body and nothing waits before it."""
        connection = self.connection
        if not data or self.stream is None or connection.their_state is not h11.SEND_BODY:
            return None
        reader = connection._reader
        if type(reader) is not ContentLengthReader or connection._receive_buffer or len(data) > reader._remaining:
            return None
        return reader

    async def _pass_body(self, reader: ContentLengthReader, data: bytes) -> None:
        assert self.stream is not None
        self.connection.client_is_waiting_for_100_continue = False
        reader._remaining -= len(data)
        await self.stream.handle(Body(stream_id=STREAM_ID, data=data))
        if reader._remaining == 0:
            await self._handle_events()

    async def _handle_events(self) -> None:
        while not self._over:
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint, str(error)[:REFUSAL_CHARACTERS])
                return
            if event is h11.PAUSED:
                await self._wait_turn()
            elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return
            elif isinstance(event, h11.Request):
                await self._begin(event)
            elif self.stream is None:
                return
            elif isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=STREAM_ID, data=bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                await self.stream.handle(EndBody(stream_id=STREAM_ID))

    async def _wait_turn(self) -> None:
        """A pipelined request waits until the one before it is answered."""
        await self.can_read.clear()
        if not self._over:
            await self.can_read.wait()

    async def _begin(self, request: h11.Request) -> None:
        await self.send(Updated(idle=False))
        self._is_head = request.method == b"HEAD"
        if (fault := request_fault(request)) is not None:
            await self._refuse(400, fault)
        else:
            await self._create_stream(request)

    async def _create_stream(self, request: h11.Request) -> None:
        # Hypercorn's, less WebSocket.
        target, headers = origin_form(request)
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=headers,
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def send_continue(self) -> None:
        """Tell a client that sent `Expect: 100-continue` to go on; nothing when it does not wait (any more)."""
        if self.connection.they_are_waiting_for_100_continue and not self._over:
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and event.status_code >= 200:
            headers = [*event.headers, *self.config.response_headers("h11")]
            # The rest of a body that was not awaited is never read: the next request would be lost with the connection.
            if self.may_still_send or self.keep_alive_requests >= self.config.keep_alive_max_requests:
                headers.append((b"connection", b"close"))
            await self._send_h11_event(_response(event.status_code, headers))
        else:
            await super().stream_send(event)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response) and _has_body(event):
            self._head = data
            return
        if self._head:
            data, self._head = self._head + data, b""
        if data:
            await self.send(RawData(data=data))

    async def _refuse(self, status: int, detail: str) -> None:
        """Answer a message that is not proper HTTP, if nothing was answered yet, and close."""
        if self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = msgspec.json.encode(_problem(status, detail))
            headers = [
                (b"content-type", b"application/problem+json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            await self._send_h11_event(_response(status, [*headers, *self.config.response_headers("h11")]))
            if not self._is_head:
                await self._send_h11_event(h11.Data(data=body))
            await self._send_h11_event(h11.EndOfMessage())
        await self.send(Closed())


def _problem(status: int, detail: str) -> dict[str, object]:
    title = HTTPStatus(status).phrase
    return {"type": "urn:fsn:problem:bad_http", "title": title, "status": status, "detail": detail, "code": "bad_http"}


def _response(status: int, headers: list[tuple[bytes, bytes]]) -> h11.Response:
    return h11.Response(status_code=status, headers=headers, reason=REASONS.get(status, b""))


def _has_body(response: h11.Response) -> bool:
    return any(name == b"content-length" and value != b"0" for name, value in response.headers)
