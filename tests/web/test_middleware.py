"""What surrounds every request: ids, the log line, metrics, security headers, CORS."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
import trio
from prometheus_client import CollectorRegistry
from quart import Response
from quart.typing import TestClientProtocol as Client
from structlog.testing import capture_logs

from fsn.core.errors import NotFound
from fsn.web.config import HttpConfig
from fsn.web.middleware import HttpMetrics, install_middleware, note_asker
from fsn.web.problems import install_problems
from fsn.web.quart_front import FrontQuart, current_request
from fsn.web.server import serve_http

PAGE = "https://app.example.org"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def make_app(registry: CollectorRegistry, *origins: str) -> FrontQuart:
    app = FrontQuart("test")
    install_problems(app)
    install_middleware(app, metrics=HttpMetrics(registry), cors_origins=origins)

    @app.put("/files/<name>")
    async def put_file(name: str) -> str:
        structlog.get_logger("handler").info("in_handler")
        return f"{len(await current_request().body)} bytes"

    @app.get("/missing")
    async def missing() -> str:
        raise NotFound("nothing here")

    @app.get("/wait")
    async def wait() -> str:
        app.config["WAITING"].set()
        await trio.Event().wait()
        return ""

    return app


@pytest.fixture
def client(registry: CollectorRegistry) -> Client:
    return make_app(registry, PAGE).test_client()


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("abc-DEF_1.2", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("", False), ("é", False)],
)
async def test_a_sane_request_id_is_kept_and_another_is_made(client: Client, given: str, is_kept: bool) -> None:
    """The client's X-Request-Id comes back if it is sane; otherwise the response has a fresh one."""
    response = await client.get("/missing", headers={"X-Request-Id": given})
    answered = response.headers["X-Request-Id"]
    assert (answered == given) is is_kept
    assert answered
    assert (await response.get_json(force=True))["request_id"] == answered


async def test_one_log_line_tells_the_route_and_never_the_path(client: Client) -> None:
    """A request is logged once, with its rule, status, bytes and time; names of files and queries are not in it."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        await client.put("/files/diary.txt?token=secret", data=b"12345", headers={"X-Request-Id": "r1"})
    inner, line = logs
    assert (inner["event"], inner["request_id"]) == ("in_handler", "r1")
    assert line.pop("seconds") >= 0
    assert line == {
        "event": "http_request",
        "log_level": "info",
        "request_id": "r1",
        "method": "PUT",
        "route": "/files/<name>",
        "status": 200,
        "received_bytes": 5,
        "sent_bytes": 7,
        "outcome": "answered",
    }


async def test_requests_are_counted_by_route(client: Client, registry: CollectorRegistry) -> None:
    """Metrics count requests by rule and status, and bytes; strange methods and paths make no new series."""
    for name in ("a", "b"):
        await client.put(f"/files/{name}", data=b"123")
    await client.open("/nowhere/at/all", method="BREW", json=None)

    def value(name: str, **labels: Any) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("fsn_http_requests_total", method="PUT", route="/files/<name>", status="200") == 2
    assert value("fsn_http_requests_total", method="other", route="none", status="404") == 1
    assert value("fsn_http_request_seconds_count", method="PUT", route="/files/<name>") == 2
    assert value("fsn_http_received_bytes_total") == 6
    assert value("fsn_http_requests_in_flight") == 0


async def test_a_client_that_leaves_is_logged_as_such(registry: CollectorRegistry) -> None:
    """A request whose client left before an answer is logged with 499 as `left`."""
    shutdown = trio.Event()
    with trio.fail_after(5), capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            app = make_app(registry)
            app.config["WAITING"] = trio.Event()
            port = await nursery.start(
                lambda task_status: serve_http(app, HttpConfig(port=0), shutdown=shutdown, task_status=task_status)
            )
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
                await app.config["WAITING"].wait()
                assert registry.get_sample_value("fsn_http_requests_in_flight") == 1
            shutdown.set()
    lines = [entry for entry in logs if entry["event"] == "http_request"]
    assert [(line["status"], line["outcome"], line["route"]) for line in lines] == [(499, "left", "/wait")]


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_seen(registry: CollectorRegistry) -> None:
    """The line says so, and how much of the body had come."""
    shutdown = trio.Event()
    with trio.fail_after(5), capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            app = make_app(registry)
            port = await nursery.start(
                lambda task_status: serve_http(app, HttpConfig(port=0), shutdown=shutdown, task_status=task_status)
            )
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"PUT /files/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
            shutdown.set()
    (line,) = [entry for entry in logs if entry["event"] == "http_request"]
    assert (line["status"], line["outcome"], line["route"]) == (499, "left_in_body", "/files/<name>")
    assert line["received_bytes"] in (0, 5)  # whether the handler had read it yet


async def test_who_asks_is_in_the_line(registry: CollectorRegistry) -> None:
    """The id that a guard noted, and nothing where nobody said who they are."""
    app, user = make_app(registry), uuid.uuid4()

    @app.get("/mine")
    async def mine() -> str:
        note_asker(user=user)
        return ""

    with capture_logs() as logs:
        await app.test_client().get("/mine")
        await app.test_client().get("/missing")
    assert [line.get("user") for line in logs if line["event"] == "http_request"] == [str(user), None]


async def test_a_response_that_breaks_off_is_seen(registry: CollectorRegistry) -> None:
    """A bug before the answer is `answered` with 500; one in the middle of a body is `failed`, under the status that went out."""
    app, shutdown = make_app(registry), trio.Event()

    @app.get("/half")
    async def half() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise ZeroDivisionError

        return Response(pieces(), headers={"Content-Length": "8"})

    @app.get("/bug")
    async def bug() -> str:
        raise ZeroDivisionError

    with trio.fail_after(5), capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(
                lambda task_status: serve_http(app, HttpConfig(port=0), shutdown=shutdown, task_status=task_status)
            )
            for path in (b"/bug", b"/half"):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    async for _ in stream:
                        pass
            shutdown.set()
    lines = [entry for entry in logs if entry["event"] == "http_request"]
    assert [(line["status"], line["outcome"]) for line in lines] == [(500, "answered"), (200, "failed")]


async def test_security_headers_are_on_every_response(client: Client) -> None:
    """Errors too tell browsers not to guess types and not to pass addresses on."""
    response = await client.get("/nowhere")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"


async def test_an_allowed_page_may_ask(client: Client) -> None:
    """A preflight and a request from a configured origin are told so; credentials are never allowed."""
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "PUT"}
    preflight = await client.options("/files/a", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
    assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    response = await client.get("/missing", headers={"Origin": PAGE})
    assert response.headers["Access-Control-Allow-Origin"] == PAGE
    assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]
    assert response.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in response.headers


async def test_a_strange_page_may_not(client: Client, registry: CollectorRegistry) -> None:
    """Another origin gets no permission; without configuration nobody does; `*` lets all ask."""
    strange = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    assert "Access-Control-Allow-Origin" not in (await client.options("/files/a", headers=strange)).headers
    closed = make_app(CollectorRegistry()).test_client()
    assert "Access-Control-Allow-Origin" not in (await closed.get("/missing", headers=strange)).headers
    everyone = make_app(CollectorRegistry(), "*").test_client()
    assert (await everyone.get("/missing", headers=strange)).headers["Access-Control-Allow-Origin"] == "*"
