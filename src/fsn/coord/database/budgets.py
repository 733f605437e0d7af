"""Budgets: what a user means to spend in a calendar month (UTC) at most; no upload begins that would go beyond."""

from datetime import UTC, date, datetime
from typing import LiteralString

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.errors import InsufficientCredits
from fsn.core.ids import UserId
from fsn.core.units import MicroCredits, format_credits

__all__ = ["BUDGET", "Budget", "check_budget", "month_of", "set_budget"]

BUDGET: LiteralString = "u.budget_micro, case when a.spent_month = %(month)s then a.spent else 0 end"
"""Columns of a `Budget` in a query of `users u` and their `ledger_account a`; `month` is its first day. Bookings add up what is spent."""


@attrs.frozen
class Budget:
    """`monthly`: None for no bound. `spent`: charged and set aside in this month, less what was given back."""

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


async def check_budget(connection: Connection, user: UserId, now: datetime) -> None:
    """To be called after the booking, which holds the user's account: raises InsufficientCredits (`budget_reached`) when the month's sum is
    above the budget, and the transaction has to be rolled back."""
    cursor = await connection.execute(
        f"select {BUDGET} from users u join ledger_account a on a.kind = 'user' and a.owner = u.id::text where u.id = %(user)s",  # noqa: S608 - a constant
        {"user": user, "month": month_of(now)},
    )
    monthly, spent = await cursor.fetchone()
    if refusal := Budget(monthly, MicroCredits(spent)).refusal():
        raise refusal


def month_of(now: datetime) -> date:
    """The first day of its calendar month (UTC)."""
    return now.astimezone(UTC).date().replace(day=1)
