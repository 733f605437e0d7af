"""A storm of cancellations: whatever is cut off wherever, the next user gets a clean connection and no half transaction stays.

Earlier versions of the native driver failed here in five ways (a pipeline's end turned Cancelled into OperationalError, the clean-up of
COPY TO, COPY cancelled in its start and in its last write, groups of Cancelled).
"""

import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

import attrs
import pytest
import trio

from fsn.coord.database.base import Connection
from fsn.coord.database.driver import TrioConnection
from fsn.coord.database.drivers import DRIVERS, NATIVE
from fsn.coord.database.pool import Pool, PoolConfig, open_pool

TASKS: Final = 8
PATIENCE: Final = (0.0001, 0.0005, 0.001, 0.003, 0.01)

Operation = Callable[[Connection, random.Random], Awaitable[None]]


async def select(connection: Connection, rng: random.Random) -> None:
    assert await (await connection.execute("select %s::int", [7])).fetchone() == (7,)


async def sleep(connection: Connection, rng: random.Random) -> None:
    await connection.execute("select pg_sleep(0.01)")


async def pair(connection: Connection, rng: random.Random) -> None:
    async with connection.transaction():
        number = rng.randrange(10**9)
        await connection.execute("insert into pairs values (%s, 0)", [number])
        await trio.sleep(rng.random() * 0.002)
        await connection.execute("insert into pairs values (%s, 1)", [number])


async def nested_pair(connection: Connection, rng: random.Random) -> None:
    async with connection.transaction():
        number = rng.randrange(10**9)
        await connection.execute("insert into pairs values (%s, 0)", [number])
        async with connection.transaction():
            await connection.execute("insert into pairs values (%s, 1)", [number])


async def copy_in(connection: Connection, rng: random.Random) -> None:
    assert isinstance(connection, TrioConnection)
    async with connection.cursor() as cursor, cursor.copy("copy rows from stdin") as copy:
        for i in range(3000):
            await copy.write_row((i, "x" * 50))


async def copy_out(connection: Connection, rng: random.Random) -> None:
    assert isinstance(connection, TrioConnection)
    async with connection.cursor() as cursor, cursor.copy("copy (select generate_series(1, 20000)) to stdout") as copy:
        async for _ in copy:
            pass


async def pipeline(connection: Connection, rng: random.Random) -> None:
    assert isinstance(connection, TrioConnection)
    async with connection.pipeline():
        cursors = [await connection.execute("select %s::int", [i]) for i in range(50)]
        assert [await cursor.fetchone() for cursor in cursors] == [(i,) for i in range(50)]


async def executemany(connection: Connection, rng: random.Random) -> None:
    assert isinstance(connection, TrioConnection)
    async with connection.cursor() as cursor:
        await cursor.executemany("insert into rows values (%s, 'm')", [(i,) for i in range(200)])


async def stream(connection: Connection, rng: random.Random) -> None:
    assert isinstance(connection, TrioConnection)
    async with connection.cursor() as cursor, aclosing(cursor.stream("select generate_series(1, 5000)")) as rows:  # type: ignore[type-var]  # declared as a mere iterator
        async for _ in rows:
            pass
    await connection.execute("select 1")  # libpq stays in single-row mode until the next plain query (psycopg 3.3.9)


async def listen(connection: Connection, rng: random.Random) -> None:
    assert isinstance(connection, TrioConnection)
    await connection.execute("listen news")
    async with aclosing(connection.notifies(timeout=0.003)) as notifies:
        async for _ in notifies:
            pass
    await connection.execute("unlisten *")


async def many_rows(connection: Connection, rng: random.Random) -> None:
    rows = "insert into rows select i, %s from generate_series(1, 3000) i returning i"
    cursor = await connection.execute(rows, ["x" * 50])
    assert await cursor.fetchall() == [(i,) for i in range(1, 3001)]


