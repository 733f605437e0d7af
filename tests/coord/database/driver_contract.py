"""What both database drivers do, alone and under the pool: transactions, cancelling, lost and silent servers, bounds, outages."""

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import attrs
import psycopg
import pytest
import trio
import trio.testing
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import class_row

from fsn.coord.database.base import CLEANUP_SECONDS, Connect, Connection
from fsn.coord.database.drivers import open_driver
from fsn.coord.database.pool import Pool, PoolConfig, open_pool
from fsn.core.errors import Unavailable

NOBODY = "postgresql://x@127.0.0.1:1/x"
TERMINATE_OTHERS = """select pg_terminate_backend(pid, 5000) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()"""
COUNT_BACK_ENDS = b"select count(*) from pg_stat_activity where datname = current_database()"
SLOW_COMMIT = """
    create or replace function slow() returns trigger language plpgsql as
        $$ begin perform pg_sleep(new.name::float); return null; end $$;
    create constraint trigger slow after insert on things deferrable initially deferred for each row
        when (new.name is not null) execute function slow()"""


@attrs.frozen
class Thing:
    """A row of the table things."""

    id: int
    name: str


async def fetch(connection: Connection, query: bytes) -> object:
    """The one value that `query` gives."""
    row = await (await connection.execute(query)).fetchone()
    return row[0] if row else None


