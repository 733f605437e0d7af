"""A storm of cancellations: whatever is cut off wherever, the next user gets a clean connection and no half transaction stays.

Earlier versions of the driver failed here in five ways (a pipeline's end turned Cancelled into OperationalError, the clean-up of COPY
TO, COPY cancelled in its start and in its last write, groups of Cancelled). FSN_FUZZ_SECONDS and FSN_FUZZ_SEED choose a longer run.
"""

import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

import attrs
import trio

from fsn.coord.database.driver import TrioConnection
from fsn.coord.database.pool import Pool, PoolConfig, open_pool

SECONDS: Final = float(os.environ.get("FSN_FUZZ_SECONDS", "2"))
TASKS: Final = 8
PATIENCE: Final = (0.0001, 0.0005, 0.001, 0.003, 0.01)

Operation = Callable[[TrioConnection, random.Random], Awaitable[None]]


async def select(connection: TrioConnection, rng: random.Random) -> None:
    assert await (await connection.execute("select %s::int", [7])).fetchone() == (7,)


async def sleep(connection: TrioConnection, rng: random.Random) -> None:
    await connection.execute("select pg_sleep(0.01)")


async def pair(connection: TrioConnection, rng: random.Random) -> None:
    async with connection.transaction():
        number = rng.randrange(10**9)
        await connection.execute("insert into pairs values (%s, 0)", [number])
        await trio.sleep(rng.random() * 0.002)
        await connection.execute("insert into pairs values (%s, 1)", [number])


async def nested_pair(connection: TrioConnection, rng: random.Random) -> None:
    async with connection.transaction():
        number = rng.randrange(10**9)
        await connection.execute("insert into pairs values (%s, 0)", [number])
        async with connection.transaction():
            await connection.execute("insert into pairs values (%s, 1)", [number])


async def copy_in(connection: TrioConnection, rng: random.Random) -> None:
    async with connection.cursor() as cursor, cursor.copy("copy rows from stdin") as copy:
        for i in range(3000):
            await copy.write_row((i, "x" * 50))


async def copy_out(connection: TrioConnection, rng: random.Random) -> None:
    async with connection.cursor() as cursor, cursor.copy("copy (select generate_series(1, 20000)) to stdout") as copy:
        async for _ in copy:
            pass


async def pipeline(connection: TrioConnection, rng: random.Random) -> None:
    async with connection.pipeline():
        cursors = [await connection.execute("select %s::int", [i]) for i in range(50)]
        assert [await cursor.fetchone() for cursor in cursors] == [(i,) for i in range(50)]


async def executemany(connection: TrioConnection, rng: random.Random) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany("insert into rows values (%s, 'm')", [(i,) for i in range(200)])


async def stream(connection: TrioConnection, rng: random.Random) -> None:
    async with connection.cursor() as cursor, aclosing(cursor.stream("select generate_series(1, 5000)")) as rows:  # type: ignore[type-var]  # declared as a mere iterator
        async for _ in rows:
            pass
    await connection.execute("select 1")  # libpq stays in single-row mode until the next plain query (psycopg 3.3.9)


async def listen(connection: TrioConnection, rng: random.Random) -> None:
    await connection.execute("listen news")
    async with aclosing(connection.notifies(timeout=0.003)) as notifies:
        async for _ in notifies:
            pass
    await connection.execute("unlisten *")


ANY: Final[tuple[Operation, ...]] = (
    select,
    sleep,
    pair,
    nested_pair,
    copy_in,
    copy_out,
    pipeline,
    executemany,
    stream,
    listen,
)
KEEPS_GOING: Final[tuple[Operation, ...]] = (select, sleep, pair, nested_pair, pipeline, executemany)


@attrs.define
class Score:
    operations: int = 0
    cancelled: int = 0


async def test_storm_of_cancellations(empty_database_dsn: str) -> None:
    """Eight tasks on six connections, cancelled after 0.1 to 10 ms: no wrong answer, no half transaction, no lost place."""
    seed = int(os.environ.get("FSN_FUZZ_SEED", time.time_ns() % 2**32))
    print(f"FSN_FUZZ_SEED={seed}")
    rng, score = random.Random(seed), Score()
    with trio.fail_after(SECONDS + 60):
        async with open_pool(empty_database_dsn, PoolConfig(size=6, acquire_seconds=30)) as pool:
            await pool.execute("create table pairs (number int, side int)")
            await pool.execute("create table rows (i int, t text)")
            until = trio.current_time() + SECONDS
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(storm, pool, until, rng, score)
            await check_traces(pool)
    print(score)
    assert score.cancelled > score.operations / 3 > 3


async def storm(pool: Pool, until: float, rng: random.Random, score: Score) -> None:
    while trio.current_time() < until:
        was_cancelled = await cancel_around(pool, rng)
        score.cancelled += was_cancelled
        if rng.random() < 0.3:
            was_cancelled = await cancel_inside(pool, rng)
            score.cancelled += was_cancelled
        score.operations += 1
        async with pool.connection() as connection:
            assert connection.is_clean
            cursor = await connection.execute("select 42, pg_current_xact_id_if_assigned()")
            assert await cursor.fetchone() == (42, None)


async def cancel_around(pool: Pool, rng: random.Random) -> bool:
    """Cut off the whole use of a connection, taking it and giving it back included."""
    with trio.move_on_after(rng.choice((*PATIENCE, 10))) as scope:
        async with pool.connection() as connection:
            assert connection.is_clean
            await rng.choice(ANY)(connection, rng)
    return scope.cancelled_caught


async def cancel_inside(pool: Pool, rng: random.Random) -> bool:
    """Cut off one operation and go on with the same connection, unless it was closed."""
    operation = rng.choice(KEEPS_GOING)
    async with pool.connection() as connection:
        with trio.move_on_after(rng.choice(PATIENCE)) as scope:
            await operation(connection, rng)
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
