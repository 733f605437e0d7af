"""Quart-Trio with a request body that is pulled: back-pressure, a counted limit, and a handler that ends when its client leaves."""

import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, cast

import structlog
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent
from quart import request
from quart.utils import encode_headers
from quart.wrappers import Request
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers.request import TrioBody, TrioRequest

from fsn.core.errors import FsnError, TooLarge
from fsn.web.front.tasks import ON_DISCONNECT

__all__ = ["FrontQuart", "FrontRequest", "PullBody", "current_request"]

log = structlog.get_logger(__name__)


class PullBody(TrioBody):
    """The body of a request: `async for piece in request.body`, or `await request.body` for all of it.

    Pieces come as the network brings them (up to 256 KiB) and are taken from the connection only when asked for. Raises TooLarge when
    the body is, or is declared, longer than its limit. A client that goes away cancels the handler instead.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, None)
        self._expected = expected_content_length
        self._limit = max_content_length
        self._received_bytes = 0
        self._whole: bytes | None = None
        self._receive: ASGIReceiveCallable | None = None
        self._gone = trio.Event()

    @property
    def received_bytes(self) -> int:
        """How much has been read so far."""
        return self._received_bytes

    @property
    def limit_bytes(self) -> int | None:
        """The longest body that is accepted; may be set by a handler until it reads."""
        return self._limit

    @limit_bytes.setter
    def limit_bytes(self, limit: int | None) -> None:
        self._limit = limit

    def attach(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive

    async def __anext__(self) -> bytes:
        self._check(self._expected or 0)
        while not self._complete.is_set():
            message = await self._next_message()
            if not message.get("more_body", False):
                self._complete.set()
            if body := message.get("body", b""):
                self._received_bytes += len(body)
                self._check(self._received_bytes)
                return bytes(body)
        raise StopAsyncIteration

    async def _next_message(self) -> dict[str, Any]:
        assert self._receive is not None, "the body was not attached to a connection"
        message: ASGIReceiveEvent = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone.set()
            await trio.sleep_forever()  # FrontHTTPConnection cancels us
        return cast(dict[str, Any], message)

    def _check(self, size_bytes: int) -> None:
        if self._limit is not None and size_bytes > self._limit:
            found = f"{self._expected} are declared" if self._expected is not None else "more were sent"
            raise TooLarge(f"the body may have {self._limit} bytes; {found}", limit_bytes=self._limit)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._read_all().__await__()

    async def _read_all(self) -> bytes:
        if self._whole is None:
            self._whole = b"".join([piece async for piece in self])
        return self._whole

    async def wait_disconnect(self) -> None:
        """The client has gone, as far as one reader of the ASGI channel can know (Quart's test client has no better way)."""
        await self._complete.wait()
        assert self._receive is not None
        while not self._gone.is_set() and (await self._receive())["type"] != "http.disconnect":
            pass

    def clear(self) -> None:
        self._whole = b""

    def append(self, data: bytes) -> None:
        raise NotImplementedError("this body is pulled, nothing is pushed into it")

    def set_result(self, data: bytes) -> None:
        self._whole = data
        self._complete.set()


class FrontRequest(TrioRequest):
    """A request whose body is pulled, with the nursery of its connection's task for what must live as long as the response."""

    body_class = PullBody
    body: PullBody
    nursery: trio.Nursery
    ending: ExitStack
    """What is entered here is left when the response is complete, or cut."""

    @property
    def max_content_length(self) -> int | None:
        """The longest body that is accepted, in bytes."""
        return self.body.limit_bytes

    @max_content_length.setter
    def max_content_length(self, value: int | None) -> None:
        self.body.limit_bytes = value


def current_request() -> FrontRequest:
    """The request that is being handled by this task."""
    return cast(FrontRequest, request._get_current_object())  # type: ignore[attr-defined]


class FrontHTTPConnection(TrioASGIHTTPConnection):
    """One request. quart-trio 0.12 cancels its own nursery while Hypercorn still closes the connection, and reads the body ahead."""

    _is_answered = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def send_and_note(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._is_answered = True
            await send(message)

        request = cast(FrontRequest, self._create_request_from_scope(send))
        request.body.attach(receive)
        with ExitStack() as request.ending:
            await self._handle(request, send_and_note)

    async def _handle(self, request: FrontRequest, send: ASGISendCallable) -> None:
        async with trio.open_nursery() as nursery:
            request.nursery = nursery
            self._watch(nursery, request.body)
            await self._answer(request, send)
            nursery.cancel_scope.cancel()

    def _watch(self, nursery: trio.Nursery, body: PullBody) -> None:
        """Cancel the nursery when the client leaves."""

        def leave() -> None:
            if not self._is_answered:  # else this is only the end of our own response
                nursery.cancel_scope.cancel()

        async def wait() -> None:
            await body.wait_disconnect()
            leave()

        on_disconnect = self.scope["extensions"].get(ON_DISCONNECT)
        if on_disconnect is None:  # Quart's test client
            nursery.start_soon(wait)
        else:
            cast(Any, on_disconnect)(leave)

    async def _answer(self, request: Request, send: ASGISendCallable) -> None:
        response = await self.app.handle_request(request)
        try:
            await self._send_response(send, cast(Any, response))
        except* FsnError as group:
            # Too late for another status: leave the response unfinished, so that the server cuts the connection.
            log.warning("http_response_cut", reasons=[str(error) for error in _leaves(group)])

    async def _send_response(self, send: ASGISendCallable, response: Any) -> None:
        """Quart's, but that a body which is there as a whole goes in one message, and says that it is the last."""
        body = response.response
        if not isinstance(body, DataBody):
            await super()._send_response(send, response)
            return
        headers = encode_headers(response.headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body.data[body.begin : body.end], "more_body": False})


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


class FrontQuart(QuartTrio):
    """Quart for `fsn.web.front`: what took from Quart's own defaults would cut long transfers is off, the front has its own limits."""

    asgi_http_class = FrontHTTPConnection
    request_class = FrontRequest

    def __init__(self, import_name: str, **options: Any) -> None:
        options.setdefault("static_folder", None)
        super().__init__(import_name, **options)
        # Quart's 60 s RESPONSE_TIMEOUT ends every longer download, and its BODY_TIMEOUT every longer upload; sizes are each
        # operation's own affair (fsn.web.operations).
        self.config.update(RESPONSE_TIMEOUT=None, BODY_TIMEOUT=None, MAX_CONTENT_LENGTH=None)

    def log_exception(
        self,
        exception_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None],
    ) -> None:
        """A bug in a handler, with its traceback; the client sees no more than `internal`."""
        log.error("http_handler_failed", exc_info=exception_info if exception_info[0] else sys.exc_info())
