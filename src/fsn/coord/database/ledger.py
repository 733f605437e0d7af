"""Balances and bookings: `ledger_post` is the only way that money moves."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from psycopg.errors import CheckViolation

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.errors import InsufficientCredits
from fsn.core.units import MicroCredits, format_credits

__all__ = [
    "GRANTS",
    "RESERVED",
    "SALES",
    "STORAGE",
    "AccountKind",
    "balance",
    "book",
    "open_account",
    "release",
    "reserve",
]

AccountKind = Literal["user", "node"]
GRANTS: Final = "grants"
"""The system account that welcome grants come from."""
RESERVED: Final = "reserved"
"""The system account that holds what uploads under way will cost."""
SALES: Final = "sales"
"""The system account that bought credits come from."""
STORAGE: Final = "storage"
"""The system account that users' payments for storing go to."""


async def open_account(db: Connection, kind: AccountKind, owner: UUID) -> None:
    """Make sure that `owner` has an account; a new one stands at zero."""
    sql = "insert into ledger_account (kind, owner) values (%s, %s) on conflict do nothing"
    await db.execute(sql, [kind, str(owner)])


async def balance(db: Pool, kind: AccountKind, owner: UUID) -> MicroCredits:
    """What `owner` has; zero without an account."""
    row = await db.fetch_one("select balance from ledger_account where kind = %s and owner = %s", [kind, str(owner)])
    return MicroCredits(row[0] if row else 0)


async def book(
    db: Connection,
    *,
    kind: str,
    ref: str,
    at: datetime,
    owner: tuple[AccountKind, UUID],
    system: str,
    amount: MicroCredits,
) -> bool:
    """Move `amount` (may be negative) from a system account to an owner's; False when `ref` was booked before.

    Raises InsufficientCredits when the owner's balance would fall below zero; nothing is booked then, and the transaction that `db`
    is in has to be rolled back.
    """
    accounts = await _accounts(db, {owner[0]: str(owner[1]), "system": system})
    try:
        cursor = await db.execute(
            "select ledger_post(%s, %s, %s, %s::bigint[], %s::bigint[])",
            [kind, ref, at, [accounts[owner[0]], accounts["system"]], [amount, -amount]],
        )
    except CheckViolation as error:
        raise InsufficientCredits(
            f"{format_credits(-amount)} credits are needed, more than the balance", wanted=format_credits(-amount)
        ) from error
    row = await cursor.fetchone()
    return row is not None and row[0] is not None


async def reserve(db: Connection, user: UUID, file: UUID, amount: MicroCredits, at: datetime) -> None:
    """Set aside what an upload will cost, once; raises InsufficientCredits, and the transaction has to be rolled back."""
    await book(
        db, kind="reserve", ref=f"reserve:{file}", at=at, owner=("user", user), system=RESERVED, amount=MicroCredits(-amount)
    )  # fmt: skip


async def release(db: Connection, user: UUID, file: UUID, at: datetime) -> MicroCredits | None:
    """Give back what was set aside for an upload, once: it is dropped, or charged in the same transaction. How much; None when nothing
    was."""
    cursor = await db.execute(
        """select -e.amount from ledger_tx t join ledger_entry e on e.tx = t.id
               join ledger_account a on a.id = e.account and a.kind = 'user' where t.ref = %s""",
        [f"reserve:{file}"],
    )
    if (row := await cursor.fetchone()) is None:
        return None
    amount = MicroCredits(row[0])
    await book(db, kind="release", ref=f"release:{file}", at=at, owner=("user", user), system=RESERVED, amount=amount)
    return amount


async def _accounts(db: Connection, wanted: Mapping[str, str]) -> dict[str, int]:
    sql = """select a.kind::text, a.id from ledger_account a
             join unnest(%s::text[], %s::text[]) as w (kind, owner) on a.kind::text = w.kind and a.owner = w.owner"""
    cursor = await db.execute(sql, [list(wanted), list(wanted.values())])
    return {str(kind): int(number) for kind, number in await cursor.fetchall()}
