"""A server with a probing application on loopback, and a client that speaks bytes."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from quart import Response

from fsn.web.front.config import FrontConfig
from fsn.web.front.serve import serve
from fsn.web.problems import install_problems
from fsn.web.quart_front import FrontQuart, current_request

Options = dict[str, Any]


@attrs.define
class Probe:
    """The running server, and what its handlers have seen."""

    port: int
    shutdown: trio.Event
    ended: trio.Event
    counts: "Counter[str]"
    events: dict[str, trio.Event]
    wires: list["Wire"] = attrs.field(factory=list)

    async def connect(self) -> "Wire":
        self.wires.append(Wire(await trio.open_tcp_stream("127.0.0.1", self.port)))
        return self.wires[-1]


@attrs.define
class Wire:
    """A client's end of one connection."""

    stream: trio.SocketStream
    buffer: bytearray = attrs.field(factory=bytearray)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`."""
        while mark not in self.buffer:
            data = await self.stream.receive_some()
            assert data, f"closed before {mark!r}; got {bytes(self.buffer)!r}"
            self.buffer += data
        end = self.buffer.index(mark) + len(mark)
        taken = bytes(self.buffer[:end])
        del self.buffer[:end]
        return taken

    async def read_to_end(self) -> bytes:
        async for data in self.stream:
            self.buffer += data
        taken = bytes(self.buffer)
        self.buffer.clear()
        return taken


def make_app(counts: "Counter[str]", events: dict[str, trio.Event]) -> FrontQuart:
    """Handlers that count what reaches them."""
    app = FrontQuart("probe")
    install_problems(app)

    @app.get("/hello")
    async def hello() -> str:
        counts["hello"] += 1
        return "hello"

    @app.put("/take")
    async def take() -> str:
        request = current_request()
        if "limit" in request.args:
            request.max_content_length = int(request.args["limit"])
        total = 0
        async for piece in request.body:
            total += len(piece)
        return f"took {total}."

    @app.put("/take-one")
    async def take_one() -> str:
        """Read one piece, then wait to be told."""
        try:
            async for piece in current_request().body:
                counts["taken"] += len(piece)
                events["taken"].set()
                await events["go"].wait()
        except trio.Cancelled:
            counts["cancelled"] += 1
            raise
        finally:
            events["left"].set()
        return "done"

    @app.get("/whose")
    async def whose() -> str:
        request = current_request()
        return f"{request.host} {request.path} {request.query_string.decode()}"

    @app.put("/refuse")
    async def refuse() -> Response:
        return Response("no", 403)

    @app.get("/wait")
    async def wait() -> str:
        events["waiting"].set()
        try:
            await events["go"].wait()
        except trio.Cancelled:
            counts["cancelled"] += 1
            raise
        finally:
            events["left"].set()
        return "waited"

    @app.get("/endless")
    async def endless() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    counts["sent"] += 65536
                    yield bytes(65536)
            finally:
                events["left"].set()

        return Response(pieces())

    @app.get("/breaks")
    async def breaks() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise ZeroDivisionError("a bug in the middle of a body")

        return Response(pieces(), headers={"Content-Length": "8"})

    return app


StartServer = Callable[..., AbstractAsyncContextManager[Probe]]


@asynccontextmanager
async def _start_server(**options: Any) -> AsyncIterator[Probe]:
    config = FrontConfig()
    for name, value in {"linger_timeout": 2.0, **options}.items():
        assert hasattr(config, name), name
        setattr(config, name, value)
    events = {name: trio.Event() for name in ("taken", "go", "waiting", "left")}
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    counts: Counter[str] = Counter()
    probe = Probe(listeners[0].socket.getsockname()[1], trio.Event(), trio.Event(), counts, events)

    async def run() -> None:
        await serve(make_app(counts, events), config, listeners, shutdown=probe.shutdown)
        probe.ended.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield probe
            for wire in probe.wires:
                await wire.stream.aclose()
            nursery.cancel_scope.cancel()


@pytest.fixture
def start_server() -> StartServer:
    """`async with start_server(body_timeout=0.1) as probe`: any setting of FrontConfig."""
    return _start_server
