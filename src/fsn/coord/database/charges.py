"""Storing after the days that were paid for in advance: each file is charged day by day; who cannot pay is past due."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from fsn.coord.database import ledger
from fsn.coord.database.base import Connection
from fsn.coord.database.budgets import BUDGET, Budget, month_of
from fsn.coord.database.files import forget_file
from fsn.coord.database.pool import Pool
from fsn.core.ids import FileId, UserId
from fsn.core.tariff import daily_cost
from fsn.core.units import MicroCredits

__all__ = ["Charged", "Standing", "charge_user", "mark_paid", "paid_for", "standing", "users_due"]

FILES_AT_ONCE: Final = 1000
DELETED_AT_ONCE: Final = 100
TRY_AGAIN: Final = timedelta(hours=1)


@attrs.frozen
class Standing:
    """A user's balance, since when a day of storing is owed, and the budget of this month."""

    balance: MicroCredits
    past_due_since: datetime | None
    budget: Budget


@attrs.frozen
class Charged:
    """What became of a user's files that were due: charged (`files`, `amount` in micro-credits), or not, for the balance does not cover
    them: `is_newly_past_due` when it did so until now. `deleted`: those whose grace is over."""

    files: int = 0
    amount: int = 0
    is_newly_past_due: bool = False
    deleted: Sequence[FileId] = ()


async def standing(db: Pool, user: UserId, now: datetime) -> Standing:
    """Of a user that exists."""
    row = await db.fetch_one(
        f"""select coalesce(a.balance, 0), u.past_due_since, {BUDGET} from users u
                left join ledger_account a on a.kind = 'user' and a.owner = u.id::text where u.id = %(user)s""",  # noqa: S608 - a constant
        {"user": user, "month": month_of(now)},
    )
    balance, since, monthly, spent = row or (0, None, None, 0)
    return Standing(MicroCredits(balance), since, Budget(monthly, MicroCredits(spent)))


async def mark_paid(connection: Connection, file: FileId, cost: MicroCredits, until: datetime) -> None:
    """A file has been paid for its first days; from `until` on it is charged day by day."""
    await connection.execute(
        "update files set monthly_cost = %(cost)s, paid_micro = %(cost)s, paid_until = %(until)s where id = %(file)s",
        {"cost": cost, "until": until, "file": file},
    )


async def paid_for(db: Pool, file: FileId) -> MicroCredits:
    """What storing a file has cost so far."""
    row = await db.fetch_one("select paid_micro from files where id = %s", [file])
    return MicroCredits(row[0] if row else 0)


async def users_due(db: Pool, now: datetime, limit: int) -> list[UserId]:
    """Up to `limit` users with files that have to be charged, or past due; those whose balance was too low lately wait for their hour, or a
    purchase."""
    rows = await db.fetch_all(
        """select u.id from users u
           where u.id in (select user_id from files where status = 'ready' and paid_until <= %(now)s
                          union select id from users where past_due_since is not null)
               and (u.charge_after is null or u.charge_after <= %(now)s) limit %(limit)s""",
        {"now": now, "limit": limit},
    )
    return [UserId(row[0]) for row in rows]


async def charge_user(db: Pool, user: UserId, now: datetime, grace: timedelta) -> Charged:
    """Charge one day of up to FILES_AT_ONCE of the user's files that are due, those first that have been for longest: all of them, or,
    when the balance does not cover them, none. When that has been so for `grace`, up to DELETED_AT_ONCE of them are deleted.

    One transaction; each day of a file is charged once, however many coordinators do this.
    """
    async with db.transaction() as connection:
        due = await _due(connection, user, now)
        amount = sum(cost for _, _, cost in due)
        # Locked until all is written: credits that are bought in this moment come before it or after it.
        if amount > await _locked_balance(connection, user):
            return await _fall_due(connection, user, due, now, grace)
        await _pay(connection, user, due, amount, now)
        return Charged(len(due), amount)


async def _due(connection: Connection, user: UserId, now: datetime) -> list[tuple[FileId, datetime, int]]:
    """Files, locked, with the beginning of the day that is due, and what it costs."""
    cursor = await connection.execute(
        """select id, paid_until, monthly_cost from files
           where user_id = %(user)s and status = 'ready' and paid_until <= %(now)s
           order by paid_until, id limit %(limit)s for no key update""",
        {"user": user, "now": now, "limit": FILES_AT_ONCE},
    )
    return [(FileId(row[0]), row[1], daily_cost(row[2])) for row in await cursor.fetchall()]


async def _locked_balance(connection: Connection, user: UserId) -> int:
    cursor = await connection.execute(
        "select balance from ledger_account where kind = 'user' and owner = %s for no key update", [str(user)]
    )
    row = await cursor.fetchone()
    return row[0] if row else 0


async def _pay(
    connection: Connection, user: UserId, due: Sequence[tuple[FileId, datetime, int]], amount: int, now: datetime
) -> None:
    if amount:
        first, until, _ = due[0]
        await ledger.book(
            connection, kind="storage_day", ref=f"storage_day:{first}:{until.isoformat()}", at=now, owner=("user", user),
            system=ledger.STORAGE, amount=MicroCredits(-amount),
        )  # fmt: skip
    await connection.execute(
        """update files f set paid_until = f.paid_until + interval '1 day', paid_micro = f.paid_micro + c.cost
           from unnest(%s::uuid[], %s::bigint[]) as c (id, cost) where f.id = c.id""",
        [[file for file, _, _ in due], [cost for _, _, cost in due]],
    )
    await _clear(connection, user, now)


async def _clear(connection: Connection, user: UserId, now: datetime) -> None:
    """Nothing is owed any more, unless something is."""
    await connection.execute(
        """update users u set past_due_since = null, charge_after = null where id = %(user)s
               and (past_due_since is not null or charge_after is not null)
               and not exists (select from files where user_id = u.id and status = 'ready' and paid_until <= %(now)s)""",
        {"user": user, "now": now},
    )


async def _fall_due(
    connection: Connection, user: UserId, due: Sequence[tuple[FileId, datetime, int]], now: datetime, grace: timedelta
) -> Charged:
    cursor = await connection.execute("select past_due_since from users where id = %s", [user])
    row = await cursor.fetchone()
    since: datetime | None = row[0] if row else None
    is_over = since is not None and since + grace <= now
    deleted = [file for file, _, _ in due[:DELETED_AT_ONCE]] if is_over else []
    for file in deleted:
        await forget_file(connection, user, file, now)
    if deleted:
        await _clear(connection, user, now)
        return Charged(deleted=deleted)
    await connection.execute(
        "update users set past_due_since = coalesce(past_due_since, %(now)s), charge_after = %(after)s where id = %(user)s",
        {"now": now, "after": now + TRY_AGAIN, "user": user},
    )
    return Charged(is_newly_past_due=since is None)
