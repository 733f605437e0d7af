"""The pool.

At most so many connections, opened on demand, healed by themselves; the door where psycopg's outages get our name.
"""

import select
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar, overload

import attrs
import trio
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow, class_row, tuple_row

from fsn.coord.database.base import Connect, Connection, Parameters, Query
from fsn.coord.database.drivers import NATIVE, open_driver
from fsn.core.errors import ConfigError, Unavailable

__all__ = ["Pool", "PoolConfig", "check_dsn", "holds_password", "is_outage", "open_pool", "outages_as_unavailable"]

Row = TypeVar("Row")

_OUTAGES: Final = (
    "08",  # connection exceptions
    "25P03",  # idle in transaction for too long: the server hung up
    "53",  # too many connections, out of memory, disk full
    "57P01",  # admin_shutdown, also pg_terminate_backend
    "57P02",  # crash_shutdown: another back end died, PostgreSQL restarts
    "57P03",  # cannot_connect_now: starting up, shutting down, in recovery
    "57P05",  # idle_session_timeout
)
"""SQLSTATEs (or classes of them) that mean "not now".

Https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""

_CONNINFO_DEFAULTS: Final[Mapping[str, str | int]] = {
    "application_name": "fsn",
    # A database machine that vanished without a word is noticed after about a minute (Linux waits two hours by itself).
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


@attrs.frozen
class PoolConfig:
    """How many connections, and how long to wait for one."""

    size: int = attrs.field(default=8, validator=attrs.validators.ge(1))
    """Connections at most. PostgreSQL's own limit (`max_connections`, 100 by default) is shared by all coordinators."""
    acquire_seconds: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """Waiting for a free connection and connecting take this long at most; then the database counts as unavailable."""
    max_age_seconds: float = attrs.field(default=3600.0, validator=attrs.validators.gt(0))
    """An older connection is replaced when it comes back (back ends grow; a changed DNS name is noticed)."""
    prepare_threshold: int | None = 5
    """A statement is prepared on a connection after so many runs.

    None = never (pgbouncer before 1.21 in transaction mode).
    """


def check_dsn(dsn: str) -> None:
    """Raises `ConfigError` for what libpq cannot read; its text is not repeated, for it may hold a password. Connects to nothing."""
    try:
        conninfo_to_dict(dsn)
    except errors.ProgrammingError:
        raise ConfigError(
            "a PostgreSQL URL like postgresql://fsn@db.example.org/fsn is wanted;"
            " what is given cannot be read as one (it is not shown: it may hold a password)"
        ) from None


def holds_password(dsn: str) -> bool:
    """Whether `dsn` has a password in it, in any of the ways that libpq knows. Raises as `check_dsn` does."""
    check_dsn(dsn)
    return bool({"password", "sslpassword", "oauth_client_secret"} & conninfo_to_dict(dsn).keys())


@asynccontextmanager
async def open_pool(dsn: str, config: PoolConfig | None = None, *, driver: str = NATIVE) -> AsyncIterator["Pool"]:
    """A pool that is closed when the block is left.

    Connects on demand only: a database that is down now is no error here. Raises ConfigError when the driver does not fit the
    installed psycopg.
    """
    async with open_driver(driver) as connect:
        pool = Pool(dsn, config or PoolConfig(), connect)
        try:
            yield pool
        finally:
            pool.close()


