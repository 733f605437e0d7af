"""The pool hands out clean connections, bounded in number and in time, and heals by itself; outages have one name."""

from collections.abc import AsyncIterator

import attrs
import psycopg
import pytest
import trio
from psycopg import errors

from fsn.coord.database.driver import TrioConnection
from fsn.coord.database.pool import Pool, PoolConfig, check_dsn, is_outage, open_pool
from fsn.core.errors import ConfigError, Unavailable


@pytest.fixture
async def small(empty_database_dsn: str) -> AsyncIterator[Pool]:
    with trio.fail_after(30):
        async with open_pool(empty_database_dsn, PoolConfig(size=2)) as pool:
            await pool.execute("create table things (id int primary key, name text)")
            yield pool


@attrs.frozen
class Thing:
    id: int
    name: str


async def test_rows(small: Pool) -> None:
    """Rows come as tuples or as a class of ours; no row is None."""
    assert await small.execute("insert into things values (1, 'a'), (2, 'b')") == 2
    assert await small.fetch_all("select * from things order by id") == [(1, "a"), (2, "b")]
    assert await small.fetch_all("select * from things where id > %s", [1], row=Thing) == [Thing(2, "b")]
    assert await small.fetch_one("select name from things where id = %(id)s", {"id": 1}) == ("a",)
    assert await small.fetch_one("select * from things where id = 1", row=Thing) == Thing(1, "a")
    assert await small.fetch_one("select * from things where id = 9") is None


async def test_transaction(small: Pool) -> None:
    """A transaction is kept when its block ends, and gone when the block raises."""
    async with small.transaction() as connection:
        await connection.execute("insert into things values (1)")
    with pytest.raises(ZeroDivisionError):
        async with small.transaction() as connection:
            await connection.execute("insert into things values (2)")
            raise ZeroDivisionError
    assert await small.fetch_all("select id from things") == [(1,)]


async def test_connections_are_reused(small: Pool) -> None:
    """One after the other needs one connection, however many there were."""
    for _ in range(10):
        await small.fetch_one("select 1")
    assert small.opened == 1


async def test_size_and_wait_are_bounded(small: Pool) -> None:
    """When all connections are out, the next one waits for acquire_seconds and gets Unavailable; one given back is taken."""
    async with small.connection(), small.connection():
        small.config = attrs.evolve(small.config, acquire_seconds=0.1)
        with pytest.raises(Unavailable, match=r"of 2.* within 0\.1 s"):
            await small.fetch_one("select 1")
    small.config = PoolConfig(size=2)
    assert await small.fetch_one("select 1") == (1,)


async def test_a_cancelled_wait_loses_no_place(small: Pool) -> None:
    """Who stops waiting for a connection takes none away."""
    async with small.connection(), small.connection():
        for _ in range(3):
            with trio.move_on_after(0.01):
                await small.fetch_one("select 1")
    async with small.connection(), small.connection():
        pass


async def test_open_transactions_do_not_leak(small: Pool) -> None:
    """A transaction opened by hand and left open is rolled back before the next user comes."""
    async with small.connection() as connection:
        await connection.execute("begin")
        await connection.execute("insert into things values (1)")
    assert await small.fetch_all("select * from things") == []
    assert small.opened == 1


async def test_constraint_violations_fly_through(small: Pool) -> None:
    """What a repository must tell apart stays psycopg's, and the connection stays good."""
    await small.execute("insert into things values (1)")
    with pytest.raises(errors.UniqueViolation):
        await small.execute("insert into things values (1)")
    assert await small.fetch_one("select 1") == (1,)
    assert small.opened == 1


async def test_a_lost_connection_is_unavailable_and_replaced(small: Pool) -> None:
    """A back end ended under a query is Unavailable for that query; the next one works."""
    with pytest.raises(Unavailable):
        await small.execute("select pg_terminate_backend(pg_backend_pid())")
    assert await small.fetch_one("select 1") == (1,)


async def test_idle_connections_that_died_are_noticed(small: Pool, empty_database_dsn: str) -> None:
    """When the server ends all idle connections, nobody notices but the pool."""
    async with small.connection(), small.connection():
        pass
    async with await TrioConnection.connect(empty_database_dsn, autocommit=True) as other:
        await other.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    async with small.connection() as first, small.connection() as second:
        for connection in (first, second):
            await connection.execute("select 1")
    assert small.opened == 4


async def test_nobody_there() -> None:
    """Without a server each use is Unavailable, and opening the pool is no error."""
    async with open_pool("postgresql://x@127.0.0.1:1/x") as pool:
        for _ in range(20):  # more often than there are places
            with trio.fail_after(10), pytest.raises(Unavailable, match="connection failed"):
                await pool.fetch_one("select 1")


async def test_a_silent_server_is_unavailable() -> None:
    """A server that accepts and says nothing costs acquire_seconds, not more."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        dsn = f"host=127.0.0.1 port={listener.getsockname()[1]} user=x"
        async with open_pool(dsn, PoolConfig(acquire_seconds=0.1)) as pool:
            with trio.fail_after(5), pytest.raises(Unavailable):
                await pool.ping()


async def test_ping(small: Pool) -> None:
    """A ping tells how long it took; without a free connection it is Unavailable in time."""
    assert await small.ping(within_seconds=5) < 5
    async with small.connection(), small.connection():
        with pytest.raises(Unavailable, match=r"within 0\.05 s"):
            await small.ping(within_seconds=0.05)


async def test_old_connections_are_replaced(empty_database_dsn: str) -> None:
    """A connection older than max_age_seconds is not handed out again."""
    async with open_pool(empty_database_dsn, PoolConfig(max_age_seconds=0.01)) as pool:
        await pool.fetch_one("select 1")
        await trio.sleep(0.02)
        await pool.fetch_one("select 1")
        assert pool.opened == 2


async def test_a_closed_pool(small: Pool) -> None:
    """A closed pool is Unavailable; a connection that was out is closed when it comes back."""
    async with small.connection() as connection:
        small.close()
        await connection.execute("select 1")
    assert connection.closed
    with pytest.raises(Unavailable, match="closed"):
        await small.fetch_one("select 1")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.AdminShutdown, True),
        (errors.CrashShutdown, True),
        (errors.CannotConnectNow, True),
        (errors.TooManyConnections, True),
        (errors.ConnectionException, True),
        (psycopg.OperationalError, True),
        (errors.ConnectionTimeout, True),
        (errors.QueryCanceled, False),
        (errors.LockNotAvailable, False),
        (errors.DeadlockDetected, False),
        (errors.UniqueViolation, False),
        (errors.SyntaxError, False),
        (psycopg.InterfaceError, False),
    ],
)
def test_what_counts_as_an_outage(error: type[psycopg.Error], expected: bool) -> None:
    """The server's absence is an outage; a mistake, a conflict or a cancelled statement is none."""
    assert is_outage(error("")) is expected


@pytest.mark.parametrize(
    "dsn", ["nonsense", "mysql://fsn:secret@db/fsn", "postgresql://fsn:secret@[db/fsn", "host=db prot=1"]
)
def test_what_is_no_dsn_is_a_mistake_in_the_configuration(dsn: str) -> None:
    """What libpq cannot read is refused before anything starts, and not repeated: it may hold a password."""
    with pytest.raises(ConfigError, match="postgresql://") as caught:
        check_dsn(dsn)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "dsn", ["postgresql://fsn@db/fsn?sslmode=verify-full", "postgres:///fsn", "host=db dbname=fsn"]
)
def test_what_libpq_reads_is_a_dsn(dsn: str) -> None:
    """URLs, and libpq's own words."""
    check_dsn(dsn)
