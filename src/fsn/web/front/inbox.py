"""The request body between the socket's reader and the application: bounded in bytes, and never in anybody's way after the end."""

from collections import deque
from collections.abc import Awaitable, Callable

import trio
from hypercorn.typing import ASGIReceiveEvent

__all__ = ["MESSAGE_BYTES", "Inbox"]

MESSAGE_BYTES = 256
"""What a message takes in memory beside its bytes (226 measured on Python 3.11): a body in chunks of one byte is 200 times its length here."""


class Inbox:
    """ASGI messages of one request, from the connection's reader task (`put`) to the application (`receive`).

    At most `limit_bytes` plus one read wait here, each message counted with its own weight: `put` holds the reader, and so the
    client's TCP window, until the application has taken something. (Hypercorn 0.18 with quart-trio 0.12 holds nothing back: one
    client pushed 600 MiB into a slow handler.)
    `put` never waits once the application has ended or the client has gone, so an early answer cannot deadlock the reader.
    """

    __slots__ = (
        "_before_body",
        "_closed",
        "_gone",
        "_limit_bytes",
        "_messages",
        "_readable",
        "_size_bytes",
        "_writable",
    )

    def __init__(self, limit_bytes: int, before_body: Callable[[], Awaitable[None]]) -> None:
        """`before_body` is awaited once, when the application first asks for the body (`100 Continue` goes out there)."""
        self._messages: deque[ASGIReceiveEvent] = deque()
        self._size_bytes = 0
        self._limit_bytes = limit_bytes
        self._before_body: Callable[[], Awaitable[None]] | None = before_body
        self._closed = False
        self._gone = trio.Event()
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()

    @property
    def size_bytes(self) -> int:
        """The weight of what waits to be read: body bytes, and MESSAGE_BYTES for each message."""
        return self._size_bytes

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Hand `message` over; waits while the inbox is full. After the end of the request it is dropped."""
        if self._closed or self._gone.is_set():
            return
        self._messages.append(message)
        if message["type"] == "http.disconnect":
            self._gone.set()
            self._readable.unpark_all()
            self._writable.unpark_all()
            return
        self._size_bytes += _weight(message)
        self._readable.unpark()
        while self._is_full():
            await self._writable.park()

    def _is_full(self) -> bool:
        return self._size_bytes >= self._limit_bytes and not self._closed and not self._gone.is_set()

    async def receive(self) -> ASGIReceiveEvent:
        """The next message; `http.disconnect` again and again once the client has gone."""
        if self._before_body is not None:
            before_body, self._before_body = self._before_body, None
            await before_body()
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._messages:
            if self._gone.is_set():
                return {"type": "http.disconnect"}
            await self._readable.park()
        return self._take()

    def _take(self) -> ASGIReceiveEvent:
        message = self._messages.popleft()
        self._size_bytes -= _weight(message)
        if self._size_bytes < self._limit_bytes:
            self._writable.unpark_all()
        return message

    async def wait_disconnect(self) -> None:
        """Return once the client has gone (or the response is complete), whether or not anybody reads the body."""
        await self._gone.wait()

    def close(self) -> None:
        """The application has ended: forget what it did not read, and never hold the reader again."""
        self._closed = True
        self._messages.clear()
        self._size_bytes = 0
        self._writable.unpark_all()


def _weight(message: ASGIReceiveEvent) -> int:
    return MESSAGE_BYTES + len(message["body"]) if message["type"] == "http.request" else 0