ON_BOTH: Final[tuple[Operation, ...]] = (select, sleep, pair, nested_pair, many_rows)
"""What the coordinator does with a connection."""
NATIVE_ONLY: Final[tuple[Operation, ...]] = (copy_in, copy_out, pipeline, executemany, stream, listen)
"""What else psycopg can do, whichever way it is driven."""
KEEPS_GOING: Final[tuple[Operation, ...]] = (*ON_BOTH, pipeline, executemany)


@attrs.define
class Score:
    operations: int = 0
    cancelled: int = 0


@attrs.frozen
class Storm:
    """What may be cut off: around the use of a connection, and inside it."""

    rng: random.Random
    around: tuple[Operation, ...]
    inside: tuple[Operation, ...]


@pytest.mark.fuzz
@pytest.mark.parametrize("driver", DRIVERS)
async def test_storm_of_cancellations(
    empty_database_dsn: str, driver: str, fuzz_rounds: int, fuzz_random: random.Random
) -> None:
    """Eight tasks on six connections, cancelled after 0.1 to 10 ms: no wrong answer, no half transaction, no lost place."""
    score = Score()
    storm = (
        Storm(fuzz_random, (*ON_BOTH, *NATIVE_ONLY), KEEPS_GOING)
        if driver == NATIVE
        else Storm(fuzz_random, ON_BOTH, ON_BOTH)
    )
    with trio.fail_after(60 + fuzz_rounds / 2):
        async with open_pool(empty_database_dsn, PoolConfig(size=6, acquire_seconds=30), driver=driver) as pool:
            await pool.execute("create table pairs (number int, side int)")
            await pool.execute("create table rows (i int, t text)")
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(rage, storm, pool, fuzz_rounds, score)
            await check_traces(pool)
    print(score)
    assert score.cancelled > score.operations / 3 > 3


async def rage(storm: Storm, pool: Pool, rounds: int, score: Score) -> None:
    for _ in range(rounds):
        was_cancelled = await cancel_around(storm, pool)
        score.cancelled += was_cancelled
        if storm.rng.random() < 0.3:
            was_cancelled = await cancel_inside(storm, pool)
            score.cancelled += was_cancelled
        score.operations += 1
        async with pool.connection() as connection:
            assert connection.is_clean
            cursor = await connection.execute("select 42, pg_current_xact_id_if_assigned()")
            assert await cursor.fetchone() == (42, None)


async def cancel_around(storm: Storm, pool: Pool) -> bool:
    """Cut off the whole use of a connection, taking it and giving it back included."""
    rng = storm.rng
    with trio.move_on_after(rng.choice((*PATIENCE, 10))) as scope:
        async with pool.connection() as connection:
            assert connection.is_clean
            await rng.choice(storm.around)(connection, rng)
    return scope.cancelled_caught


async def cancel_inside(storm: Storm, pool: Pool) -> bool:
    """Cut off one operation and go on with the same connection, unless it was closed."""
    operation = storm.rng.choice(storm.inside)
    async with pool.connection() as connection:
        with trio.move_on_after(storm.rng.choice(PATIENCE)) as scope:
            await operation(connection, storm.rng)
        if not connection.closed:
            assert connection.is_clean, (operation, connection)
            assert await (await connection.execute("select 43")).fetchone() == (43,)
    return scope.cancelled_caught


async def check_traces(pool: Pool) -> None:
    """Nothing half done is in the tables, and no back end was left in a transaction."""
    halves = "select count(*) from (select from pairs group by number having count(*) <> 2) halves"
    assert await pool.fetch_one(halves) == (0,)
    left_open = "select count(*) from pg_stat_activity where state like 'idle in%' and datname = current_database()"
    assert await pool.fetch_one(left_open) == (0,)
    async with trio.open_nursery() as nursery:  # all places are there
        for _ in range(pool.config.size):
            nursery.start_soon(pool.fetch_one, "select pg_sleep(0.01)")
