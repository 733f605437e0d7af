"""The request body between the socket's reader and the application: bounded in bytes, and never in anybody's way after the end."""

from collections import deque
from collections.abc import Awaitable, Callable

import trio
from hypercorn.typing import ASGIReceiveEvent

__all__ = ["MESSAGE_BYTES", "Inbox"]

MESSAGE_BYTES = 256
"""What a message takes in memory beside its bytes (226 measured on Python 3.11): in chunks of one byte a body is 200 times as large."""


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
        "_is_gone",
        "_limit_bytes",
        "_messages",
        "_readable",
        "_size_bytes",
        "_when_gone",
        "_writable",
    )

    def __init__(self, limit_bytes: int, before_body: Callable[[], Awaitable[None]]) -> None:
        """`before_body` is awaited once, when the application first asks for the body (`100 Continue` goes out there)."""
        self._messages: deque[ASGIReceiveEvent] = deque()
        self._size_bytes = 0
        self._limit_bytes = limit_bytes
        self._before_body: Callable[[], Awaitable[None]] | None = before_body
        self._closed = False
        self._is_gone = False
        self._when_gone: Callable[[], object] | None = None
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()

    @property
    def size_bytes(self) -> int:
        """The weight of what waits to be read: body bytes, and MESSAGE_BYTES for each message."""
        return self._size_bytes

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Hand `message` over; waits while the inbox is full. After the end of the request it is dropped."""
        if self._closed or self._is_gone:
            return
        self._messages.append(message)
        if message["type"] == "http.disconnect":
            self._note_gone()
            return
        self._size_bytes += _weight(message)
        self._readable.unpark()
        while self._is_full():
            await self._writable.park()

    def _note_gone(self) -> None:
        self._is_gone = True
        self._readable.unpark_all()
        self._writable.unpark_all()
        if self._when_gone is not None:
            self._when_gone()

    def _is_full(self) -> bool:
        return self._size_bytes >= self._limit_bytes and not self._closed and not self._is_gone

    async def receive(self) -> ASGIReceiveEvent:
        """The next message; `http.disconnect` again and again once the client has gone."""
        if self._before_body is not None:
            before_body, self._before_body = self._before_body, None
            await before_body()
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._messages:
            if self._is_gone:
                return {"type": "http.disconnect"}
            await self._readable.park()
        return self._take()

    def _take(self) -> ASGIReceiveEvent:
        message = self._messages.popleft()
        self._size_bytes -= _weight(message)
        if self._size_bytes < self._limit_bytes:
            self._writable.unpark_all()
        return message

    def call_when_gone(self, callback: Callable[[], object]) -> None:
        """Call `callback` once the client has gone (or the response is complete), whether or not anybody reads the body."""
        if self._is_gone:
            callback()
        elif not self._closed:
            self._when_gone = callback

    def close(self) -> None:
        """The application has ended: forget what it did not read, and never hold the reader again."""
        self._closed = True
        self._when_gone = None
        self._messages.clear()
        self._size_bytes = 0
        self._writable.unpark_all()


def _weight(message: ASGIReceiveEvent) -> int:
    return MESSAGE_BYTES + len(message["body"]) if message["type"] == "http.request" else 0
