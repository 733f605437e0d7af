"""The front over real sockets: back-pressure, limits, timeouts, refusals, disconnects, stopping."""

import gc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from fsn.web.client_address import parse_networks
from fsn.web.front.inbox import Inbox

StartServer = Callable[..., AbstractAsyncContextManager[Any]]

MIB = 1024 * 1024


def put(path: str, length: int, *headers: str) -> bytes:
    lines = [f"PUT {path} HTTP/1.1", "Host: a", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def chunked(path: str, *pieces: bytes) -> bytes:
    head = f"PUT {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def test_a_body_arrives_whole_by_length_and_in_chunks(start_server: StartServer) -> None:
    """Bodies with Content-Length and chunked ones reach the handler with every byte, on one connection."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(put("/take", 3 * MIB) + bytes(3 * MIB))
        assert b"200 OK" in await wire.read_until(b"took 3145728.")
        await wire.send(chunked("/take", bytes(70000), b"x"))
        assert b"200 OK" in await wire.read_until(b"took 70001.")


async def test_a_slow_handler_holds_the_client_back(start_server: StartServer) -> None:
    """A client can push no more than the inbox and the kernel's buffers hold while the handler does not read."""
    async with start_server(inbox_bytes=256 * 1024) as server:
        wire = await server.connect()
        await wire.send(put("/take-one", 512 * MIB))
        pushed = 0
        with trio.move_on_after(0.5):
            while True:
                pushed += await wire.stream.socket.send(bytes(256 * 1024))
        assert server.counts["taken"] <= 256 * 1024
        assert pushed < 24 * MIB, "kernel buffers on loopback hold some MiB, no more"


async def test_a_body_over_its_limit_is_413_and_the_client_can_read_that(start_server: StartServer) -> None:
    """A body longer than the handler allows is answered 413, whether its length was declared or not."""
    async with start_server() as server:
        for request in (put("/take?limit=1000", 2 * MIB) + bytes(2 * MIB), chunked("/take?limit=1000", bytes(2 * MIB))):
            wire = await server.connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wire.send, request)
                answer = await wire.read_until(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 413"), answer


async def test_continue_is_sent_only_when_the_handler_reads(start_server: StartServer) -> None:
    """A client that expects 100-continue gets it, with its reason phrase, when the handler reads, and else the answer at once."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(put("/take", 5, "Expect: 100-continue"))
        assert await wire.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(b"12345")
        assert b"200 OK" in await wire.read_until(b"took 5.")
        await wire.send(put("/refuse", 50 * MIB, "Expect: 100-continue"))
        assert (await wire.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 403")


async def test_waiting_for_100_continue_is_not_slowness(start_server: StartServer) -> None:
    """The body's deadline does not run while the client rightly waits for our `100 Continue`."""
    async with start_server(body_timeout=0.1) as server:
        wire = await server.connect()
        await wire.send(get("/wait", "Expect: 100-continue", "Content-Length: 5"))
        await trio.sleep(0.25)
        server.events["go"].set()
        assert b"200 OK" in await wire.read_until(b"waited")


async def test_an_early_answer_reaches_a_client_that_still_sends(start_server: StartServer) -> None:
    """A refusal before the body was read is received, though the client sends all of its body first."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(put("/refuse", 8 * MIB) + bytes(8 * MIB))
        assert (await wire.read_to_end()).startswith(b"HTTP/1.1 403")


async def test_an_answer_that_ends_the_connection_says_so(start_server: StartServer) -> None:
    """A refusal before the body was read carries `Connection: close`, so that no client sends its next request into the void; one
    to a request that came whole does not."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(put("/refuse", 8 * MIB))
        assert b"connection: close" in (await wire.read_to_end()).lower()
        whole = await server.connect()
        for _ in range(2):
            await whole.send(put("/refuse", 0))
            assert b"connection: close" not in (await whole.read_until(b"no")).lower()


async def test_lingering_after_an_early_answer_is_bounded(start_server: StartServer) -> None:
    """A client that sends on and on after it was refused is cut after the linger timeout, or the linger bytes."""
    for limits in ({"linger_timeout": 0.1}, {"linger_timeout": 60.0, "linger_bytes": 2 * MIB}):
        async with start_server(**limits) as server:
            wire = await server.connect()
            await wire.send(put("/refuse", 1 << 40))
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await wire.send(bytes(65536))


async def test_too_large_is_said_before_the_body_is_asked_for(start_server: StartServer) -> None:
    """A client that expects 100-continue and declares too much gets 413 at once; HTTP/1.0 gets no 100 at all."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(put("/take?limit=1000", 5000, "Expect: 100-continue"))
        assert (await wire.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        assert b'"code":"too_large"' in await wire.read_to_end()
        old = await server.connect()
        await old.send(put("/take", 5, "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0") + b"12345")
        assert (await old.read_until(b"took 5.")).startswith(b"HTTP/1.1 200")


async def test_a_client_that_asks_to_close_is_closed(start_server: StartServer) -> None:
    """`Connection: close` and HTTP/1.0 end the connection with the response."""
    async with start_server() as server:
        for request in (get("/hello", "Connection: close"), b"GET /hello HTTP/1.0\r\n\r\n"):
            wire = await server.connect()
            await wire.send(request)
            assert (await wire.read_to_end()).endswith(b"hello")


async def test_an_idle_connection_is_closed_after_its_time(start_server: StartServer) -> None:
    """A kept-alive connection without a further request is closed after the idle timeout, as is one that never asked."""
    async with start_server(keep_alive_timeout=0.1) as server:
        used, fresh = await server.connect(), await server.connect()
        await used.send(get("/hello"))
        assert (await used.read_to_end()).endswith(b"hello")
        assert await fresh.read_to_end() == b""


async def test_a_head_that_trickles_in_is_cut(start_server: StartServer) -> None:
    """A client that sends a header line now and then, and never the last, is closed after the idle timeout."""
    async with start_server(keep_alive_timeout=0.15) as server:
        wire = await server.connect()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await wire.send(b"GET / HTTP/1.1\r\n" if not server.counts["lines"] else b"X: y\r\n")
                server.counts["lines"] += 1
                await trio.sleep(0.02)
        assert server.counts["lines"] < 100


async def test_a_second_head_that_trickles_in_is_cut_too(start_server: StartServer) -> None:
    """A kept connection gives the head of its next request no more time than the first had."""
    async with start_server(keep_alive_timeout=0.15) as server:
        wire = await server.connect()
        await wire.send(get("/hello"))
        await wire.read_until(b"hello")
        await wire.send(b"GET / HTTP/1.1\r\n")
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await wire.send(b"X: y\r\n")
                await trio.sleep(0.02)


async def test_a_body_that_does_not_come_ends_the_request(start_server: StartServer) -> None:
    """A client that owes body bytes and sends none is closed after the body timeout."""
    async with start_server(body_timeout=0.1) as server:
        wire = await server.connect()
        await wire.send(put("/take", 1000) + b"ab")
        assert await wire.read_to_end() == b""


async def test_a_body_that_trickles_in_ends_the_request(start_server: StartServer) -> None:
    """An upload below the least rate is closed, though each of its bytes is in time."""
    async with start_server(min_rate=1e6, min_rate_grace=0.1, body_timeout=5) as server:
        wire = await server.connect()
        await wire.send(put("/take", 100_000))
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await wire.send(b"x")
                await trio.sleep(0.01)


async def test_the_body_deadline_spares_handlers_and_downloads(start_server: StartServer) -> None:
    """A handler that takes longer than the body timeout, without a body owed, is left alone."""
    async with start_server(body_timeout=0.05) as server:
        wire = await server.connect()
        await wire.send(get("/wait"))
        await trio.sleep(0.2)
        server.events["go"].set()
        assert b"200 OK" in await wire.read_until(b"waited")


async def test_a_download_that_nobody_reads_is_ended(start_server: StartServer) -> None:
    """A client that takes nothing for the write timeout is cut, and the handler's generator ends."""
    async with start_server(write_timeout=0.15) as server:
        wire = await server.connect()
        await wire.send(get("/endless"))
        await server.events["left"].wait()
        assert server.counts["sent"] < 24 * MIB


async def test_a_download_that_is_read_slowly_goes_on(start_server: StartServer) -> None:
    """A client that takes a little within each write timeout is served, for longer than that timeout in all."""
    async with start_server(write_timeout=0.2) as server:
        wire = await server.connect()
        await wire.send(get("/endless"))
        began = trio.current_time()
        while trio.current_time() < began + 0.6:
            assert await wire.stream.receive_some(4 * MIB)
            await trio.sleep(0.02)
        assert not server.events["left"].is_set()


async def test_a_download_ends_with_its_client(start_server: StartServer) -> None:
    """Closing the connection in the middle of a download ends the handler's generator."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(get("/endless"))
        await wire.read_until(b"\r\n\r\n")
        await wire.stream.aclose()
        await server.events["left"].wait()


async def test_uploads_that_break_off_leave_nothing_behind(start_server: StartServer) -> None:
    """Clients that leave in the middle of their bodies cancel their handlers, and what waited for those is forgotten."""
    async with start_server(inbox_bytes=256 * 1024) as server:
        for _ in range(5):
            wire = await server.connect()
            server.events.update(taken=trio.Event(), left=trio.Event())
            await wire.send(put("/take-one", 512 * MIB) + bytes(128 * 1024))
            await server.events["taken"].wait()
            await wire.stream.aclose()
            await server.events["left"].wait()
        assert server.counts["cancelled"] == 5
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert [kept for kept in gc.get_objects() if isinstance(kept, Inbox)] == []


async def test_a_client_that_closes_its_sending_side_counts_as_gone(start_server: StartServer) -> None:
    """A half-closed connection cancels its handler: no other sign of a departure exists on TCP."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(get("/wait"))
        await server.events["waiting"].wait()
        await wire.stream.send_eof()
        assert await wire.read_to_end() == b""
        assert server.counts["cancelled"] == 1


async def test_a_client_that_leaves_cancels_its_handler(start_server: StartServer) -> None:
    """Closing the connection cancels a handler that waits, and one that waits for its body."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(get("/wait"))
        await server.events["waiting"].wait()
        await wire.stream.aclose()
        await server.events["left"].wait()
        assert server.counts["cancelled"] == 1


async def test_pipelined_requests_are_all_answered_in_order(start_server: StartServer) -> None:
    """Requests sent at once, with and without bodies, by length and in chunks, are answered one after the other."""
    async with start_server() as server:
        wire = await server.connect()
        some = put("/take", 7000) + bytes(7000) + chunked("/take", b"hello") + get("/hello")
        await wire.send(some * 20)
        for _ in range(20):
            await wire.read_until(b"took 7000.")
            await wire.read_until(b"took 5.")
            await wire.read_until(b"hello")
        assert server.counts["hello"] == 20


async def test_a_pipelined_client_that_leaves_frees_its_connection(start_server: StartServer) -> None:
    """A client that stalls with a second request waiting is cut, and its place is free again."""
    async with start_server(write_timeout=0.1, max_connections=1) as server:
        wire = await server.connect()
        await wire.send(get("/endless") + get("/hello"))
        await server.events["left"].wait()
        following = await server.connect()
        await following.send(get("/hello"))
        assert b"200 OK" in await following.read_until(b"hello")


async def test_more_clients_than_places_are_served_in_turn(start_server: StartServer) -> None:
    """At the limit of connections further clients wait, and are served when a place is free."""
    async with start_server(max_connections=2) as server:
        wires = [await server.connect() for _ in range(6)]
        for wire in wires:
            await wire.send(get("/hello", "Connection: close"))
        for wire in wires:
            assert (await wire.read_to_end()).endswith(b"hello")


async def test_one_address_has_its_share_of_the_places(start_server: StartServer) -> None:
    """Connections beyond those of one address are closed, and one that ends makes room; trusted proxies have no such limit."""
    async with start_server(max_connections_per_address=2) as server:
        wires = [await server.connect() for _ in range(2)]
        for wire in wires:
            await wire.send(get("/hello"))
            await wire.read_until(b"hello")
        assert await (await server.connect()).read_to_end() == b""
        await wires[0].send(get("/hello", "Connection: close"))
        await wires[0].read_to_end()
        await trio.testing.wait_all_tasks_blocked()
        again = await server.connect()
        await again.send(get("/hello"))
        assert b"200 OK" in await again.read_until(b"hello")
    trusted = parse_networks(["127.0.0.0/8"])
    async with start_server(max_connections_per_address=2, trusted_proxies=trusted) as server:
        for wire in [await server.connect() for _ in range(4)]:
            await wire.send(get("/hello"))
            await wire.read_until(b"hello")


async def test_head_has_the_headers_and_no_body(start_server: StartServer) -> None:
    """HEAD is answered with the length that GET would have, and the connection goes on."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(get("/hello", method="HEAD"))
        head = await wire.read_until(b"\r\n\r\n")
        assert b"content-length: 5" in head.lower()
        await wire.send(get("/hello"))
        assert (await wire.read_until(b"hello")).startswith(b"HTTP/1.1 200 OK")


CHUNKED = b"PUT /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET ?a=b HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"HEAD ?a=b HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /hello\r\n\r\n", b"400"),
        (b"\x16\x03\x01 not HTTP\r\n\r\n", b"400"),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", b"431"),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 8000 + b"\r\n", b"431"),
        (b"PUT /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"200"),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", b"200"),
    ],
    ids=["no-path", "head", "bad-address", "http2", "no-host", "http0.9", "tls", "long", "many", "coding", "ws", "h2c"],
)  # fmt: skip
async def test_what_is_not_proper_http_is_refused(
    start_server: StartServer, request_bytes: bytes, status: bytes
) -> None:
    """A malformed request is refused in the problem shape; upgrades are ignored."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(request_bytes)
        head = await wire.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status + b" ")
        assert (b"application/problem+json" in head) is (status != b"200")


@pytest.mark.parametrize(
    "ambiguous",
    [
        b"PUT /take HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"PUT /take HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nhello",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nhello",
        b"PUT /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n",
        b"GET /hello HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET /hello HTTP/1.1\nHost: a\n\n",
        b"GET /hello HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: u@a\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a,b\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a:x\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET http://u:p@a/hello HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a:x/hello HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET ftp://a/hello HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        CHUNKED + b"-1\r\n\r\n0\r\n\r\n",
        CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"0_5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
        CHUNKED + b"5\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"f" * 21 + b"\r\nhello",
        CHUNKED + b"5\r\nhello\r\n0\r\n\n",
        CHUNKED + b"5\r\nhello\r\n0\r\nX: y\n\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\nX y\r\n\r\n",
    ],
)  # fmt: skip
async def test_what_two_readers_may_read_in_two_ways_is_refused(start_server: StartServer, ambiguous: bytes) -> None:
    """Framing, lines, hosts and targets that a proxy may understand otherwise are refused, and what follows is not taken for a request."""
    async with start_server(linger_timeout=0.05) as server:
        wire = await server.connect()
        await wire.send(ambiguous + get("/hello"))
        answer = await wire.read_to_end()
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 501"), answer
        assert answer.count(b"HTTP/1.1") == 1
        assert b"application/problem+json" in answer
        assert server.counts["hello"] == 0


@pytest.mark.parametrize("host", [b"a", b"", b"A-1.example.org:8080", b"[::1]:80", b"127.0.0.1", b"a:"])
async def test_hosts_that_can_be(start_server: StartServer, host: bytes) -> None:
    """Names, addresses, ports and an empty Host are proper."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(b"GET /hello HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert (await wire.read_until(b"hello")).startswith(b"HTTP/1.1 200")


