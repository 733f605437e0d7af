"""What psycopg's users rely on holds on trio: transactions, pipelines, COPY, notifications, cancelling, lost servers."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import psycopg
import pytest
import trio
import trio.testing
from psycopg.conninfo import make_conninfo

from fsn.coord.database.driver import TrioConnection


@pytest.fixture
async def connection(empty_database_dsn: str) -> AsyncIterator[TrioConnection]:
    with trio.fail_after(30):
        async with await TrioConnection.connect(empty_database_dsn, autocommit=True) as connection:
            await connection.execute("create table things (id int primary key, name text)")
            yield connection


async def fetch(connection: TrioConnection, query: bytes) -> object:
    row = await (await connection.execute(query)).fetchone()
    return row[0] if row else None


async def test_raising_rolls_back(connection: TrioConnection) -> None:
    """A transaction left by an exception leaves nothing, its savepoints included."""
    with pytest.raises(ZeroDivisionError):
        async with connection.transaction():
            await connection.execute("insert into things values (1)")
            async with connection.transaction():
                await connection.execute("insert into things values (2)")
            raise ZeroDivisionError
    assert await fetch(connection, b"select count(*) from things") == 0


async def test_savepoints(connection: TrioConnection) -> None:
    """A failed inner transaction takes back itself only."""
    async with connection.transaction():
        await connection.execute("insert into things values (1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with connection.transaction():
                await connection.execute("insert into things values (1)")
        await connection.execute("insert into things values (3)")
    assert await fetch(connection, b"select array_agg(id order by id) from things") == [1, 3]


async def test_without_autocommit(empty_database_dsn: str) -> None:
    """Without autocommit a statement opens a transaction, which commit ends."""
    with trio.fail_after(30):
        async with await TrioConnection.connect(empty_database_dsn) as connection:
            await connection.execute("create table t ()")
            assert not connection.is_clean
            await connection.commit()
            assert connection.is_clean


async def test_executemany(connection: TrioConnection) -> None:
    """Many parameters for one statement are all executed."""
    async with connection.cursor() as cursor:
        await cursor.executemany("insert into things values (%s, 'm')", [(i,) for i in range(1000)])
    assert await fetch(connection, b"select count(*) from things") == 1000


async def test_pipeline(connection: TrioConnection) -> None:
    """Statements of a pipeline are answered in order."""
    async with connection.pipeline():
        cursors = [await connection.execute("select %s::int", [i]) for i in range(1000)]
        assert [(await cursor.fetchone() or [None])[0] for cursor in cursors] == list(range(1000))


async def test_copy_in_and_out(connection: TrioConnection) -> None:
    """Rows written by COPY are read back by COPY."""
    rows = [(str(i), "x" * 20) for i in range(20_000)]
    async with connection.cursor() as cursor:
        async with cursor.copy("copy things from stdin") as copy:
            for row in rows:
                await copy.write_row(row)
        async with cursor.copy("copy (select * from things order by id) to stdout") as copy:
            assert [row async for row in copy.rows()] == rows


async def test_stream(connection: TrioConnection) -> None:
    """A result is read row by row, without holding it whole."""
    async with connection.cursor() as cursor:
        assert [row[0] async for row in cursor.stream("select generate_series(1, 5000)")] == list(range(1, 5001))


async def test_server_cursor(connection: TrioConnection) -> None:
    """A named cursor stays on the server and is read in portions."""
    async with connection.transaction(), connection.cursor("portions") as cursor:
        await cursor.execute("select generate_series(1, 1000)")
        assert len(await cursor.fetchmany(400)) == 400
        assert len(await cursor.fetchmany(1000)) == 600


async def test_notifications(connection: TrioConnection, empty_database_dsn: str) -> None:
    """A listener gets what others notify, in order; with a timeout it ends by itself."""
    await connection.execute("listen news")
    heard: list[str] = []

    async def listen() -> None:
        async with aclosing(connection.notifies(stop_after=20)) as notifies:
            heard.extend([each.payload async for each in notifies])

    async with (
        await TrioConnection.connect(empty_database_dsn, autocommit=True) as speaker,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(listen)
        for i in range(20):
            await speaker.execute("select pg_notify('news', %s)", [str(i)])
    assert heard == [str(i) for i in range(20)]
    async with aclosing(connection.notifies(timeout=0.05)) as notifies:
        assert [each async for each in notifies] == []


async def test_cancelled_listening_leaves_a_clean_connection(connection: TrioConnection) -> None:
    """A listener that is cancelled can go on to other queries."""
    await connection.execute("listen news")
    with trio.move_on_after(0.05) as scope:
        async with aclosing(connection.notifies()) as notifies:
            async for _ in notifies:
                pass
    assert scope.cancelled_caught
    assert connection.is_clean
    assert await fetch(connection, b"select 5") == 5


async def test_two_tasks_take_turns(connection: TrioConnection) -> None:
    """Two tasks on one connection wait for each other rather than mix their answers."""
    answers = []

    async def ask(number: int) -> None:
        row = await (await connection.execute("select %s::int, pg_sleep(0.01)", [number])).fetchone()
        assert row is not None
        answers.append(row[0])

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ask, number)
    assert sorted(answers) == [0, 1, 2, 3, 4]


async def test_a_cancelled_query_stops_on_the_server_too(connection: TrioConnection) -> None:
    """Cancelling a long query returns at once, and the connection is free for the next one."""
    started = time.perf_counter()
    with trio.move_on_after(0.05) as scope:
        await connection.execute("select pg_sleep(20)")
    assert scope.cancelled_caught
    assert time.perf_counter() - started < 5
    assert connection.is_clean
    assert await fetch(connection, b"select 1") == 1


async def test_a_query_already_cancelled_is_not_sent(connection: TrioConnection) -> None:
    """In a cancelled scope nothing reaches the server."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await connection.execute("insert into things values (1)")
    assert await fetch(connection, b"select count(*) from things") == 0


