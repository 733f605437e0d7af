"""The names that the front leans on although they are not public: a release that moves one fails here, not in production."""

import inspect
import socket
import ssl

import h11
import trio
from h11._readers import ContentLengthReader
from h11._receivebuffer import ReceiveBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from quart import Response
from quart.wrappers.response import DataBody
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers.request import TrioBody


def test_h11_reads_a_body_with_the_reader_we_step_past() -> None:
    """A request with Content-Length makes h11 count down `_reader._remaining`, with an empty `_receive_buffer`."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert isinstance(connection.next_event(), h11.Request)
    waiting_before = connection.they_are_waiting_for_100_continue
    connection.client_is_waiting_for_100_continue = False
    assert (waiting_before, connection.they_are_waiting_for_100_continue) == (True, False)
    reader = connection._reader
    assert type(reader) is ContentLengthReader
    assert reader._remaining == 5
    assert not connection._receive_buffer
    reader._remaining = 0
    assert isinstance(connection.next_event(), h11.EndOfMessage)


def test_h11_reads_heads_and_trailers_through_the_buffer_we_replace() -> None:
    """`_receive_buffer` may be set before the first byte, and its `maybe_extract_lines` sees every head and every trailer."""
    seen: list[list[bytes]] = []

    class Buffer(ReceiveBuffer):
        def maybe_extract_lines(self) -> list[bytearray] | None:
            lines = super().maybe_extract_lines()
            seen.extend([] if lines is None else [[bytes(line) for line in lines]])
            return lines

    connection = h11.Connection(h11.SERVER)
    connection._receive_buffer = Buffer()
    connection.receive_data(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n")
    assert isinstance(connection.next_event(), h11.Request)
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    assert seen == [[b"PUT / HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked"], [b"X: y"]]


async def test_trio_tls_keeps_its_parts_where_we_read_them() -> None:
    """`_ssl_object` and `_incoming` are the standard library's objects."""
    left, right = socket.socketpair()
    stream = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(left)), ssl.create_default_context(), server_hostname="a"
    )
    assert isinstance(stream._ssl_object, ssl.SSLObject)
    assert isinstance(stream._incoming, ssl.MemoryBIO)
    left.close()
    right.close()


def test_hypercorn_calls_what_we_replace() -> None:
    """The methods that our subclasses override exist, take the same arguments, and are called by what we inherit."""
    ours = {
        H11Protocol: {
            "handle": ["event"],
            "stream_send": ["event"],
            "_handle_events": [],
            "_create_stream": ["request"],
            "_send_h11_event": ["event"],
            "_maybe_recycle": [],
        },
        TCPServer: {
            "run": [],
            "protocol_send": ["event"],
            "_read_data": [],
            "_close": [],
        },
        TaskGroup: {"spawn_app": ["app", "config", "scope", "send"], "spawn": ["func", "args"]},
        TrioASGIHTTPConnection: {
            "__call__": ["receive", "send"],
            "_create_request_from_scope": ["send"],
            "_send_response": ["send", "response"],
        },
        TrioBody: {"__anext__": [], "clear": [], "set_result": ["data"], "append": ["data"]},
    }
    for kind, methods in ours.items():
        for name, arguments in methods.items():
            assert list(inspect.signature(getattr(kind, name)).parameters)[1:] == arguments, f"{kind.__name__}.{name}"


def test_quart_keeps_a_whole_body_where_we_read_it() -> None:
    """DataBody has the bytes, and which of them are sent."""
    body = Response(b"hello").response
    assert isinstance(body, DataBody)
    assert body.data[body.begin : body.end] == b"hello"


def test_hypercorn_pieces_that_we_call_keep_their_arguments() -> None:
    """`_handle`, HTTPStream and WorkerContext are called by position."""
    assert list(inspect.signature(_handle).parameters) == [
        "app",
        "config",
        "scope",
        "receive",
        "send",
        "sync_spawn",
        "call_soon",
    ]
    assert list(inspect.signature(HTTPStream).parameters)[-2:] == ["send", "stream_id"]
    assert list(inspect.signature(H11Protocol).parameters) == [
        "app",
        "config",
        "context",
        "task_group",
        "connection_state",
        "ssl",
        "client",
        "server",
        "send",
    ]
    assert not WorkerContext(None).terminated.is_set()
