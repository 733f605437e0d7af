"""The driver of simulations: statements take no turn of trio's, lock waits let others run, and a process's connections are cut together."""

from collections.abc import Iterator

import psycopg
import pytest
import trio
from psycopg import errors

from fsn.coord.database.pool import Pool, PoolConfig
from fsn.coord.database.stepping_driver import SteppingDriver
from fsn.core.errors import Unavailable
from fsn.sim.clock import VirtualClock


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """The clock of the test's trio run."""
    return VirtualClock()


@pytest.fixture
def driver(database_dsn: str) -> Iterator[SteppingDriver]:
    """Over a fresh database with a table of two rows."""
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute("create table things (id int primary key, n int not null)")
        connection.execute("insert into things values (1, 0), (2, 0)")
    driver = SteppingDriver(database_dsn)
    yield driver
    driver.close()


@pytest.fixture
def db(driver: SteppingDriver, database_dsn: str) -> Iterator[Pool]:
    """A pool of one simulated process."""
    pool = Pool(database_dsn, PoolConfig(), driver.connector())
    yield pool
    pool.close()


async def test_a_statement_takes_no_time(db: Pool, virtual_clock: VirtualClock) -> None:
    """Not even one that the server works on for a while: no deadline passes."""
    with trio.move_on_after(0.001) as scope:
        assert await db.fetch_one("select count(*) from things, pg_sleep(0.05)") == (2,)
    assert not scope.cancelled_caught
    assert trio.current_time() == 0


async def test_who_waits_for_a_lock_lets_others_run(
    db: Pool, driver: SteppingDriver, virtual_clock: VirtualClock
) -> None:
    """The holder may wait in virtual time; then the other one has its turn, with what was committed."""
    order: list[str] = []

    async def hold() -> None:
        async with db.transaction() as connection:
            await connection.execute("update things set n = 1 where id = 1")
            order.append("held")
            await trio.sleep(60)
            order.append("committing")

    async def follow() -> None:
        await trio.sleep(1)
        await db.execute("update things set n = n * 10 where id = 1")
        order.append(f"followed after {trio.current_time():g} s")

    with virtual_clock.hold_while(lambda: driver.is_waiting_for_server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            nursery.start_soon(follow)
    assert order == ["held", "committing", "followed after 60 s"]
    assert await db.fetch_one("select n from things where id = 1") == (10,)
    assert driver.waits == 1


async def test_locked_rows_are_skipped(db: Pool, virtual_clock: VirtualClock) -> None:
    """Leases work: what another transaction holds is passed over, at once."""
    async with db.transaction() as connection:
        await connection.execute("select from things where id = 1 for update")
        assert await db.fetch_all("select id from things order by id for update skip locked") == [(2,)]


async def test_a_deadlock_is_broken(db: Pool, driver: SteppingDriver, virtual_clock: VirtualClock) -> None:
    """By PostgreSQL; one of the two goes on, and no virtual time passes."""
    failures: list[BaseException] = []

    async def lock(first: int, second: int) -> None:
        try:
            async with db.transaction() as connection:
                await connection.execute("update things set n = n + 1 where id = %s", [first])
                await trio.sleep(1)
                await connection.execute("update things set n = n + 1 where id = %s", [second])
        except errors.DeadlockDetected as error:
            failures.append(error)

    with virtual_clock.hold_while(lambda: driver.is_waiting_for_server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lock, 1, 2)
            nursery.start_soon(lock, 2, 1)
    assert len(failures) == 1
    assert trio.current_time() == 1
    assert await db.fetch_all("select n from things") == [(1,), (1,)]


async def test_a_wait_for_a_lock_can_be_cancelled(
    db: Pool, driver: SteppingDriver, virtual_clock: VirtualClock
) -> None:
    """The statement is withdrawn, the connection stays good."""
    async with db.transaction() as connection:
        await connection.execute("update things set n = 1 where id = 1")
        with virtual_clock.hold_while(lambda: driver.is_waiting_for_server), trio.move_on_after(5) as scope:
            await db.execute("update things set n = 2 where id = 1")
        assert scope.cancelled_caught
        assert await db.fetch_one("select n from things where id = 1") == (0,)
    assert await db.fetch_one("select n from things where id = 1") == (1,)


async def test_a_process_that_ends_leaves_nothing(
    driver: SteppingDriver, database_dsn: str, virtual_clock: VirtualClock
) -> None:
    """Its transactions are rolled back and its locks are free when the cut returns; it gets no new connection until it is mended."""
    connector = driver.connector()
    pool, other = Pool(database_dsn, PoolConfig(), connector), Pool(database_dsn, PoolConfig(), driver.connector())
    with pytest.raises(Unavailable):
        async with pool.transaction() as connection:
            await connection.execute("update things set n = 5 where id = 1")
            connector.cut()
            assert await other.fetch_all("select n from things where id = 1 for update nowait") == [(0,)]
            await connection.execute("select 1")
    with pytest.raises(Unavailable):
        await pool.fetch_one("select 1")
    connector.mend()
    assert await pool.fetch_one("select 1") == (1,)
    pool.close()
    other.close()
