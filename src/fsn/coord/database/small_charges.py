"""Small files are charged many at a time, in the transaction that records them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

import attrs

from fsn.coord.catalog import WholeFile
from fsn.coord.database import ledger
from fsn.coord.database.base import Connection
from fsn.coord.database.budgets import BUDGET, Budget, month_of
from fsn.core.errors import InsufficientCredits
from fsn.core.ids import FileId, UserId
from fsn.core.units import MicroCredits, format_credits

__all__ = ["charge_files"]


@attrs.define
class _Purse:
    """What a user can spend yet, with the account locked."""

    account: int
    balance: int
    budget: Budget
    spent: int = 0

    def take(self, cost: MicroCredits) -> InsufficientCredits | None:
        """Take the cost of a file; why not, otherwise."""
        if cost > self.balance:
            wanted, found = format_credits(cost), format_credits(MicroCredits(self.balance))
            return InsufficientCredits(
                f"storing this file costs {wanted} credits; the balance is {found}", wanted=wanted, found=found
            )
        if refusal := self.budget.refusal(self.spent + cost):
            return refusal
        self.balance -= cost
        self.spent += cost
        return None


async def charge_files(
    connection: Connection, wholes: Sequence[WholeFile], at: datetime
) -> Mapping[FileId, InsufficientCredits]:
    """Charge each file's cost to its user, one after the other; those that the balance or the budget does not cover are not charged, and
    returned with the reason.

    As `ledger_post` does it, in two statements for all of them: the same locks in the same order, the same rows. Every file is new.
    """
    refused: dict[FileId, InsufficientCredits] = {}
    purses = await _lock_purses(connection, {whole.file.user_id for whole in wholes}, at)
    charged: list[tuple[FileId, int, int]] = []
    for whole in wholes:
        purse = purses[whole.file.user_id]
        if refusal := purse.take(whole.cost):
            refused[whole.file.id] = refusal
        else:
            charged.append((whole.file.id, purse.account, whole.cost))
    if charged:
        await _book(connection, charged, at)
    return refused


async def _lock_purses(connection: Connection, users: set[UserId], at: datetime) -> Mapping[UserId, _Purse]:
    cursor = await connection.execute(
        f"""select u.id, a.id, a.balance, {BUDGET} from users u join ledger_account a on a.kind = 'user' and a.owner = u.id::text
            where u.id = any (%(users)s::uuid[]) order by a.id for no key update of a""",  # noqa: S608 - a constant
        {"users": list(users), "month": month_of(at)},
    )
    return defaultdict(
        lambda: _Purse(0, 0, Budget(None, MicroCredits(0))),
        {
            UserId(user): _Purse(account, balance, Budget(monthly, MicroCredits(spent)))
            for user, account, balance, monthly, spent in await cursor.fetchall()
        },
    )


async def _book(connection: Connection, charged: Sequence[tuple[FileId, int, int]], at: datetime) -> None:
    await connection.execute(
        """with charged as (
               select * from unnest(%(refs)s::text[], %(accounts)s::bigint[], %(costs)s::bigint[]) as c (ref, account, cost)),
           t as (insert into ledger_tx (kind, ref, at) select 'storage', ref, %(at)s from charged returning id, ref),
           noted as (
               insert into ledger_entry (tx, account, amount)
               select t.id, c.account, -c.cost from charged c join t using (ref)
               union all
               select t.id, s.id, c.cost from charged c join t using (ref)
                   join ledger_account s on s.kind = 'system' and s.owner = %(system)s)
           update ledger_account l set balance = l.balance - sums.cost,
               spent = case when l.spent_month > %(month)s then l.spent
                            when l.spent_month = %(month)s then l.spent + sums.cost
                            else sums.cost end,
               spent_month = greatest(l.spent_month, %(month)s)
           from (select account, sum(cost) as cost from charged group by account) sums where l.id = sums.account""",
        {
            "refs": [f"storage:{file}" for file, _, _ in charged],
            "accounts": [account for _, account, _ in charged],
            "costs": [cost for _, _, cost in charged],
            "system": ledger.STORAGE,
            "at": at,
            "month": month_of(at),
        },
    )
