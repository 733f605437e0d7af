"""Credits that users bought, and the history of their account."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import attrs

from fsn.coord.database.ledger import SALES, book
from fsn.coord.database.pool import Pool
from fsn.core.errors import Conflict
from fsn.core.ids import UserId
from fsn.core.units import MicroCredits

__all__ = ["HistoryEntry", "Purchase", "history", "purchase"]


@attrs.frozen
class Purchase:
    """What was bought. `provider_ref` is unique with its provider: the same purchase told twice is one."""

    id: UUID
    user: UserId
    provider: str
    provider_ref: str
    amount_usd_cents: int
    micro_credits: MicroCredits
    created_at: datetime


@attrs.frozen
class HistoryEntry:
    """One booking on a user's account. `amount` in micro-credits, negative when credits left it; `ref` says what it was for."""

    tx: int
    at: datetime
    kind: str
    ref: str
    amount: int


async def purchase(db: Pool, wanted: Purchase) -> Purchase:
    """Record a paid purchase and add its credits, once; what is on record for it, which may be an earlier call's.

    Raises Conflict (`idempotency_key_reused`) when the same reference was used for another amount, or by another user.
    """
    async with db.transaction() as connection:
        cursor = await connection.execute(
            """insert into credit_purchases (id, user_id, provider, provider_ref, amount_usd_cents, micro_credits, created_at)
               values (%(id)s, %(user)s, %(provider)s, %(provider_ref)s, %(amount_usd_cents)s, %(micro_credits)s, %(created_at)s)
               on conflict (provider, provider_ref) do nothing returning id""",
            attrs.asdict(wanted),
        )
        if await cursor.fetchone():
            await book(
                connection, kind="purchase", ref=f"purchase:{wanted.id}", at=wanted.created_at, owner=("user", wanted.user),
                system=SALES, amount=wanted.micro_credits,
            )  # fmt: skip
            await connection.execute("update users set charge_after = null where id = %s", [wanted.user])
            await connection.execute(
                "update credit_purchases set tx = (select id from ledger_tx where ref = %s) where id = %s",
                [f"purchase:{wanted.id}", wanted.id],
            )
            return wanted
        cursor = await connection.execute(
            """select id, user_id, provider, provider_ref, amount_usd_cents, micro_credits, created_at from credit_purchases
               where provider = %s and provider_ref = %s""",
            [wanted.provider, wanted.provider_ref],
        )
        found = Purchase(*await cursor.fetchone())
    if (found.user, found.amount_usd_cents) != (wanted.user, wanted.amount_usd_cents):
        raise Conflict(
            f"this Idempotency-Key was used for a purchase of {found.amount_usd_cents} cents; asked for are {wanted.amount_usd_cents}",
            code="idempotency_key_reused",
        )
    return found


async def history(db: Pool, user: UserId, before: int | None, limit: int) -> Sequence[HistoryEntry]:
    """Up to `limit` bookings of a user's account, the newest first, those before booking `before` only."""
    return await db.fetch_all(
        """select e.tx, t.at, t.kind, t.ref, e.amount from ledger_account a
               join ledger_entry e on e.account = a.id join ledger_tx t on t.id = e.tx
           where a.kind = 'user' and a.owner = %s and e.tx < %s order by e.tx desc limit %s""",
        [str(user), before or 2**62, limit],
        row=HistoryEntry,
    )