class Pool:
    """Connections to one database, all in autocommit mode, shared by any number of tasks.

    Whatever happens in a block, the next user gets a clean connection: one that was broken off in the middle of
    something is dropped. After an outage the pool heals by itself: idle connections that the server closed are noticed
    and replaced. Every method that talks to the server raises `core.errors.Unavailable` when it is gone, starting or
    stopping, or out of connections, and when no connection is free within `acquire_seconds`. All other errors are
    psycopg's (constraint violations, mistakes in SQL). A COMMIT cut off by an outage has an unknown outcome; what must
    happen once needs an idempotency key.
    """

    def __init__(self, dsn: str, config: PoolConfig, connect: Connect) -> None:
        self.config = config
        self._open = connect
        self.opened = 0
        """How many connections were opened so far."""
        given = conninfo_to_dict(dsn)
        self._conninfo = make_conninfo("", **{**_CONNINFO_DEFAULTS, **given})
        self._idle: list[_Idle] = []
        self._places = trio.Semaphore(config.size, max_value=config.size)
        self._waiting: set[trio.CancelScope] = set()
        self._closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit mode, for this block and one task.

        Cancelling a statement in it leaves it usable (see driver).
        """
        with outages_as_unavailable():
            idle = await self._acquire()
            try:
                yield idle.connection
            finally:
                await self._release(idle)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction.

        Committed (and durable) when the block ends, rolled back when it raises or is cancelled.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def execute(self, query: Query, params: Parameters | None = None) -> int:
        """Run one statement in a transaction of its own; how many rows it touched."""
        async with self.connection() as connection:
            return (await connection.execute(query, params)).rowcount

    @overload
    async def fetch_all(self, query: Query, params: Parameters | None = None) -> list[TupleRow]: ...
    @overload
    async def fetch_all(self, query: Query, params: Parameters | None = None, *, row: type[Row]) -> list[Row]: ...
    async def fetch_all(
        self, query: Query, params: Parameters | None = None, *, row: type[Any] | None = None
    ) -> list[Any]:
        """All rows, as tuples or as `row(column=value, ...)`."""
        async with self.connection() as connection:
            cursor = connection.cursor(row_factory=tuple_row if row is None else class_row(row))
            return await (await cursor.execute(query, params)).fetchall()

    @overload
    async def fetch_one(self, query: Query, params: Parameters | None = None) -> TupleRow | None: ...
    @overload
    async def fetch_one(self, query: Query, params: Parameters | None = None, *, row: type[Row]) -> Row | None: ...
    async def fetch_one(self, query: Query, params: Parameters | None = None, *, row: type[Any] | None = None) -> Any:
        """The first row, as a tuple or as `row(column=value, ...)`; None when there is none."""
        async with self.connection() as connection:
            cursor = connection.cursor(row_factory=tuple_row if row is None else class_row(row))
            return await (await cursor.execute(query, params)).fetchone()

    async def ping(self, within_seconds: float = 2.0) -> float:
        """Ask the server for a sign of life; how many seconds it took. Raises Unavailable when none came within
        `within_seconds`.

        A server that hangs may hold the caller for `CLEANUP_SECONDS` more, while the question is withdrawn.
        """
        started = trio.current_time()
        with trio.move_on_after(within_seconds):
            await self.fetch_one("select 1")
            return trio.current_time() - started
        raise Unavailable(f"the database did not answer within {within_seconds:g} s")

    @property
    def in_use(self) -> int:
        """How many connections are lent now, or being opened."""
        return self.config.size - self._places.value

    @property
    def idle(self) -> int:
        """How many connections are open and wait for somebody."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many tasks wait for a connection."""
        return self._places.statistics().tasks_waiting

    def close(self) -> None:
        """Close the idle connections now and the others when they come back; who waits for one gets Unavailable. Again is harmless."""
        self._closed = True
        for scope in self._waiting:
            scope.cancel()
        while self._idle:
            self._idle.pop().connection.abandon()

    async def _acquire(self) -> "_Idle":
        size, seconds = self.config.size, self.config.acquire_seconds
        try:
            with trio.fail_after(seconds):
                await self._take_place()
                try:
                    if self._closed:
                        raise Unavailable("the database pool is closed")
                    return await self._idle_or_new()
                except BaseException:
                    self._places.release()
                    raise
        except trio.TooSlowError:
            raise Unavailable(f"no database connection (of {size}) within {seconds:g} s") from None

    async def _take_place(self) -> None:
        try:
            self._places.acquire_nowait()  # without a checkpoint: a query gives trio its turn soon enough
        except trio.WouldBlock:
            await self._wait_for_place()

    async def _wait_for_place(self) -> None:
        """First come, first served; until `close`."""
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                await self._places.acquire()
            finally:
                self._waiting.discard(scope)
        if scope.cancelled_caught:
            raise Unavailable("the database pool is closed")

    async def _idle_or_new(self) -> "_Idle":
        """An idle connection that still lives, else a new one."""
        while self._idle:
            idle = self._idle.pop()  # the one used last: its back end's caches are warm, and the others grow old and go
            if idle.is_alive(trio.current_time() - self.config.max_age_seconds):
                return idle
            idle.connection.abandon()
        return await self._connect()

    async def _connect(self) -> "_Idle":
        connection = await self._open(self._conninfo, autocommit=True, prepare_threshold=self.config.prepare_threshold)
        self.opened += 1
        return _Idle(connection, born=trio.current_time())

    async def _release(self, idle: "_Idle") -> None:
        try:
            await idle.connection.reset()
        finally:
            if idle.connection.is_clean and not self._closed:
                self._idle.append(idle)
            else:
                idle.connection.abandon()  # a new one costs a few milliseconds
            self._places.release()


@attrs.frozen
class _Idle:
    """A connection and when it was opened (trio's clock)."""

    connection: Connection
    born: float

    def is_alive(self, born_after: float) -> bool:
        """Whether it may be used again.

        Young enough, and the server has not hung up (then its socket has something to read).
        """
        connection = self.connection
        return self.born > born_after and connection.is_clean and not _has_input(connection.fileno())


def _has_input(fd: int) -> bool:
    """Whether something can be read now: on an idle connection a sign that the server hung up (or chatters)."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def outages_as_unavailable() -> Iterator[None]:
    """Translate psycopg's "the server is gone or does not take us now" into `core.errors.Unavailable`.

    The rest flies on.
    """
    try:
        yield
    except errors.Error as error:
        if not is_outage(error):
            raise
        raise Unavailable(f"the database is not available: {first_line(error)}", sqlstate=error.sqlstate) from error


def is_outage(error: errors.Error) -> bool:
    """Whether the server is gone, starting or stopping, or short of something; not whether the statement was wrong."""
    if error.sqlstate is None:  # made by psycopg or libpq: no connection, or it broke
        return isinstance(error, errors.OperationalError) and not isinstance(error, errors.PipelineAborted)
    return error.sqlstate.startswith(_OUTAGES)


def first_line(error: BaseException) -> str:
    """The first line of a libpq message; the others are hints that belong into a log at most."""
    return str(error).partition("\n")[0]
