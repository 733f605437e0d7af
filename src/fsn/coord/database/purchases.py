"""Credits that users buy, and the history of their account."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import attrs

from fsn.coord.database.ledger import SALES, book
from fsn.coord.database.pool import Pool
from fsn.core.errors import NotFound
from fsn.core.ids import UserId
from fsn.core.units import MicroCredits

__all__ = ["HistoryEntry", "Purchase", "PurchaseStatus", "begin", "fail", "find", "has_checkout", "history", "settle"]


PurchaseStatus = Literal["pending", "paid", "failed"]


@attrs.frozen
class Purchase:
    """What is bought. `provider_ref` is unique with its provider: the same purchase asked for twice is one."""

    id: UUID
    user: UserId
    provider: str
    provider_ref: str
    amount_usd_cents: int
    micro_credits: MicroCredits
    created_at: datetime
    email: str = ""
    """The user's, as it is on record."""
    session: str | None = None
    """The provider's name for it."""
    checkout_url: str | None = None
    """Where the user pays."""
    status: PurchaseStatus = "pending"


@attrs.frozen
class HistoryEntry:
    """One booking on a user's account. `amount` in micro-credits, negative when credits left it; `ref` says what it was for."""

    tx: int
    at: datetime
    kind: str
    ref: str
    amount: int


_SELECT: Final = """select p.id, p.user_id as "user", p.provider, p.provider_ref, p.amount_usd_cents, p.micro_credits, p.created_at,
    u.email, p.session, p.checkout_url,
    case when p.tx is not null then 'paid' when p.failed_at is not null then 'failed' else 'pending' end as status
    from credit_purchases p join users u on u.id = p.user_id """


async def begin(db: Pool, wanted: Purchase) -> Purchase:
    """Write down a purchase that nobody has paid yet; what is on record for its reference, which may be an earlier call's.

    Raises NotFound for a user that there is not (any more).
    """
    async with db.transaction() as connection:
        await connection.execute(
            """insert into credit_purchases (id, user_id, provider, provider_ref, amount_usd_cents, micro_credits, created_at)
               select %(id)s, id, %(provider)s, %(provider_ref)s, %(amount_usd_cents)s, %(micro_credits)s, %(created_at)s
               from users where id = %(user)s on conflict (provider, provider_ref) do nothing""",
            attrs.asdict(wanted),
        )
        cursor = await connection.execute(
            _SELECT + "where p.provider = %s and p.provider_ref = %s", [wanted.provider, wanted.provider_ref]
        )
        row = await cursor.fetchone()
    if row is None:
        raise NotFound("there is no such user")
    return Purchase(*row)


async def has_checkout(db: Pool, purchase: UUID, session: str | None, url: str | None) -> None:
    """Note where a pending purchase is paid."""
    await db.execute(
        "update credit_purchases set session = %s, checkout_url = %s where id = %s", [session, url, purchase]
    )


async def find(db: Pool, purchase: UUID) -> Purchase | None:
    """A purchase as it stands."""
    return await db.fetch_one(_SELECT + "where p.id = %s", [purchase], row=Purchase)


async def settle(db: Pool, purchase: UUID, at: datetime) -> Purchase:
    """A purchase is paid: add its credits, once, whatever was heard of it before; how it stands then. Raises NotFound."""
    async with db.transaction() as connection:
        cursor = await connection.execute(_SELECT + "where p.id = %s for update of p", [purchase])
        if (row := await cursor.fetchone()) is None:
            raise NotFound("there is no such purchase")
        found, ref = Purchase(*row), f"purchase:{purchase}"
        if found.status != "paid":
            await book(
                connection, kind="purchase", ref=ref, at=at, owner=("user", found.user), system=SALES, amount=found.micro_credits
            )  # fmt: skip
            await connection.execute("update users set charge_after = null where id = %s", [found.user])
            await connection.execute(
                "update credit_purchases set tx = (select id from ledger_tx where ref = %s) where id = %s",
                [ref, purchase],
            )
    return attrs.evolve(found, status="paid")


async def fail(db: Pool, purchase: UUID, at: datetime) -> Purchase | None:
    """A purchase will not be paid, unless it was; how it stands then."""
    await db.execute(
        "update credit_purchases set failed_at = %s where id = %s and tx is null and failed_at is null", [at, purchase]
    )
    return await find(db, purchase)


async def history(db: Pool, user: UserId, before: int | None, limit: int) -> Sequence[HistoryEntry]:
    """Up to `limit` bookings of a user's account, the newest first, those before booking `before` only."""
    return await db.fetch_all(
        """select e.tx, t.at, t.kind, t.ref, e.amount from ledger_account a
               join ledger_entry e on e.account = a.id join ledger_tx t on t.id = e.tx
           where a.kind = 'user' and a.owner = %s and e.tx < %s order by e.tx desc limit %s""",
        [str(user), before or 2**62, limit],
        row=HistoryEntry,
    )
