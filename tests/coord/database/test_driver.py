"""What the native driver does beyond the contract of both: psycopg's pipelines, COPY, streams and notifications hold on trio."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import trio
import trio.testing

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