async def test_a_cancelled_transaction_leaves_nothing(connection: TrioConnection) -> None:
    """Cancelled in the middle of a transaction, no row stays, and the connection is clean."""
    with trio.move_on_after(0.05):
        async with connection.transaction():
            await connection.execute("insert into things values (1)")
            await connection.execute("select pg_sleep(20)")
    assert connection.is_clean
    assert await fetch(connection, b"select count(*) from things") == 0


async def test_a_commit_is_not_cut_short(connection: TrioConnection) -> None:
    """A COMMIT that is cancelled while the server works on it ends first, and is kept."""
    await connection.execute(
        "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.2); return null; end $$"
    )
    await connection.execute(
        "create constraint trigger slow after insert on things deferrable initially deferred for each row execute function slow()"
    )
    with trio.move_on_after(0.1):
        async with connection.transaction():
            await connection.execute("insert into things values (1)")
    assert connection.is_clean
    assert await fetch(connection, b"select count(*) from things") == 1


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_cancelled_amid_copy(connection: TrioConnection, empty_database_dsn: str, direction: str) -> None:
    """A COPY that is cancelled half way leaves no row, and a connection that is clean or closed, never half way."""
    with trio.move_on_after(0.05) as scope:
        async with connection.cursor() as cursor:
            if direction == "in":
                async with cursor.copy("copy things (id) from stdin") as copy:
                    for i in range(10**9):
                        await copy.write(f"{i}\n")
            else:
                async with cursor.copy("copy (select generate_series(1, 1000000000)) to stdout") as copy:
                    async for _ in copy:
                        pass
    assert scope.cancelled_caught
    assert connection.closed or connection.is_clean
    async with await TrioConnection.connect(empty_database_dsn, autocommit=True) as other:
        assert await fetch(other, b"select count(*) from things") == 0


async def test_close_wakes_a_waiting_task(connection: TrioConnection) -> None:
    """Closing a connection under a query ends the query with OperationalError."""

    async def wait() -> None:
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("select pg_sleep(20)")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await connection.close()


async def test_a_terminated_back_end(connection: TrioConnection, empty_database_dsn: str) -> None:
    """When the server ends our back end, the next query raises OperationalError and the connection is not clean."""
    async with await TrioConnection.connect(empty_database_dsn, autocommit=True) as other:
        await other.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        await connection.execute("select 1")
    assert not connection.is_clean


@pytest.mark.parametrize(
    "dsn", ["postgresql://x@127.0.0.1:1/x", "postgresql://x@/x?host=/nowhere", "host=127.0.0.1,127.0.0.1 port=1,2"]
)
async def test_nobody_listens(dsn: str) -> None:
    """Without a server connecting raises OperationalError."""
    with trio.fail_after(10), pytest.raises(psycopg.OperationalError, match="failed"):
        await TrioConnection.connect(dsn)


async def test_the_second_host_answers(empty_database_dsn: str) -> None:
    """With several hosts the first one that answers is taken."""
    given = psycopg.conninfo.conninfo_to_dict(empty_database_dsn)
    dsn = make_conninfo(empty_database_dsn, host=f"/nowhere,{given['host']}")
    with trio.fail_after(10):
        async with await TrioConnection.connect(dsn) as connection:
            assert await fetch(connection, b"select 1") == 1


async def test_a_silent_server_times_out() -> None:
    """A server that accepts and then says nothing is given up after connect_timeout."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        dsn = f"host=127.0.0.1 port={listener.getsockname()[1]} connect_timeout=30"
        with trio.move_on_after(0.1) as scope:
            await TrioConnection.connect(dsn)
        assert scope.cancelled_caught


async def test_busy_connection_lets_others_run(connection: TrioConnection) -> None:
    """A task that writes without ever waiting gives the others a turn every few milliseconds."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.sleep(0.001)
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        async with connection.cursor() as cursor, cursor.copy("copy things from stdin") as copy:
            for i in range(100_000):
                await copy.write_row((i, "x"))
        nursery.cancel_scope.cancel()
    assert turns >= 5