async def back_end(connection: Connection) -> int:
    """The pid of the server's process that serves it."""
    pid = await fetch(connection, b"select pg_backend_pid()")
    assert isinstance(pid, int)
    return pid


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process is alive and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class DriverContract:
    """Subclasses give the fixture `driver`: its name."""

    @pytest.fixture
    async def connect(self, driver: str) -> AsyncIterator[Connect]:
        """What opens connections."""
        async with open_driver(driver) as connect:
            yield connect

    @pytest.fixture
    async def connection(self, connect: Connect, scratch_dsn: str) -> AsyncIterator[Connection]:
        """One to a database with the empty table things."""
        with trio.fail_after(30):
            connection = await connect(scratch_dsn, autocommit=True, prepare_threshold=5)
            await connection.execute("drop table if exists things; create table things (id int primary key, name text)")
            yield connection
            connection.abandon()

    @pytest.fixture
    async def other(self, connect: Connect, scratch_dsn: str) -> AsyncIterator[Connection]:
        """A second one."""
        other = await connect(scratch_dsn, autocommit=True, prepare_threshold=5)
        yield other
        other.abandon()

    @pytest.fixture
    async def small(self, driver: str, scratch_dsn: str) -> AsyncIterator[Pool]:
        """A pool of two, on a database with the empty table things."""
        with trio.fail_after(30):
            async with open_pool(scratch_dsn, PoolConfig(size=2), driver=driver) as pool:
                await pool.execute("drop table if exists things; create table things (id int primary key, name text)")
                yield pool

    # -- statements and transactions

    async def test_execute(self, connection: Connection) -> None:
        """A statement tells how many rows it touched, and gives its rows one by one or all at once."""
        assert (await connection.execute("insert into things values (%s, %s), (2, 'b')", [1, "a"])).rowcount == 2
        cursor = await connection.execute("select * from things where id < %(id)s order by id", {"id": 9})
        assert await cursor.fetchone() == (1, "a")
        assert await cursor.fetchall() == [(2, "b")]
        assert await cursor.fetchone() is None
        assert await cursor.fetchall() == []

    async def test_rows_of_our_own(self, connection: Connection) -> None:
        """A row factory makes the rows."""
        cursor = connection.cursor(row_factory=class_row(Thing))
        assert await (await cursor.execute("select 1 as id, 'a' as name")).fetchone() == Thing(1, "a")

    async def test_no_rows_to_fetch(self, connection: Connection) -> None:
        """Fetching from a statement that returns no rows is a ProgrammingError."""
        cursor = await connection.execute("insert into things values (1)")
        with pytest.raises(psycopg.ProgrammingError):
            await cursor.fetchone()
        with pytest.raises(psycopg.ProgrammingError):
            await cursor.fetchall()

    async def test_statements_are_prepared(self, connection: Connection) -> None:
        """A statement that comes again and again is prepared on the server."""
        for number in range(10):
            await connection.execute("select %s::int", [number])
        assert (
            await fetch(connection, b"select count(*) from pg_prepared_statements where statement like '%$1::int'") == 1
        )

    async def test_values_of_every_kind_we_store(self, connection: Connection) -> None:
        """Bytes, arrays, nulls and large numbers come back as they went."""
        given = [b"\0\xff", ["a", None], 2**62, None, [b"", b"\0"]]
        cursor = await connection.execute("select %s::bytea, %s::text[], %s::bigint, %s::uuid, %s::bytea[]", given)
        assert await cursor.fetchone() == tuple(given)

    async def test_raising_rolls_back(self, connection: Connection) -> None:
        """A transaction left by an exception leaves nothing, its savepoints included."""
        with pytest.raises(ZeroDivisionError):
            async with connection.transaction():
                await connection.execute("insert into things values (1)")
                async with connection.transaction():
                    await connection.execute("insert into things values (2)")
                raise ZeroDivisionError
        assert connection.is_clean
        assert await fetch(connection, b"select count(*) from things") == 0

    async def test_savepoints(self, connection: Connection) -> None:
        """A failed inner transaction takes back itself only."""
        async with connection.transaction():
            await connection.execute("insert into things values (1)")
            with pytest.raises(errors.UniqueViolation):
                async with connection.transaction():
                    await connection.execute("insert into things values (1)")
            await connection.execute("insert into things values (3)")
        assert await fetch(connection, b"select array_agg(id order by id) from things") == [1, 3]

    async def test_a_transaction_is_not_clean(self, connection: Connection) -> None:
        """Nobody else may have a connection inside a transaction; a hand-made one is rolled back by reset."""
        seen = [connection.is_clean]
        async with connection.transaction():
            seen.append(connection.is_clean)
        seen.append(connection.is_clean)
        await connection.execute("begin")
        seen.append(connection.is_clean)
        await connection.reset()
        seen.append(connection.is_clean)
        assert seen == [True, False, True, False, True]

    async def test_two_tasks_take_turns(self, connection: Connection) -> None:
        """Two tasks on one connection wait for each other rather than mix their answers."""
        answers = []

        async def ask(number: int) -> None:
            row = await (await connection.execute("select %s::int, pg_sleep(0.01)", [number])).fetchone()
            answers.append(row[0])

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ask, number)
        assert sorted(answers) == [0, 1, 2, 3, 4]

    # -- cancelling

    async def test_a_cancelled_query_stops_on_the_server_too(self, connection: Connection, other: Connection) -> None:
        """Cancelling a long query returns at once; the server has stopped, and the connection is free for the next one."""
        pid, started = await back_end(connection), time.perf_counter()
        with trio.move_on_after(0.05) as scope:
            await connection.execute("select pg_sleep(20)")
        assert scope.cancelled_caught
        assert time.perf_counter() - started < 5
        state = await other.execute("select state from pg_stat_activity where pid = %s", [pid])
        assert await state.fetchone() == ("idle",)
        assert connection.is_clean
        assert await fetch(connection, b"select 1") == 1

    async def test_a_query_already_cancelled_is_not_sent(self, connection: Connection) -> None:
        """In a cancelled scope nothing reaches the server."""
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.execute("insert into things values (1)")
        assert await fetch(connection, b"select count(*) from things") == 0

    @pytest.mark.parametrize("is_nested", [False, True])
    async def test_a_cancelled_transaction_leaves_nothing(self, connection: Connection, is_nested: bool) -> None:
        """Cancelled in the middle of a transaction or a savepoint, no row stays, and the connection is clean."""
        with trio.move_on_after(0.05):
            async with connection.transaction():
                await connection.execute("insert into things values (1)")
                if is_nested:
                    async with connection.transaction():
                        await connection.execute("select pg_sleep(20)")
                await connection.execute("select pg_sleep(20)")
        assert connection.is_clean
        assert await fetch(connection, b"select count(*) from things") == 0

    async def test_a_cancelled_savepoint_leaves_the_rest(self, connection: Connection) -> None:
        """What a deadline around a savepoint takes back is the savepoint."""
        async with connection.transaction():
            await connection.execute("insert into things values (1)")
            with trio.move_on_after(0.05) as scope:
                async with connection.transaction():
                    await connection.execute("insert into things values (2)")
                    await connection.execute("select pg_sleep(20)")
            assert scope.cancelled_caught
        assert await fetch(connection, b"select array_agg(id) from things") == [1]

    async def test_a_commit_is_not_cut_short(self, connection: Connection) -> None:
        """A COMMIT that is cancelled while the server works on it ends first, and is kept."""
        await connection.execute(SLOW_COMMIT)
        with trio.move_on_after(0.1):
            async with connection.transaction():
                await connection.execute("insert into things values (1, '0.2')")
        assert connection.is_clean
        assert await fetch(connection, b"select count(*) from things") == 1

    async def test_a_commit_without_end(
        self, connection: Connection, other: Connection, mock_clock: trio.testing.MockClock
    ) -> None:
        """A COMMIT that takes longer than CLEANUP_SECONDS after it was cancelled is an OperationalError, and costs the connection."""
        await connection.execute(SLOW_COMMIT)

        async def commit(scope: trio.CancelScope) -> None:
            with pytest.raises(psycopg.OperationalError), scope:
                async with connection.transaction():
                    await connection.execute("insert into things values (1, '60')")

        await cancel_and_let_time_pass(commit, mock_clock)
        assert connection.closed
        await other.execute(TERMINATE_OTHERS)  # the server itself notices within seconds

    async def test_a_silent_server_costs_the_connection(
        self, connection: Connection, other: Connection, mock_clock: trio.testing.MockClock
    ) -> None:
        """A query that the server does not stop is given up CLEANUP_SECONDS after it was cancelled; the transaction around it, too."""

        pid = await back_end(connection)

        async def ask(scope: trio.CancelScope) -> None:
            with ExitStack() as thawing, scope:
                async with connection.transaction():
                    await connection.execute("insert into things values (1)")
                    thawing.enter_context(frozen(pid))
                    await connection.execute("select pg_sleep(60)")
            assert scope.cancelled_caught

        await cancel_and_let_time_pass(ask, mock_clock)
        await other.execute(TERMINATE_OTHERS)
        assert connection.closed
        await connection.reset()
        assert not connection.is_clean

    async def test_a_cancelled_connect_leaves_no_back_end(
        self, connect: Connect, other: Connection, scratch_dsn: str
    ) -> None:
        """Connecting may be cut off at any time: what was opened is closed."""
        for tenths in range(0, 60, 3):
            with trio.move_on_after(tenths / 10_000):
                (await connect(scratch_dsn, autocommit=True, prepare_threshold=None)).abandon()
        with trio.fail_after(10):
            while await fetch(other, COUNT_BACK_ENDS) != 1:  # noqa: ASYNC110 - the server tells nobody
                await trio.sleep(0.01)

    # -- lost servers

    async def test_abandoning_wakes_a_waiting_task(self, connection: Connection) -> None:
        """Closing a connection under a query ends the query with OperationalError; closing again is harmless."""

        async def wait() -> None:
            with pytest.raises(psycopg.OperationalError):
                await connection.execute("select pg_sleep(20)")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.05)
            connection.abandon()
        assert connection.closed
        connection.abandon()
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("select 1")

    async def test_a_terminated_back_end(self, connection: Connection, other: Connection) -> None:
        """When the server ends our back end, the next query raises OperationalError and the connection is not clean."""
        await other.execute(TERMINATE_OTHERS)
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("select 1")
        assert not connection.is_clean
        await connection.reset()

    async def test_terminated_in_a_transaction(self, connection: Connection, other: Connection) -> None:
        """When the server ends our back end in a transaction, the block raises OperationalError and nothing stays."""
        with pytest.raises(psycopg.OperationalError):
            async with connection.transaction():
                await connection.execute("insert into things values (1)")
                await other.execute(TERMINATE_OTHERS)
        assert not connection.is_clean
        assert await fetch(other, b"select count(*) from things") == 0

    @pytest.mark.parametrize("dsn", [NOBODY, "postgresql://x@/x?host=/nowhere", "host=127.0.0.1,127.0.0.1 port=1,2"])
    async def test_nobody_listens(self, connect: Connect, dsn: str) -> None:
        """Without a server connecting raises OperationalError."""
        with trio.fail_after(10), pytest.raises(psycopg.OperationalError, match="failed"):
            await connect(dsn, autocommit=True, prepare_threshold=None)

    async def test_the_second_host_answers(self, connect: Connect, scratch_dsn: str) -> None:
        """With several hosts the first one that answers is taken."""
        dsn = make_conninfo(scratch_dsn, host=f"/nowhere,{conninfo_to_dict(scratch_dsn)['host']}")
        with trio.fail_after(10):
            connection = await connect(dsn, autocommit=True, prepare_threshold=None)
            assert await fetch(connection, b"select 1") == 1
            connection.abandon()

    async def test_a_silent_listener(self, connect: Connect) -> None:
        """Connecting to a server that accepts and says nothing can be cancelled."""
        with trio.socket.socket() as listener:
            await listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            dsn = f"host=127.0.0.1 port={listener.getsockname()[1]} connect_timeout=30"
            with trio.move_on_after(0.1) as scope:
                await connect(dsn, autocommit=True, prepare_threshold=None)
            assert scope.cancelled_caught

    # -- under the pool

    async def test_rows_of_the_pool(self, small: Pool) -> None:
        """Rows come as tuples or as a class of ours; no row is None."""
        assert await small.execute("insert into things values (1, 'a'), (2, 'b')") == 2
        assert await small.fetch_all("select * from things order by id") == [(1, "a"), (2, "b")]
        assert await small.fetch_all("select * from things where id > %s", [1], row=Thing) == [Thing(2, "b")]
        assert await small.fetch_one("select name from things where id = %(id)s", {"id": 1}) == ("a",)
        assert await small.fetch_one("select * from things where id = 1", row=Thing) == Thing(1, "a")
        assert await small.fetch_one("select * from things where id = 9") is None

    async def test_transaction_of_the_pool(self, small: Pool) -> None:
        """A transaction is kept when its block ends, and gone when the block raises."""
        async with small.transaction() as connection:
            await connection.execute("insert into things values (1)")
        with pytest.raises(ZeroDivisionError):
            async with small.transaction() as connection:
                await connection.execute("insert into things values (2)")
                raise ZeroDivisionError
        assert await small.fetch_all("select id from things") == [(1,)]

    async def test_connections_are_reused(self, small: Pool) -> None:
        """One after the other needs one connection, however many there were, a cancelled query between them or not."""
        for _ in range(5):
            await small.fetch_one("select 1")
        with trio.move_on_after(0.05):
            await small.fetch_one("select pg_sleep(20)")
        await small.fetch_one("select 1")
        assert small.opened == 1

    async def test_size_and_wait_are_bounded(self, small: Pool) -> None:
        """When all connections are out, the next one waits for acquire_seconds and gets Unavailable; one given back is taken."""
        async with small.connection(), small.connection():
            small.config = attrs.evolve(small.config, acquire_seconds=0.1)
            with pytest.raises(Unavailable, match=r"of 2.* within 0\.1 s"):
                await small.fetch_one("select 1")
        small.config = PoolConfig(size=2)
        assert await small.fetch_one("select 1") == (1,)

    async def test_first_come_first_served(self, small: Pool) -> None:
        """Who waits longest for a connection gets the next one."""
        served = []

        async def use(number: int) -> None:
            async with small.connection() as connection:
                served.append(number)
                await connection.execute("select 1")

        async with small.connection(), trio.open_nursery() as nursery, small.connection():
            for number in range(6):
                nursery.start_soon(use, number)
                await trio.testing.wait_all_tasks_blocked()
        assert served == list(range(6))
        assert small.opened == 2

    async def test_a_cancelled_wait_loses_no_place(self, small: Pool) -> None:
        """Who stops waiting for a connection takes none away."""
        async with small.connection(), small.connection():
            for _ in range(3):
                with trio.move_on_after(0.01):
                    await small.fetch_one("select 1")
        async with small.connection(), small.connection():
            pass

    async def test_open_transactions_do_not_leak(self, small: Pool) -> None:
        """A transaction opened by hand and left open is rolled back before the next user comes."""
        async with small.connection() as connection:
            await connection.execute("begin")
            await connection.execute("insert into things values (1)")
        assert await small.fetch_all("select * from things") == []
        assert small.opened == 1

    async def test_constraint_violations_fly_through(self, small: Pool) -> None:
        """What a repository must tell apart stays psycopg's, and the connection stays good."""
        await small.execute("insert into things values (1)")
        with pytest.raises(errors.UniqueViolation):
            await small.execute("insert into things values (1)")
        assert await small.fetch_one("select 1") == (1,)
        assert small.opened == 1

    async def test_a_lost_connection_is_unavailable_and_replaced(self, small: Pool) -> None:
        """A back end ended under a query, or in a transaction, is Unavailable for that one; the next one works."""
        with pytest.raises(Unavailable):
            await small.execute("select pg_terminate_backend(pg_backend_pid())")
        with pytest.raises(Unavailable):
            async with small.transaction() as connection:
                await connection.execute("insert into things values (1)")
                await connection.execute("select pg_terminate_backend(pg_backend_pid())")
        assert await small.fetch_one("select count(*) from things") == (0,)

    async def test_idle_connections_that_died_are_noticed(self, small: Pool, other: Connection) -> None:
        """When the server ends all idle connections, nobody notices but the pool."""
        async with small.connection(), small.connection():
            pass
        await other.execute(TERMINATE_OTHERS)
        async with small.connection() as first, small.connection() as second:
            for connection in (first, second):
                await connection.execute("select 1")
        assert small.opened == 4

    async def test_nobody_there(self, driver: str) -> None:
        """Without a server each use is Unavailable, and opening the pool is no error."""
        async with open_pool(NOBODY, driver=driver) as pool:
            for _ in range(20):  # more often than there are places
                with trio.fail_after(10), pytest.raises(Unavailable, match="connection failed"):
                    await pool.fetch_one("select 1")

    async def test_a_silent_server_is_unavailable(self, driver: str) -> None:
        """A server that accepts and says nothing costs acquire_seconds, not more."""
        with trio.socket.socket() as listener:
            await listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            dsn = f"host=127.0.0.1 port={listener.getsockname()[1]} user=x"
            async with open_pool(dsn, PoolConfig(acquire_seconds=0.1), driver=driver) as pool:
                with trio.fail_after(5), pytest.raises(Unavailable):
                    await pool.ping()

    async def test_ping(self, small: Pool) -> None:
        """A ping tells how long it took; without a free connection it is Unavailable in time."""
        assert await small.ping(within_seconds=5) < 5
        async with small.connection(), small.connection():
            with pytest.raises(Unavailable, match=r"within 0\.05 s"):
                await small.ping(within_seconds=0.05)

    async def test_old_connections_are_replaced(self, small: Pool) -> None:
        """A connection older than max_age_seconds is not handed out again."""
        await small.fetch_one("select 1")
        small.config = PoolConfig(size=2, max_age_seconds=0.01)
        await trio.sleep(0.02)
        await small.fetch_one("select 1")
        assert small.opened == 2

    async def test_a_closed_pool(self, small: Pool) -> None:
        """A closed pool is Unavailable; a connection that was out is closed when it comes back."""
        async with small.connection() as connection:
            small.close()
            await connection.execute("select 1")
        assert connection.closed
        with pytest.raises(Unavailable, match="closed"):
            await small.fetch_one("select 1")

    async def test_closing_the_pool_wakes_who_waits(self, small: Pool) -> None:
        """Who waits for a connection when the pool is closed gets Unavailable at once, and none is opened any more."""

        async def wait() -> None:
            with pytest.raises(Unavailable, match="closed"):
                await small.fetch_one("select 1")

        async with small.connection(), small.connection(), trio.open_nursery() as nursery:
            with trio.fail_after(5):
                nursery.start_soon(wait)
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                small.close()
        assert small.opened == 2

    async def test_clean_up_in_a_shield_has_the_database(self, driver: str, scratch_dsn: str) -> None:
        """When all is cancelled, the pool included, a task that cleans up in a shield can still write."""
        with trio.CancelScope() as everything:
            async with open_pool(scratch_dsn, driver=driver) as pool:
                await pool.fetch_one("select 1")
                everything.cancel()
                with trio.CancelScope(shield=True):
                    assert await pool.fetch_one("select 2") == (2,)

    async def test_errors_leave_the_block_as_they_are(self, driver: str, scratch_dsn: str) -> None:
        """An error in the pool's block comes out of it as itself, not in a group."""
        with pytest.raises(ZeroDivisionError):
            async with open_pool(scratch_dsn, driver=driver) as pool:
                await pool.fetch_one("select 1")
                raise ZeroDivisionError


async def cancel_and_let_time_pass(
    work: Callable[[trio.CancelScope], Awaitable[None]], clock: trio.testing.MockClock
) -> None:
    """Run `work(scope)`, cancel the scope while it waits for the server, and move the clock by CLEANUP_SECONDS and a bit."""
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, scope)
        await trio.testing.wait_all_tasks_blocked(0.3)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.3)
        clock.jump(CLEANUP_SECONDS + 0.1)
