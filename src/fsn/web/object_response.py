"""Answering with an object's bytes: the status waits for the first piece, and no body ends cleanly with too few bytes."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from types import TracebackType

import attrs
import trio
from quart import Response
from quart.wrappers.response import ResponseBody

from fsn.core.errors import Corrupt
from fsn.web.operations import Answer
from fsn.web.problems import problem_response
from fsn.web.quart_front import current_request
from fsn.web.ranges import ObjectFacts, Outcome, Selection, content_disposition, select, validators_of

__all__ = ["OBJECT_ANSWERS", "OBJECT_HEADERS", "OBJECT_REQUEST_HEADERS", "OpenBody", "object_response"]

OBJECT_REQUEST_HEADERS = {
    "Range": "Up to 16 ranges, e.g. `bytes=0-99`, `bytes=-100`.",
    "If-Range": "The ETag or Last-Modified of an earlier part: with another object the range is ignored.",
    "If-Match": "ETags: 412 unless the object's is among them.",
    "If-None-Match": "ETags: 304 if the object's is among them.",
    "If-Modified-Since": "304 if the object is as old.",
    "If-Unmodified-Since": "412 if the object is newer.",
}
_VALIDATORS = {
    "ETag": "Strong.",
    "Last-Modified": "When the object became what it is.",
    "Cache-Control": "Keep, and ask.",
}
OBJECT_HEADERS = {
    **_VALIDATORS,
    "Accept-Ranges": "bytes",
    "Content-Disposition": "The file's name, in UTF-8 where it must be (RFC 8187).",
}
OBJECT_ANSWERS = (
    Answer(
        status=206, summary="The range asked for; of several ranges multipart/byteranges.",
        produces="application/octet-stream", headers={**OBJECT_HEADERS, "Content-Range": "Which bytes; not with several ranges."},
    ),
    Answer(status=304, summary="The object is as the client knows it.", headers=_VALIDATORS),
    Answer(status=412, summary="The object is another one.", code="precondition_failed", headers=_VALIDATORS),
    Answer(
        status=416, summary="No range asked for lies within.", code="range_not_satisfiable",
        headers={**_VALIDATORS, "Content-Range": "The object's size: `bytes */1000`."},
    ),
)  # fmt: skip
"""What `object_response` heeds and answers, for the declaration of an operation."""
OpenBody = Callable[[int, int], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""`async with open_body(begin, end) as pieces`: exactly the bytes from `begin` to before `end`, in pieces of any size but none empty."""


async def object_response(open_body: OpenBody, facts: ObjectFacts) -> Response:
    """The response to the GET or HEAD at hand: 200, 206 (one range or multipart/byteranges), 304, 412 or 416.

    `open_body` is entered, iterated and left in one task of its own, which lives in the request's nursery: it may hold a nursery with
    read-ahead, and the caller may have any deadline around this call. The first piece is awaited here, so an error until then
    (also an ExceptionGroup, as nurseries make them) is raised here and becomes a proper problem; a later one cuts the
    connection. The task is cancelled when the client leaves or the response ends. HEAD, 304, 412, 416 and empty objects open nothing.
    """
    request = current_request()
    selection = select(request.method, request.headers, facts)
    headers = validators_of(facts) | {"Accept-Ranges": "bytes"}
    if selection.outcome is Outcome.NOT_MODIFIED:
        return _not_modified(headers)
    if selection.outcome is Outcome.PRECONDITION_FAILED:
        return problem_response(
            412, "precondition_failed", "the object is not the one that the request's condition names", headers=headers
        )
    if selection.outcome is Outcome.NOT_SATISFIABLE:
        headers["Content-Range"] = f"bytes */{facts.size_bytes}"
        detail = f"the object has {facts.size_bytes} bytes; no range asked for lies within"
        return problem_response(416, "range_not_satisfiable", detail, headers=headers)
    if facts.filename is not None:
        headers["Content-Disposition"] = content_disposition(facts.filename)
    return await _with_body(open_body, facts, selection, headers, is_head=request.method == "HEAD")


def _not_modified(headers: dict[str, str]) -> Response:
    response = Response(b"", 304, headers)
    # The object's length or none (RFC 9110 section 8.6), not that of a body which a 304 never has.
    del response.headers["Content-Length"]
    return response