async def test_a_whole_address_as_the_target_stands_above_the_host_header(start_server: StartServer) -> None:
    """A target in absolute form is taken for its path, and its host for the request's, whatever the Host header says."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(get("http://b.example:81/whose?x=1%202", "Connection: close"))
        assert (await wire.read_to_end()).endswith(b"b.example:81 /whose x=1%202")


async def test_trailers_are_read_over_up_to_a_limit(start_server: StartServer) -> None:
    """Trailers of a chunked body are dropped, and the connection goes on; beyond the limit of a head they are refused."""
    async with start_server() as server:
        wire = await server.connect()
        await wire.send(CHUNKED + b"5;extension=1\r\nhello\r\n0\r\nX: y\r\n\r\n" + get("/hello"))
        await wire.read_until(b"took 5.")
        assert b"200 OK" in await wire.read_until(b"hello")
        await wire.send(CHUNKED + b"0\r\nX: " + b"y" * 100_000)
        assert (await wire.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 431")


async def test_a_body_that_breaks_off_is_never_a_clean_end(start_server: StartServer) -> None:
    """An error in the middle of a response cuts the connection short of the declared length, and the server lives on."""
    async with start_server() as server:
        wire = await server.connect()
        with capture_logs() as logs:
            await wire.send(get("/breaks"))
            assert (await wire.read_to_end()).endswith(b"\r\n\r\nhalf")
        assert [entry["event"] for entry in logs] == ["http_application_failed"]
        again = await server.connect()
        await again.send(get("/hello"))
        await again.read_until(b"hello")


async def test_stop_lets_requests_in_flight_end(start_server: StartServer) -> None:
    """After a stop idle connections close at once, the running request is answered, and then the server ends, long before its grace."""
    async with start_server(graceful_timeout=60) as server:
        busy, idle = await server.connect(), await server.connect()
        await idle.send(get("/hello"))
        await idle.read_until(b"hello")
        await busy.send(get("/wait"))
        await server.events["waiting"].wait()
        server.shutdown.set()
        assert await idle.read_to_end() == b""
        assert not server.ended.is_set()
        server.events["go"].set()
        assert (await busy.read_to_end()).endswith(b"waited")
        await server.ended.wait()
        with pytest.raises(OSError):
            await server.connect()


async def test_stop_cuts_what_outlasts_the_grace(start_server: StartServer) -> None:
    """A handler, and a client that reads nothing, are cut at the end of the grace although the write timeout is longer."""
    async with start_server(graceful_timeout=0.1, write_timeout=60) as server:
        busy, stalled = await server.connect(), await server.connect()
        await busy.send(get("/wait"))
        await stalled.send(get("/endless"))
        await server.events["waiting"].wait()
        server.shutdown.set()
        await server.ended.wait()
        assert server.counts["cancelled"] == 1
