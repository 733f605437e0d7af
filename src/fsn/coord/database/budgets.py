"""Budgets: what a user means to spend in a calendar month (UTC) at most; no upload begins that would go beyond."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import LiteralString

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.errors import InsufficientCredits
from fsn.core.ids import UserId
from fsn.core.units import MicroCredits, format_credits

__all__ = ["BUDGET", "Budget", "budgets_of", "check_budget", "month_of", "set_budget"]

BUDGET: LiteralString = """
    u.budget_micro, case when u.budget_micro is null then 0 else coalesce((
        select -sum(e.amount) from ledger_account s join ledger_entry e on e.account = s.id join ledger_tx t on t.id = e.tx
        where s.kind = 'user' and s.owner = u.id::text and t.kind in ('reserve', 'release', 'storage', 'storage_day') and t.at >= %(month)s
            and e.tx >= (select min(id) from (select id from ledger_tx where at >= %(month)s offset 0) this_month)), 0) end"""
"""Columns of a `Budget` in a query of `users u`; `month` is its first moment."""


@attrs.frozen
class Budget:
    """`monthly`: None for no bound. `spent`: charged and set aside in this month; not reckoned, and 0, without a bound."""

    monthly: MicroCredits | None
    spent: MicroCredits

    def refusal(self, cost: int = 0) -> InsufficientCredits | None:
        """Why a file may not come in that costs so much, beside what is spent; None when it may."""
        if self.monthly is None or self.spent + cost <= self.monthly:
            return None
        wanted, found = format_credits(MicroCredits(self.spent + cost)), format_credits(self.monthly)
        return InsufficientCredits(
            f"with this file {wanted} credits would be spent in this month; the budget of the account is {found}",
            code="budget_reached",
            wanted=wanted,
            found=found,
        )


async def set_budget(db: Pool, user: UserId, monthly: MicroCredits | None) -> None:
    """From now on; what is stored already is charged all the same."""
    await db.execute("update users set budget_micro = %s where id = %s", [monthly, user])


async def budgets_of(connection: Connection, users: Sequence[UserId], now: datetime) -> Mapping[UserId, Budget]:
    """As they stand in the month of `now`, of users that exist."""
    cursor = await connection.execute(
        f"select u.id, {BUDGET} from users u where u.id = any (%(users)s::uuid[])",  # noqa: S608 - a constant
        {"users": list(users), "month": month_of(now)},
    )
    return {UserId(user): Budget(monthly, MicroCredits(spent)) for user, monthly, spent in await cursor.fetchall()}


async def check_budget(connection: Connection, user: UserId, now: datetime) -> None:
    """To be called after the booking, which holds the user's account: raises InsufficientCredits (`budget_reached`) when the month's sum is
    above the budget, and the transaction has to be rolled back."""
    for budget in (await budgets_of(connection, [user], now)).values():
        if refusal := budget.refusal():
            raise refusal


def month_of(now: datetime) -> datetime:
    """The first moment of its calendar month (UTC)."""
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
