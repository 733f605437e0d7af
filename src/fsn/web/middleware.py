"""Around every request: its id, one log line, metrics, security headers, and CORS. Wraps the ASGI side of an application."""

import re
import secrets
from collections.abc import Collection, Sequence
from typing import Any, cast
from uuid import UUID

import attrs
import structlog
import trio
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from quart import Quart, request

from fsn.web.problems import REQUEST_ID_KEY

__all__ = ["HttpMetrics", "install_middleware", "note_asker"]

log = structlog.get_logger(__name__)

ROUTE_KEY = "fsn.route"
ASKER_KEY = "fsn.asker"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_GONE = 499
"""Logged (as nginx does) for a client that left before it was answered."""
_SECURITY = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_ALLOWED_HEADERS = (
    b"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, If-Range, Range, X-API-Key, X-Request-Id"
)
_ALLOWED_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_EXPOSED_HEADERS = b"Accept-Ranges, Content-Disposition, Content-Range, ETag, Location, Retry-After, X-Request-Id"
_PREFLIGHT_SECONDS = b"600"

HeaderList = list[tuple[bytes, bytes]]


class HttpMetrics:
    """What is counted of HTTP, in `registry`. Routes are rules, never paths; unknown methods count as `other`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route")
        self.requests = Counter(
            "fsn_http_requests",
            "Requests answered, by status (499: the client left first).",
            (*labels, "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "fsn_http_request_seconds",
            "Seconds from a request's head to the end of its response.",
            labels,
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
        )
        self.received = Counter("fsn_http_received_bytes", "Body bytes that handlers read.", registry=registry)
        self.sent = Counter("fsn_http_sent_bytes", "Body bytes of responses.", registry=registry)
        self.in_flight = Gauge("fsn_http_requests_in_flight", "Requests being answered.", registry=registry)


def install_middleware(app: Quart, *, metrics: HttpMetrics, cors_origins: Collection[str] = ()) -> None:
    """Wrap `app`. Each response gets `X-Request-Id`: the client's own if it is 1 to 64 of `A-Z a-z 0-9 . _ -`, else a new one.

    The id is in problem documents, and bound for every log line of the request. `cors_origins` as in HttpConfig.
    """
    app.before_request(_note_route)
    app.asgi_app = _Middleware(app.asgi_app, metrics, _Cors(frozenset(cors_origins)))  # type: ignore[method-assign]


async def _note_route() -> None:
    if request.url_rule is not None:
        cast(dict[str, Any], request.scope)[ROUTE_KEY] = request.url_rule.rule


def note_asker(**ids: UUID) -> None:
    """For the log line of the request at hand: who asks, e.g. `user=...`."""
    cast(dict[str, Any], request.scope)[ASKER_KEY] = {name: str(value) for name, value in ids.items()}


class _Middleware:
    def __init__(self, app: ASGIFramework, metrics: HttpMetrics, cors: "_Cors") -> None:
        self._app = app
        self._metrics = metrics
        self._cors = cors

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._cors)
        with (
            structlog.contextvars.bound_contextvars(request_id=exchange.request_id),
            self._metrics.in_flight.track_inprogress(),
        ):
            try:
                if exchange.is_preflight:
                    await exchange.answer_preflight()
                else:
                    await self._app(scope, exchange.receive, exchange.send)
            except Exception:
                exchange.note_failure()
                raise
            finally:
                exchange.record(self._metrics)


class _Exchange:
    """One request and its response, as they pass by."""

    def __init__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable, cors: "_Cors") -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._cors = cors
        self._headers = {name.lower(): value for name, value in scope["headers"]}
        self._began = trio.current_time()
        self._status = 0
        self._received_bytes = 0
        self._sent_bytes = 0
        self._is_complete = False
        self._is_body_due = self._announces_body()
        self._has_failed = False
        self.request_id = self._request_id()
        cast(dict[str, Any], scope)[REQUEST_ID_KEY] = self.request_id

    def _request_id(self) -> str:
        given = self._headers.get(b"x-request-id", b"")
        return given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)

    def _announces_body(self) -> bool:
        return b"transfer-encoding" in self._headers or self._headers.get(b"content-length", b"0") != b"0"

    async def receive(self) -> ASGIReceiveEvent:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received_bytes += len(message["body"])
            self._is_body_due = self._is_body_due and message.get("more_body", False)
        return message

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [*message["headers"], *self._added_headers()]
        elif message["type"] == "http.response.body":
            self._sent_bytes += 0 if self._scope["method"] == "HEAD" else len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    def _added_headers(self) -> HeaderList:
        return [
            (b"x-request-id", self.request_id.encode()),
            *_SECURITY,
            *self._cors.headers(self._headers.get(b"origin")),
        ]

    @property
    def is_preflight(self) -> bool:
        return self._scope["method"] == "OPTIONS" and self._cors.is_preflight(self._headers)

    async def answer_preflight(self) -> None:
        headers = self._cors.preflight_headers()
        await self.send({"type": "http.response.start", "status": 204, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    def note_failure(self) -> None:
        """The application raised; unless an answer has begun, the server says 500."""
        self._status = self._status or 500
        self._has_failed = True

    @property
    def _outcome(self) -> str:
        """How it ended: `answered`; `left_in_body`, `left` (the client, before an answer); `cut` (in an answer); `failed` (a bug)."""
        if self._is_complete:
            return "answered"
        if self._has_failed:
            return "failed"
        if self._status:
            return "cut"
        return "left_in_body" if self._is_body_due else "left"

    def record(self, metrics: HttpMetrics) -> None:
        """One log line and the metrics: method, route, status, seconds, bytes, who asked; never paths, queries or names of files."""
        seconds = trio.current_time() - self._began
        scope = cast(dict[str, Any], self._scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = str(scope.get(ROUTE_KEY, "none"))
        status = self._status or _CLIENT_GONE
        metrics.requests.labels(method, route, str(status)).inc()
        metrics.seconds.labels(method, route).observe(seconds)
        metrics.received.inc(self._received_bytes)
        metrics.sent.inc(self._sent_bytes)
        log.info(
            "http_request",
            method=method,
            route=route,
            status=status,
            seconds=round(seconds, 6),
            received_bytes=self._received_bytes,
            sent_bytes=self._sent_bytes,
            outcome=self._outcome,
            **scope.get(ASKER_KEY, {}),
        )


@attrs.frozen
class _Cors:
    """Which pages may call us from a browser. Credentials are bearer tokens, never cookies, so none are allowed to be sent along."""

    origins: frozenset[str]

    def headers(self, origin: bytes | None) -> Sequence[tuple[bytes, bytes]]:
        if not self.origins:
            return ()
        if not self._is_allowed(origin):
            return ((b"vary", b"Origin"),)
        allowed = b"*" if "*" in self.origins else origin or b""
        return (
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _EXPOSED_HEADERS),
            (b"vary", b"Origin"),
        )

    def is_preflight(self, headers: dict[bytes, bytes]) -> bool:
        return b"access-control-request-method" in headers and self._is_allowed(headers.get(b"origin"))

    def preflight_headers(self) -> HeaderList:
        return [
            (b"access-control-allow-methods", _ALLOWED_METHODS),
            (b"access-control-allow-headers", _ALLOWED_HEADERS),
            (b"access-control-max-age", _PREFLIGHT_SECONDS),
        ]

    def _is_allowed(self, origin: bytes | None) -> bool:
        return origin is not None and ("*" in self.origins or origin.decode("latin-1") in self.origins)
