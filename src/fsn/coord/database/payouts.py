"""Payouts that nodes asked for: recorded, and off the balance at once. In all no more is paid out than users have bought: what welcome
grants pay for stays in the network."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, LiteralString
from uuid import UUID

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.errors import Conflict, InsufficientCredits, NotFound
from fsn.core.ids import NodeId
from fsn.core.units import MicroCredits, format_credits

__all__ = ["Payout", "list_payouts", "pending_payouts", "request_payout", "settle_payout"]

_PAYOUT: Final[LiteralString] = "id, node_id as node, amount, status, destination, at, settled_at, note"
_SHOWN: Final = 100


@attrs.frozen
class Payout:
    """A payout that a node asked for, of `amount` micro-credits. `status`: pending, paid or refused; then `note` has the words of who said
    so."""

    id: UUID
    node: NodeId
    amount: int
    status: str
    destination: str
    at: datetime
    settled_at: datetime | None
    note: str | None


async def request_payout(db: Pool, request: UUID, node: NodeId, amount: int, destination: str, at: datetime) -> bool:
    """Record that a node wants `amount` micro-credits paid out; its balance falls by it at once. False when `request` was made before.

    Raises InsufficientCredits when the balance is lower, Conflict (`not_funded`) when users have not bought so much beyond what was paid
    out, or asked for, already; Conflict (`payout_differs`) when `request` names another payout.
    """
    async with db.transaction() as connection:
        cursor = await connection.execute(
            """insert into payout_requests (id, node_id, amount, destination, at) values (%s, %s, %s, %s, %s) on conflict do nothing
               returning id""",
            [request, node, amount, destination, at],
        )
        if await cursor.fetchone() is None:
            await _check_same(connection, request, (node, amount, destination))
            return False
        # By itself: what a statement reads after it waited for a lock is as old as its beginning.
        await connection.execute(
            "select from ledger_account where kind = 'system' and owner = 'payouts' for no key update"
        )
        cursor = await connection.execute(
            """select a.id, a.balance, p.id,
                      (select coalesce(-sum(e.amount), 0)::bigint from ledger_account s join ledger_entry e on e.account = s.id
                       where s.kind = 'system' and s.owner in ('sales', 'payouts'))
               from ledger_account p left join ledger_account a on a.kind = 'node' and a.owner = %s
               where p.kind = 'system' and p.owner = 'payouts'""",
            [str(node)],
        )
        account, balance, payouts, funds = await cursor.fetchone()
        if account is None or balance < amount:
            raise InsufficientCredits(
                f"a payout of {format_credits(MicroCredits(amount))} credits is wanted, the balance is"
                f" {format_credits(MicroCredits(balance or 0))}"
            )
        if amount > funds:
            raise Conflict(
                f"a payout of {format_credits(MicroCredits(amount))} credits is wanted; of what users bought"
                f" {format_credits(MicroCredits(max(0, funds)))} are not paid out yet: ask for less, or later",
                code="not_funded",
            )
        await connection.execute(
            "select ledger_post('payout', %s, %s, %s::bigint[], %s::bigint[])",
            [f"payout:{request}", at, [account, payouts], [-amount, amount]],
        )
    return True


async def _check_same(connection: Connection, request: UUID, wanted: tuple[NodeId, int, str]) -> None:
    cursor = await connection.execute(
        "select node_id, amount, destination from payout_requests where id = %s", [request]
    )
    if await cursor.fetchone() != wanted:
        raise Conflict(f"payout {request} was another one: take a new id", code="payout_differs")


async def list_payouts(db: Pool, node: NodeId) -> Sequence[Payout]:
    """The last hundred that the node asked for, the newest first."""
    sql = f"select {_PAYOUT} from payout_requests where node_id = %s order by at desc, id limit %s"  # noqa: S608 - a constant
    return await db.fetch_all(sql, [node, _SHOWN], row=Payout)


async def pending_payouts(db: Pool, limit: int) -> Sequence[Payout]:
    """Up to `limit` that wait for somebody to pay, the oldest first."""
    sql = f"select {_PAYOUT} from payout_requests where status = 'pending' order by at, id limit %s"  # noqa: S608 - a constant
    return await db.fetch_all(sql, [limit], row=Payout)


async def settle_payout(
    db: Pool, request: UUID, status: Literal["paid", "refused"], *, note: str, at: datetime
) -> Payout:
    """Say how a pending payout ended; what is refused goes back to the node's balance. Again, with the same end, is a success.

    Raises NotFound; Conflict when it ended otherwise.
    """
    async with db.transaction() as connection:
        cursor = await connection.execute(
            """update payout_requests set status = %s, settled_at = %s, note = %s where id = %s and status = 'pending'
               returning node_id, amount""",
            [status, at, note, request],
        )
        if (settled := await cursor.fetchone()) is not None and status == "refused":
            await connection.execute(
                """select ledger_post('payout_refused', %s, %s, array[a.id, p.id], array[%s::bigint, %s::bigint])
                   from ledger_account a, ledger_account p
                   where a.kind = 'node' and a.owner = %s and p.kind = 'system' and p.owner = 'payouts'""",
                [f"payout_refused:{request}", at, settled[1], -settled[1], str(settled[0])],
            )
    sql = f"select {_PAYOUT} from payout_requests where id = %s"  # noqa: S608 - a constant
    found = await db.fetch_one(sql, [request], row=Payout)
    if found is None:
        raise NotFound(f"there is no payout {request}")
    if found.status != status:
        raise Conflict(f"payout {request} is {found.status} since {found.settled_at:%Y-%m-%d %H:%M}: it stays so")
    return found
