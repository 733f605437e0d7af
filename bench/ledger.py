"""Bookings a second: many tasks that debit one balance, and each its own; small files, many at a time; ten thousand nodes' statements."""

import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import trio

from bench.catalogue import open_server
from fsn.coord.catalog import StoredFile, WholeFile
from fsn.coord.database import ledger
from fsn.coord.database.pool import Pool, PoolConfig, open_pool
from fsn.coord.database.small_charges import charge_files
from fsn.coord.paying import Paying
from fsn.core.errors import InsufficientCredits
from fsn.core.ids import FileId, UserId
from fsn.core.units import MicroCredits
from fsn.runtime.identity import Identity
from fsn.runtime.supervise import Rest

__all__ = ["main"]

TASKS: Final = 32
BALANCE: Final = 4000
TRIED: Final = BALANCE + 10 * TASKS
"""Debits of 1: the last ones find nothing left."""
NODES: Final = 10_000
WANTED_A_SECOND: Final = 500
WANTED_SECONDS: Final = 2.0
AT: Final = datetime(2026, 11, 26, tzinfo=UTC)
DAYS: Final = """
    insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, capacity_bytes)
        select md5(i::text)::uuid, i::text, sha256(i::text::bytea), 'n', sha256(i::text::bytea), %(long_ago)s, %(long_ago)s, 1
        from generate_series(1, %(count)s) i;
    insert into node_days (node_id, day, present_seconds, counted_seconds) select id, %(day)s, 86400, 86400 from nodes;
    insert into agreed_bytes (node_id, day, byte_seconds, seconds) select id, %(day)s, 86400e12, 86400 from nodes;
    insert into proof_rounds (round, begins_at, judged_at)
        select r, %(day)s::timestamp at time zone 'UTC' + r * interval '4 h', %(day)s from generate_series(0, 5) r;
    insert into proof_sums (round, node_id, asked, passed) select r, id, 100, 100 from nodes cross join generate_series(0, 5) r;
    analyze;
"""


async def _fill_balance(db: Pool, owner: UUID, amount: int) -> None:
    async with db.transaction() as connection:
        await ledger.open_account(connection, "user", owner)
        await ledger.book(
            connection, kind="grant", ref=f"grant:{owner}", at=AT, owner=("user", owner), system=ledger.GRANTS, amount=MicroCredits(amount)
        )  # fmt: skip


async def _debit(db: Pool, owner: UUID, count: int) -> int:
    """Try so many debits of 1, one after the other; how many there was money for."""
    done = 0
    for _ in range(count):
        try:
            async with db.transaction() as connection:
                await ledger.book(
                    connection, kind="storage", ref=f"storage:{uuid4()}", at=AT, owner=("user", owner), system=ledger.STORAGE,
                    amount=MicroCredits(-1),
                )  # fmt: skip
        except InsufficientCredits:
            continue
        done += 1
    return done


async def _measure(db: Pool, owners: Sequence[UUID]) -> float:
    """Debits a second of 32 tasks, each of one of the balances, until more was tried than there is. Raises AssertionError when one was
    lost, or a balance fell below zero."""
    for owner in owners:
        await _fill_balance(db, owner, BALANCE // len(owners))
    done: list[int] = []

    async def debit(owner: UUID) -> None:
        done.append(await _debit(db, owner, TRIED // TASKS))

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(TASKS):
            nursery.start_soon(debit, owners[number % len(owners)])
    seconds = time.perf_counter() - began
    left = [await ledger.balance(db, "user", owner) for owner in owners]
    assert left == [0] * len(owners), f"every balance must be used up to the last micro-credit; found {left}"
    assert sum(done) == BALANCE, f"{BALANCE} debits must succeed; {sum(done)} did"
    return BALANCE / seconds


async def _debits(dsn: str, repeats: int) -> None:
    async with open_pool(dsn, PoolConfig(size=TASKS)) as db:
        for name, count in (("one balance", 1), (f"{TASKS} balances", TASKS)):
            found = [await _measure(db, [uuid4() for _ in range(count)]) for _ in range(repeats)]
            wanted = f", wanted {WANTED_A_SECOND}" if count == 1 else ""
            print(
                f"{TASKS} tasks debit {name}: {statistics.median(found):,.0f} a second"
                f" ({min(found):,.0f} to {max(found):,.0f}{wanted}); none lost, none below zero"
            )


async def _small_files(dsn: str, repeats: int) -> None:
    """As the recorder charges them: a transaction for each batch, here with nothing else in it."""
    async with open_pool(dsn) as db:
        users = [UserId(uuid4()) for _ in range(TASKS)]
        for user in users:
            await db.execute(
                "insert into users (id, email, password_hash, created_at) values (%s, %s, '', %s)",
                [user, str(user), AT],
            )
            await _fill_balance(db, user, 10**12)
        for size in (1, 32, 512):
            found = [await _charge_batches(db, users, size, 2048 // size) for _ in range(repeats)]
            print(
                f"small files charged, {size} in a batch: {statistics.median(found) * 1000:.2f} ms a batch ({min(found) * 1000:.2f} best)"
            )


async def _charge_batches(db: Pool, users: Sequence[UserId], size: int, count: int) -> float:
    """Seconds for each of so many batches of so many files."""
    count = min(count, 200)
    batches = [[_whole(users[number % len(users)]) for number in range(size)] for _ in range(count)]
    began = time.perf_counter()
    for batch in batches:
        async with db.transaction() as connection:
            assert not await charge_files(connection, batch, AT)
    return (time.perf_counter() - began) / count


def _whole(user: UserId) -> WholeFile:
    file = StoredFile(FileId(uuid4()), user, "f", 1, 262_144, 3, "ready", "k", b"w", b"s", AT, AT)
    return WholeFile(file, (), MicroCredits(46))


async def _statements(dsn: str) -> None:
    async with open_pool(dsn) as db:
        day = AT.date() - timedelta(days=3)
        given = {"long_ago": AT - timedelta(days=400), "count": NODES, "day": day}
        for statement in DAYS.split(";\n"):
            if statement.strip():
                await db.execute(statement.encode(), given if "%(" in statement else None)
        worker = Paying(db, Identity(bytes(range(32))), lambda: AT)
        began, before = time.perf_counter(), time.process_time()
        while not isinstance(await worker.step(), Rest):
            pass
        seconds, own = time.perf_counter() - began, time.process_time() - before
        row = await db.fetch_one("select count(*) from node_statements where earned > 0")
        assert row == (NODES,), f"{NODES} statements are wanted; found {row}"
        print(
            f"{NODES:,} statements made, signed and posted: {seconds:.2f} s (wanted {WANTED_SECONDS}), {own:.2f} CPU s of the coordinator"
        )


def main(repeats: int) -> None:
    """Print it."""
    with open_server() as (_, dsn):
        trio.run(_debits, dsn, repeats)
        trio.run(_small_files, dsn, repeats)
        trio.run(_statements, dsn)
