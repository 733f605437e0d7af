"""Ranges and conditions: the decision as a table, and whole responses over a real connection, errors and leaving included."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import attrs
import httpx
import pytest
import trio
from quart import Response
from structlog.testing import capture_logs
from werkzeug.datastructures import Headers

from fsn.core.errors import TooFewCopies
from fsn.web.config import HttpConfig
from fsn.web.object_response import object_response
from fsn.web.problems import install_problems
from fsn.web.quart_front import FrontQuart
from fsn.web.ranges import ObjectFacts, Outcome, content_disposition, parse_ranges, select
from fsn.web.server import serve_http

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)
MODIFIED = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
FACTS = ObjectFacts(size_bytes=SIZE, etag="abc", last_modified=MODIFIED, filename="Отчёт.bin")
BEFORE, EXACT, AFTER = "Fri, 02 Jan 2026 03:04:04 GMT", "Fri, 02 Jan 2026 03:04:05 GMT", "Fri, 02 Jan 2026 03:04:06 GMT"


@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        ("bytes=0-99", ((0, 100),)),
        ("bytes=90-", ((90, 100),)),
        ("bytes=-10", ((90, 100),)),
        ("bytes=-1000", ((0, 100),)),
        ("bytes=50-1000", ((50, 100),)),
        ("Bytes = 0-0 , 99-99", ((0, 1), (99, 100))),
        ("bytes=100-", ()),
        ("bytes=-0", ()),
        ("bytes=0-1,200-300", ((0, 2),)),
        ("bytes=5-4", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("lines=0-5", None),
        ("bytes=0-99,0-99", None),
        ("bytes=" + ",".join(["0-0"] * 17), None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_range_headers(header: str, ranges: tuple[tuple[int, int], ...] | None) -> None:
    """A Range header gives its satisfiable ranges within 100 bytes, none, or is ignored."""
    assert parse_ranges(header, 100) == ranges


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({}, Outcome.WHOLE),
        ({"If-None-Match": '"abc"'}, Outcome.NOT_MODIFIED),
        ({"If-None-Match": 'W/"abc"'}, Outcome.NOT_MODIFIED),
        ({"If-None-Match": '"x"', "If-Modified-Since": AFTER}, Outcome.WHOLE),
        ({"If-Modified-Since": EXACT}, Outcome.NOT_MODIFIED),
        ({"If-Modified-Since": BEFORE}, Outcome.WHOLE),
        ({"If-Modified-Since": "yesterday"}, Outcome.WHOLE),
        ({"If-Match": '"abc"'}, Outcome.WHOLE),
        ({"If-Match": "*"}, Outcome.WHOLE),
        ({"If-Match": 'W/"abc"'}, Outcome.PRECONDITION_FAILED),
        ({"If-Match": '"x"'}, Outcome.PRECONDITION_FAILED),
        ({"If-Match": '"abc"', "If-Unmodified-Since": BEFORE}, Outcome.WHOLE),
        ({"If-Unmodified-Since": BEFORE}, Outcome.PRECONDITION_FAILED),
        ({"If-Unmodified-Since": EXACT}, Outcome.WHOLE),
        ({"If-Match": '"x"', "If-None-Match": '"abc"'}, Outcome.PRECONDITION_FAILED),
        ({"If-None-Match": '"abc"', "Range": "bytes=0-1"}, Outcome.NOT_MODIFIED),
        ({"Range": "bytes=0-1"}, Outcome.PARTIAL),
        ({"Range": "bytes=99999-"}, Outcome.NOT_SATISFIABLE),
        ({"Range": "bytes=0-1", "If-Range": '"abc"'}, Outcome.PARTIAL),
        ({"Range": "bytes=0-1", "If-Range": '"x"'}, Outcome.WHOLE),
        ({"Range": "bytes=0-1", "If-Range": 'W/"abc"'}, Outcome.WHOLE),
        ({"Range": "bytes=0-1", "If-Range": EXACT}, Outcome.PARTIAL),
        ({"Range": "bytes=0-1", "If-Range": AFTER}, Outcome.WHOLE),
    ],
)
def test_conditions_in_the_order_of_rfc_9110(headers: dict[str, str], outcome: Outcome) -> None:
    """Each condition, and their precedence over one another, decides as section 13.2.2 says."""
    assert select("GET", Headers(headers), FACTS).outcome is outcome


def test_ranges_are_for_get_only() -> None:
    """HEAD describes the whole object whatever its Range says."""
    assert select("HEAD", Headers({"Range": "bytes=0-1"}), FACTS).outcome is Outcome.WHOLE


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.txt", 'attachment; filename="a.txt"'),
        ('q"\\%.txt', "attachment; filename=\"q___.txt\"; filename*=UTF-8''q%22%5C%25.txt"),
        ("ö\r\nX: y", "attachment; filename=\"___X: y\"; filename*=UTF-8''%C3%B6%0D%0AX%3A%20y"),
        ("\ud800", "attachment; filename=\"_\"; filename*=UTF-8''%3F"),
    ],
)
def test_content_disposition(name: str, header: str) -> None:
    """Any name becomes a header without line breaks, with an ASCII likeness and its UTF-8 form."""
    assert content_disposition(name) == header


@attrs.define
class Source:
    """An object whose reading can be made to fail, stall or come short."""

    fail_at: int | None = None
    stall_at: int | None = None
    short_by: int = 0
    opened: int = 0
    closed: int = 0
    error: type[Exception] | None = None
    stalled: trio.Event = attrs.field(factory=trio.Event)
    closed_event: trio.Event = attrs.field(factory=trio.Event)

    @asynccontextmanager
    async def open(self, begin: int, end: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """As a download does: a nursery with a task that reads ahead."""
        self.opened += 1
        send, receive = trio.open_memory_channel[bytes](1)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fill, send, begin, end - self.short_by)
                yield receive
                nursery.cancel_scope.cancel()
        finally:
            self.closed += 1
            self.closed_event.set()

    async def _fill(self, send: trio.MemorySendChannel[bytes], begin: int, end: int) -> None:
        with send:  # not `async with`: its checkpoint would let a cancellation replace the error
            for start in range(begin, end, 1000):
                if self.fail_at is not None and start >= self.fail_at:
                    raise (
                        (self.error or ZeroDivisionError)("a bug")
                        if self.error
                        else TooFewCopies("lost", wanted=1, found=0)
                    )
                if self.stall_at is not None and start >= self.stall_at:
                    self.stalled.set()
                    await trio.sleep_forever()
                await send.send(CONTENT[start : min(start + 1000, end)])


def make_app(source: Source, facts: ObjectFacts = FACTS) -> FrontQuart:
    app = FrontQuart("test")
    install_problems(app)

    @app.get("/object")
    async def get_object() -> Response:
        with trio.fail_after(0.3):  # a deadline that ends before the body does
            return await object_response(source.open, facts)

    return app


@pytest.fixture
def source() -> Source:
    return Source()


Fetch = Callable[..., Awaitable[httpx.Response]]


@asynccontextmanager
async def serving(source: Source, facts: ObjectFacts = FACTS) -> AsyncIterator[int]:
    """A server of `source` on loopback; gives its port."""
    shutdown = trio.Event()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            start = partial(serve_http, make_app(source, facts), HttpConfig(port=0), shutdown=shutdown)
            yield await nursery.start(start)
            shutdown.set()


@pytest.fixture
def fetch(source: Source) -> Fetch:
    async def fetch(
        headers: dict[str, str] | None = None, method: str = "GET", facts: ObjectFacts = FACTS
    ) -> httpx.Response:
        async with serving(source, facts) as port, httpx.AsyncClient() as client:
            return await client.request(method, f"http://127.0.0.1:{port}/object", headers=headers)

    return fetch


async def test_the_whole_object(fetch: Fetch, source: Source) -> None:
    """GET answers every byte with length, validators and name."""
    response = await fetch()
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["Content-Length"] == str(SIZE)
    assert response.headers["ETag"] == '"abc"'
    assert response.headers["Accept-Ranges"] == "bytes"
    assert "UTF-8''%D0%9E" in response.headers["Content-Disposition"]
    assert (source.opened, source.closed) == (1, 1)


async def test_one_range(fetch: Fetch) -> None:
    """One range answers 206 with exactly those bytes."""
    response = await fetch({"Range": "bytes=-300"})
    assert (response.status_code, response.content) == (206, CONTENT[-300:])
    assert response.headers["Content-Range"] == f"bytes {SIZE - 300}-{SIZE - 1}/{SIZE}"


async def test_several_ranges(fetch: Fetch, source: Source) -> None:
    """Several ranges answer multipart/byteranges of exactly the announced length."""
    response = await fetch({"Range": "bytes=0-9,5000-7999"})
    boundary = response.headers["Content-Type"].removeprefix("multipart/byteranges; boundary=").encode()
    first, second = response.content.split(b"--" + boundary)[1:3]
    assert response.status_code == 206
    assert int(response.headers["Content-Length"]) == len(response.content)
    assert first.partition(b"\r\n\r\n")[2] == CONTENT[:10] + b"\r\n"
    assert second.partition(b"\r\n\r\n")[2] == CONTENT[5000:8000] + b"\r\n"
    assert f"bytes 5000-7999/{SIZE}".encode() in second
    assert response.content.endswith(b"--" + boundary + b"--\r\n")
    assert (source.opened, source.closed) == (2, 2)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Range": "bytes=99999-"}, 416), ({"If-Match": '"x"'}, 412), ({"If-None-Match": "*"}, 304)],
)
async def test_no_body_is_opened_for_an_answer_without_one(
    fetch: Fetch, source: Source, headers: dict[str, str], status: int
) -> None:
    """304, 412 and 416 are answered from the facts alone; 416 names the size, 304 none: it would have to be that of the object."""
    response = await fetch(headers)
    assert response.status_code == status
    assert ("Content-Length" in response.headers) is (status != 304)
    assert response.headers.get("Content-Range") == (f"bytes */{SIZE}" if status == 416 else None)
    assert source.opened == 0


async def test_head_and_the_empty_object_open_nothing(fetch: Fetch, source: Source) -> None:
    """HEAD announces the length without reading; an empty object is 200 with no bytes."""
    response = await fetch(method="HEAD")
    assert (response.status_code, response.headers["Content-Length"], response.content) == (200, str(SIZE), b"")
    response = await fetch(facts=attrs.evolve(FACTS, size_bytes=0))
    assert (response.status_code, response.headers["Content-Length"], response.content) == (200, "0", b"")
    assert source.opened == 0


async def test_an_error_before_the_first_byte_is_a_problem(fetch: Fetch, source: Source) -> None:
    """What goes wrong before a byte was sent has its own status, also out of a nursery."""
    source.fail_at = 0
    response = await fetch()
    assert response.status_code == 503, response.text
    assert b'"code":"too_few_copies"' in response.content
    assert source.closed == 1


async def test_a_body_that_is_empty_against_its_word_is_a_problem(fetch: Fetch, source: Source) -> None:
    """A source that gives none of the announced bytes is 500 `corrupt`, not an empty success."""
    source.short_by = SIZE
    response = await fetch()
    assert (response.status_code, b'"code":"corrupt"' in response.content) == (500, True)


async def test_a_bug_before_the_first_byte_is_a_500(fetch: Fetch, source: Source) -> None:
    """An unexpected exception is `internal`, logged, and not told."""
    source.fail_at, source.error = 0, ZeroDivisionError
    with capture_logs() as logs:
        response = await fetch()
    assert (response.status_code, b"bug" in response.content) == (500, False)
    assert [entry["event"] for entry in logs] == ["http_listening", "http_handler_failed", "http_stopped"]


async def _download(source: Source, *, read_bytes: int | None = None) -> bytes:
    """GET over a real connection; to its end, or closed after `read_bytes`."""
    received = b""
    async with serving(source) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /object HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async for data in stream:
            received += data
            if read_bytes is not None and len(received) >= read_bytes:
                break
    return received


@pytest.mark.parametrize("how", ["fails", "short"])
async def test_an_error_after_the_first_byte_cuts_the_connection(source: Source, how: str) -> None:
    """Once bytes went out an error ends the connection before the announced length, and is logged."""
    if how == "fails":
        source.fail_at = 3000
    else:
        source.short_by = 100
    with capture_logs() as logs:
        received = await _download(source)
    head, _, data = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert f"content-length: {SIZE}".encode() in head.lower()
    assert 0 < len(data) < SIZE
    assert CONTENT.startswith(data)
    assert source.closed == 1
    assert "http_response_cut" in [entry["event"] for entry in logs]


async def test_a_client_that_leaves_closes_the_body(source: Source) -> None:
    """Leaving in the middle cancels the reading task and closes what it opened, in its own task."""
    source.stall_at = 3000
    await _download(source, read_bytes=1500)
    assert (source.opened, source.closed) == (1, 1)


async def test_a_deadline_before_the_first_byte_closes_the_body(fetch: Fetch, source: Source) -> None:
    """A caller whose deadline ends first leaves no reader behind."""
    source.stall_at = 0
    with capture_logs():
        response = await fetch()
    assert (response.status_code, source.closed) == (500, 1)
