"""One coordinator over HTTP: the pool of connections, the token, deadlines, and one way each for JSON and for streams."""

import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import attrs
import httpx
import trio

from fsn.client.problems import error_of_problem, http_errors
from fsn.client.retrying import Retrying
from fsn.core.errors import Invalid, ProtocolViolation

__all__ = ["Body", "Connection", "Timeouts"]

_IDEMPOTENT = frozenset({"GET", "HEAD", "DELETE"})
_MAX_ERROR_BYTES = 64 * 1024
"""A problem document is far smaller; whatever a stranger's server sends beyond is not read."""


@attrs.frozen
class Timeouts:
    """Seconds that each kind of waiting may last. They bound silence, not the whole transfer: for that use `trio.fail_after`.

    `answer_seconds` also covers the server's work after the last byte of an upload, when replicas are being stored.
    """

    connect_seconds: float = 10.0
    answer_seconds: float = 60.0
    send_seconds: float = 60.0


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(f"a URL like http://localhost:8080 is wanted; got {url!r}")
    return url.rstrip("/")


class Connection:
    """An `httpx.AsyncClient` (HTTP/1.1) bound to one coordinator. Every error that leaves it is an FsnError.

    `headers` go with each request. A proxy set in the environment is used, except for a coordinator on this machine.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        timeouts: Timeouts,
        retrying: Retrying,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._own = dict(headers or {})
        self.url = _checked_url(url)
        self.token = token
        self.retrying = retrying
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(
                timeouts.answer_seconds,
                connect=timeouts.connect_seconds,
                write=timeouts.send_seconds,
                pool=timeouts.answer_seconds,
            ),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=20.0),
            trust_env=not _is_loopback(self.url),
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
            await self._http.__aexit__(kind, error, traceback)

    def _headers(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        authorization = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return {**self._own, **authorization, **(extra or {})}

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content: bytes | None = None,
        idempotent: bool | None = None,
    ) -> Any:
        """The JSON answer (None for an empty one) to one request, its own body JSON (`body`) or raw (`content`).

        Sent again after a transient error only when it is `idempotent` (GET, HEAD and DELETE are).
        """

        async def attempt() -> Any:
            return await self._call_once(method, path, params, body, content)

        again = method in _IDEMPOTENT if idempotent is None else idempotent
        return await (self.retrying.call(attempt) if again else attempt())

    async def _call_once(
        self, method: str, path: str, params: Mapping[str, str] | None, body: object, content: bytes | None
    ) -> Any:
        headers = {"Content-Type": "application/octet-stream"} if content is not None else {}
        with http_errors(self.url):
            response = await self._http.request(
                method, path, params=params, json=body, content=content, headers=self._headers(headers)
            )
        return self._json(response)

    async def send_stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        stream: httpx.AsyncByteStream,
        size_bytes: int | None,
    ) -> Any:
        """The JSON answer to a request whose body is `stream`, sent once. An exception that `stream` raises comes out as it is.

        `size_bytes` None sends the body chunked.
        """
        length = {"Transfer-Encoding": "chunked"} if size_bytes is None else {"Content-Length": str(size_bytes)}
        headers = self._headers({"Content-Type": "application/octet-stream", **length})
        with http_errors(self.url):
            request = self._http.build_request(method, path, params=params, headers=headers)
            request.stream = stream
            response = await self._http.send(request)
        return self._json(response)

    def _json(self, response: httpx.Response) -> Any:
        if not response.is_success:
            raise error_of_problem(response)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise ProtocolViolation(f"{self.url} should answer in JSON; is this a coordinator's address?") from error

    def open_stream(self, path: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager["Body"]:
        """The answer to a GET, its body not yet read; problems are raised on entering. Not sent again."""
        return self._open_stream(path, headers)

    @asynccontextmanager
    async def _open_stream(self, path: str, headers: Mapping[str, str]) -> AsyncIterator["Body"]:
        # identity: a range of compressed bytes would be a range of something else
        headers = self._headers({"Accept-Encoding": "identity", **headers})
        with http_errors(self.url):
            response = await self._http.send(self._http.build_request("GET", path, headers=headers), stream=True)
        body = Body(response, self.url)
        try:
            if not response.is_success:
                raise error_of_problem(await body.whole(_MAX_ERROR_BYTES))
            yield body
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                await body.aclose()


class Body:
    """A response whose body arrives in pieces of up to 64 KiB: an iterator of bytes. A cut raises Unreachable, silence PeerTimeout."""

    def __init__(self, response: httpx.Response, url: str) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._pieces = response.aiter_raw()
        self._url = url

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with http_errors(self._url):
            return await anext(self._pieces)

    async def whole(self, limit_bytes: int) -> httpx.Response:
        """The response with at most the first `limit_bytes` of its body (and a piece) read."""
        content = bytearray()
        async for piece in self:
            content += piece
            if len(content) > limit_bytes:
                break
        return httpx.Response(self.status, headers=self.headers, content=bytes(content))

    async def aclose(self) -> None:
        """Give the connection back (body read to its end) or close it. Harmless to repeat."""
        await self._response.aclose()
        # httpx and httpcore read through five nested async generators. Left suspended they are finalised by the garbage
        # collector, which trio warns of; reading on from the closed connection ends them all, innermost first.
        with suppress(httpx.HTTPError, httpx.StreamError, trio.ClosedResourceError):
            async for _ in self._pieces:
                pass
