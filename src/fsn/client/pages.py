"""Paged lists as async iterators: the next page is fetched when the one before is used up."""

from collections import deque
from collections.abc import Mapping
from typing import Generic, Self, TypeVar

from fsn.client.connection import Connection
from fsn.client.values import structure
from fsn.core.errors import ProtocolViolation

__all__ = ["Pages"]

T = TypeVar("T")


class Pages(Generic[T]):
    """All members of a list, `page_size` a request. Leaving the loop early is fine: between pages nothing is held open.

    (Therefore no async generator: trio would have to finalise one that was left early.)
    """

    def __init__(self, connection: Connection, path: str, member: str, cls: type[T], page_size: int) -> None:
        self._connection = connection
        self._path = path
        self._member = member
        self._cls = cls
        self._page_size = page_size
        self._ready: deque[T] = deque()
        self._cursor: str | None = None
        self._is_last = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._ready:
            if self._is_last:
                raise StopAsyncIteration
            await self._fetch()
        return self._ready.popleft()

    async def _fetch(self) -> None:
        params = {"limit": str(self._page_size)} | ({} if self._cursor is None else {"cursor": self._cursor})
        page = await self._connection.call("GET", self._path, params=params)
        if not isinstance(page, Mapping) or not isinstance(page.get(self._member), list):
            raise ProtocolViolation(f"a page with a list {self._member!r} is wanted; the server sent none")
        self._ready.extend(structure(item, self._cls) for item in page[self._member])
        cursor = page.get("next_cursor")
        if cursor is not None and cursor == self._cursor:
            raise ProtocolViolation(f"the server's next_cursor leads to the same page again: {cursor!r}")
        self._cursor, self._is_last = cursor, cursor is None
