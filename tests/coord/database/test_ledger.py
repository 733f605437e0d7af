"""Whatever is booked, in whatever order and however often: entries sum to zero, no balance is negative, each follows from its entries."""

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fsn.coord.catalog import StoredFile, User, WholeFile
from fsn.coord.database import ledger
from fsn.coord.database.budgets import set_budget
from fsn.coord.database.charges import standing
from fsn.coord.database.inspection import LedgerState, ledger_state
from fsn.coord.database.pool import Pool
from fsn.coord.database.small_charges import charge_files
from fsn.coord.database.users import insert_user
from fsn.core.errors import InsufficientCredits
from fsn.core.ids import FileId, UserId
from fsn.core.units import MicroCredits

AT: Final = datetime(2026, 11, 26, tzinfo=UTC)
over_the_database = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    # A history that fails is told as it was drawn: to shrink it would take minutes.
    phases=[Phase.explicit, Phase.generate],
)
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["grant", "reserve", "release", "charge"]),
        st.integers(0, 2),  # whose
        st.integers(0, 4),  # for which file, or of which gift
        st.integers(1, 10**12),
    ),
    max_size=40,
)


async def check_books(db: Pool) -> None:
    """Over all that this database has seen."""
    assert await db.fetch_one("select coalesce(sum(amount), 0) from ledger_entry") == (0,)
    assert not await db.fetch_all("select tx from ledger_entry group by tx having sum(amount) <> 0")
    assert not await db.fetch_all(
        """select id from ledger_account a where kind <> 'system'
               and (balance < 0 or balance <> coalesce((select sum(amount) from ledger_entry where account = a.id), 0))"""
    )


async def move(db: Pool, what: str, owner: UUID, number: int, amount: int) -> None:
    """One operation, in a transaction of its own. Files belong to their owner; what is charged is named by its file, too."""
    file = UUID(int=(owner.int + number + 1) % 2**128)
    async with db.transaction() as connection:
        match what:
            case "reserve":
                await ledger.reserve(connection, owner, file, MicroCredits(amount), AT)
            case "release":
                await ledger.release(connection, owner, file, AT)
            case _:
                signed, system = (amount, ledger.GRANTS) if what == "grant" else (-amount, ledger.STORAGE)
                await ledger.book(
                    connection, kind=what, ref=f"{what}:{file}", at=AT, owner=("user", owner), system=system, amount=MicroCredits(signed)
                )  # fmt: skip


@over_the_database
@given(operations=OPERATIONS)
async def test_every_history_adds_up(pool: Pool, operations: list[tuple[str, int, int, int]]) -> None:
    """As a model says that is a dictionary: an operation said twice is one; one that cannot be paid is none."""
    owners = [uuid4() for _ in range(3)]
    async with pool.transaction() as connection:
        for owner in owners:
            await ledger.open_account(connection, "user", owner)
    wanted: Counter[UUID] = Counter()
    done: dict[tuple[str, UUID, int], int] = {}
    for what, whose, number, amount in operations:
        owner = owners[whose]
        key, change = (what, owner, number), amount if what == "grant" else -amount
        if what == "release":
            change = -done.get(("reserve", owner, number), 0)
        if key not in done and wanted[owner] + change >= 0 and change:
            done[key] = change
            wanted[owner] += change
        with suppress(InsufficientCredits):
            await move(pool, what, owner, number, amount)
        assert await ledger.balance(pool, "user", owner) == wanted[owner]
    await check_books(pool)


BATCHES = st.lists(
    st.tuples(
        st.integers(0, 40),  # days go by
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 500)), min_size=1, max_size=6),  # whose file, and its cost
        st.booleans(),  # is something dropped then, whose cost was set aside before
    ),
    max_size=10,
)


@over_the_database
@given(batches=BATCHES)
async def test_small_files_are_charged_as_one_by_one(
    pool: Pool, batches: list[tuple[int, list[tuple[int, int]], bool]]
) -> None:
    """Many in one transaction, of users with a balance of 1,000, one of them with 300 a month: each is paid or refused as a model says that
    takes them one after the other; and each month's sum is that of its bookings."""
    owners, budgets, at = [UserId(uuid4()) for _ in range(3)], {1: 300}, AT
    for number, owner in enumerate(owners):
        await insert_owner(pool, owner, budgets.get(number))
        await move(pool, "grant", owner, 0, 1000)
    balances, spent = [1000] * 3, Counter[tuple[int, int, int]]()
    for days, wanted, is_dropped in batches:
        at += timedelta(days=days)
        wholes = [WholeFile(small_file(owners[whose]), (), MicroCredits(cost)) for whose, cost in wanted]
        async with pool.transaction() as connection:
            refused = await charge_files(connection, wholes, at)
        for whole, (whose, cost) in zip(wholes, wanted, strict=True):
            month = (whose, at.year, at.month)
            is_paid = balances[whose] >= cost and spent[month] + cost <= budgets.get(whose, 10**9)
            assert (whole.file.id not in refused) is is_paid
            if is_paid:
                balances[whose] -= cost
                spent[month] += cost
        if is_dropped:
            await set_aside_and_drop(pool, owners[0], at)
    assert [await ledger.balance(pool, "user", owner) for owner in owners] == balances
    for whose, owner in enumerate(owners):
        found = (await standing(pool, owner, at)).budget
        assert (found.monthly, found.spent) == (budgets.get(whose), spent[whose, at.year, at.month])
    assert await ledger_state(pool) == LedgerState(total=0, unexplained=0)
    await check_books(pool)


async def insert_owner(db: Pool, owner: UserId, budget: int | None) -> None:
    """A user with an account."""
    async with db.transaction() as connection:
        await insert_user(connection, User(owner, f"{owner}@example.com", "x", AT))
        await ledger.open_account(connection, "user", owner)
    await set_budget(db, owner, None if budget is None else MicroCredits(budget))


async def set_aside_and_drop(db: Pool, owner: UserId, at: datetime) -> None:
    """An upload whose cost is set aside and given back; when there is money for it."""
    file = uuid4()
    with suppress(InsufficientCredits):
        async with db.transaction() as connection:
            await ledger.reserve(connection, owner, file, MicroCredits(100), at)
        async with db.transaction() as connection:
            await ledger.release(connection, owner, file, at)


def small_file(owner: UserId) -> StoredFile:
    """A new one."""
    return StoredFile(FileId(uuid4()), owner, "f", 1, 262_144, 3, "ready", "k", b"w", b"s", AT, AT)


async def test_many_debits_of_one_balance_at_once(pool: Pool) -> None:
    """Every one that there is money for is booked, and none more, however many wait for the same row."""
    owner, done = uuid4(), 0
    async with pool.transaction() as connection:
        await ledger.open_account(connection, "user", owner)
    await move(pool, "grant", owner, 0, 100)

    async def debit(first: int) -> None:
        nonlocal done
        for number in range(first, first + 5):
            with suppress(InsufficientCredits):
                await move(pool, "charge", owner, number, 1)
                done += 1

    async with trio.open_nursery() as nursery:
        for task in range(32):
            nursery.start_soon(debit, 5 * task)
    assert (done, await ledger.balance(pool, "user", owner)) == (100, 0)
    await check_books(pool)