async def _with_body(
    open_body: OpenBody, facts: ObjectFacts, selection: Selection, headers: dict[str, str], *, is_head: bool
) -> Response:
    plan = _plan(facts, selection)
    body: ResponseBody | bytes = b""
    if plan.length and not is_head:
        body = await _StreamedBody.start(current_request().nursery, open_body, plan)
    response = Response(body, 206 if selection.outcome is Outcome.PARTIAL else 200, headers | plan.headers)
    response.content_length = plan.length
    response.timeout = None
    return response


@attrs.frozen
class _Plan:
    """What the body is made of: sections of (bytes that lead in, begin, end), a tail, the length of it all, and its headers."""

    sections: Sequence[tuple[bytes, int, int]]
    tail: bytes
    headers: dict[str, str]

    @property
    def length(self) -> int:
        return sum(len(lead) + end - begin for lead, begin, end in self.sections) + len(self.tail)


def _plan(facts: ObjectFacts, selection: Selection) -> _Plan:
    if len(selection.ranges) > 1:
        return _multipart_plan(facts, selection.ranges)
    begin, end = selection.ranges[0]
    headers = {"Content-Type": facts.content_type}
    if selection.outcome is Outcome.PARTIAL:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{facts.size_bytes}"
    return _Plan([(b"", begin, end)], b"", headers)


def _multipart_plan(facts: ObjectFacts, ranges: Sequence[tuple[int, int]]) -> _Plan:
    boundary = secrets.token_hex(12)
    sections = []
    for number, (begin, end) in enumerate(ranges):
        lead = (
            f"--{boundary}\r\nContent-Type: {facts.content_type}\r\n"
            f"Content-Range: bytes {begin}-{end - 1}/{facts.size_bytes}\r\n\r\n"
        )
        sections.append((("\r\n" * (number > 0) + lead).encode("latin-1", "replace"), begin, end))
    tail = f"\r\n--{boundary}--\r\n".encode()
    return _Plan(sections, tail, {"Content-Type": f"multipart/byteranges; boundary={boundary}"})


@attrs.frozen
class _Failure:
    """An error on its way from the task that reads to the one that answers."""

    error: Exception


def _closed_after(pieces: AsyncIterator[bytes]) -> AbstractAsyncContextManager[object]:
    """A generator that is left in the middle must be closed, not left to the garbage collector."""
    return aclosing(pieces) if isinstance(pieces, AsyncGenerator) else nullcontext()


class _StreamedBody(ResponseBody):
    """Takes pieces from the reading task, which is one piece ahead of the socket."""

    def __init__(self) -> None:
        # No room in between: the reader fetches the next piece while this one is being sent, and holds no third.
        self._send, self._receive = trio.open_memory_channel[bytes | _Failure](0)
        self._scope = trio.CancelScope()
        self._first: bytes | None = None

    @classmethod
    async def start(cls, nursery: trio.Nursery, open_body: OpenBody, plan: _Plan) -> "_StreamedBody":
        """Start reading; returns with the first piece at hand, or raises why there is none. Cancelling leaves the reader cancelled."""
        body = cls()
        nursery.start_soon(body._run, open_body, plan)
        is_started = False
        try:
            body._first = await body._next_piece()
            is_started = True
        finally:
            if not is_started:
                body._scope.cancel()
        return body

    async def _run(self, open_body: OpenBody, plan: _Plan) -> None:
        with self._scope, self._send:
            try:
                for lead, begin, end in plan.sections:
                    await self._copy(open_body, lead, begin, end)
                if plan.tail:
                    await self._send.send(plan.tail)
            except Exception as error:  # noqa: BLE001 - handed over whole: the answering task raises it
                await self._send.send(_Failure(error))

    async def _copy(self, open_body: OpenBody, lead: bytes, begin: int, end: int) -> None:
        missing = end - begin
        async with open_body(begin, end) as pieces, _closed_after(pieces):
            async for piece in pieces:
                missing -= len(piece)
                if missing < 0:
                    break
                await self._send.send(lead + piece if lead else piece)
                lead = b""
        if missing:
            found = end - begin - missing
            raise Corrupt(
                f"bytes {begin} to {end} of an object are {end - begin}; {'more' if missing < 0 else found} were read"
            )

    async def _next_piece(self) -> bytes:
        item = await self._receive.receive()
        if isinstance(item, _Failure):
            raise item.error
        return item

    async def __aenter__(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            piece, self._first = self._first, None
            return piece
        try:
            return await self._next_piece()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._scope.cancel()
