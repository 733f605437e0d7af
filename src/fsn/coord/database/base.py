"""What a driver gives to the pool: connections on trio, for one task at a time.

Two drivers keep this contract (tests/coord/database/driver_contract.py): `driver` and, for other versions of psycopg,
`asyncio_driver`. The modules of SQL beside this one know no more of a connection than what stands here.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, LiteralString, Protocol, Self

from psycopg import sql
from psycopg.rows import AsyncRowFactory

__all__ = ["CLEANUP_SECONDS", "Connect", "Connection", "Cursor", "Parameters", "Query"]

Query = LiteralString | bytes | sql.SQL | sql.Composed
Parameters = Sequence[Any] | Mapping[str, Any]

CLEANUP_SECONDS: Final = 5.0
"""How long cancelling a query, or ending a transaction of a cancelled task, may take before the connection is dropped."""


class Cursor(Protocol):
    """A statement's outcome."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement returned or touched."""

    async def execute(self, query: Query, params: Parameters | None = None, /) -> Self:
        """Run a statement; see `Connection.execute`."""

    async def fetchone(self) -> Any:
        """The next row, None after the last. Raises ProgrammingError when the statement returns no rows."""

    async def fetchall(self) -> list[Any]:
        """The rows that are left."""


class Connection(Protocol):
    """A connection to PostgreSQL. Raises psycopg's errors untranslated; `Pool` translates them.

    Cancellation: what is cancelled already is not sent. A statement that is cancelled is cancelled on the server, too, within
    CLEANUP_SECONDS, and the connection stays good, or else is closed; a transaction block that is cancelled is rolled back. What opens
    or ends a block (BEGIN, COMMIT, ROLLBACK, SAVEPOINT) runs to its end though cancelled, CLEANUP_SECONDS longer at most: a COMMIT that
    takes longer raises OperationalError, and its outcome is unknown.
    """

    async def execute(self, query: Query, params: Parameters | None = None, /) -> Cursor:
        """Run a statement. Several in one text, divided by semicolons, when there are no `params`."""

    def cursor(self, *, row_factory: AsyncRowFactory[Any]) -> Cursor:
        """A cursor whose rows `row_factory` makes."""

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A transaction: committed when the block ends, rolled back when it raises or is cancelled. A savepoint inside another."""

    def fileno(self) -> int:
        """The socket's descriptor. Raises OperationalError when closed."""

    @property
    def closed(self) -> bool:
        """Whether it was closed, here or by the server as far as is known."""

    @property
    def is_clean(self) -> bool:
        """Whether the next user may have it: alive, idle, out of any transaction."""

    async def reset(self) -> None:
        """Roll back a transaction that was left open by hand; harmless otherwise. Shielded; look at `is_clean` afterwards."""

    def abandon(self) -> None:
        """Close; harmless when closed. Wakes tasks that wait on it with OperationalError; what they asked may or may not be done."""


class Connect(Protocol):
    """A driver: opens connections."""

    async def __call__(self, conninfo: str, /, *, autocommit: bool, prepare_threshold: int | None) -> Connection:
        """Connect. `prepare_threshold`: after so many runs a statement is prepared; None = never.

        Raises OperationalError; each host has `connect_timeout` of the conninfo.
        """
