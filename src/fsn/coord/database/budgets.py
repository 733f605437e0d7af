"""Budgets: what a user means to spend in a calendar month (UTC) at most; no upload begins that would go beyond."""

from datetime import UTC, datetime

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.errors import InsufficientCredits
from fsn.core.ids import UserId
from fsn.core.units import MicroCredits, format_credits

__all__ = ["Budget", "budget_of", "check_budget", "set_budget"]

_SPENT = """
    select u.budget_micro, case when u.budget_micro is null then 0 else coalesce((
        select -sum(e.amount) from ledger_account a join ledger_entry e on e.account = a.id join ledger_tx t on t.id = e.tx
        where a.kind = 'user' and a.owner = u.id::text and t.kind in ('reserve', 'release', 'storage', 'storage_day') and t.at >= %(month)s
            and e.tx >= (select min(id) from (select id from ledger_tx where at >= %(month)s offset 0) this_month)), 0) end
    from users u where u.id = %(user)s"""


@attrs.frozen
class Budget:
    """`monthly`: None for no bound. `spent`: charged and set aside in this month; not reckoned, and 0, without a bound."""

    monthly: MicroCredits | None
    spent: MicroCredits


async def set_budget(db: Pool, user: UserId, monthly: MicroCredits | None) -> None:
    """From now on; what is stored already is charged all the same."""
    await db.execute("update users set budget_micro = %s where id = %s", [monthly, user])


async def budget_of(db: Pool, user: UserId, now: datetime) -> Budget:
    """As it stands in the month of `now`."""
    row = await db.fetch_one(_SPENT, {"user": user, "month": _month(now)})
    return Budget(row[0], MicroCredits(row[1])) if row else Budget(None, MicroCredits(0))


async def check_budget(connection: Connection, user: UserId, now: datetime) -> None:
    """To be called after the booking, which holds the user's account: raises InsufficientCredits (`budget_reached`) when the month's sum is
    above the budget, and the transaction has to be rolled back."""
    cursor = await connection.execute(_SPENT, {"user": user, "month": _month(now)})
    row = await cursor.fetchone()
    if row is None or row[0] is None or row[1] <= row[0]:
        return
    raise InsufficientCredits(
        f"with this file {format_credits(MicroCredits(row[1]))} credits would be spent in this month; the budget of the account is"
        f" {format_credits(row[0])}",
        code="budget_reached",
        wanted=format_credits(MicroCredits(row[1])),
        found=format_credits(row[0]),
    )


def _month(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
