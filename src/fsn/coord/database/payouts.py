"""Payouts that nodes asked for: recorded, and off the balance at once. In all no more is paid out than users have bought: what welcome
grants pay for stays in the network."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from fsn.coord.database.pool import Pool
from fsn.core.errors import Conflict, InsufficientCredits
from fsn.core.ids import NodeId
from fsn.core.units import MicroCredits, format_credits

__all__ = ["list_payouts", "request_payout"]


async def request_payout(db: Pool, request: UUID, node: NodeId, amount: int, destination: str, at: datetime) -> bool:
    """Record that a node wants `amount` micro-credits paid out; its balance falls by it at once. False when `request` was made before.

    Raises InsufficientCredits when the balance is lower, Conflict (`not_funded`) when users have not bought so much beyond what was paid
    out, or asked for, already.
    """
    async with db.transaction() as connection:
        cursor = await connection.execute(
            """insert into payout_requests (id, node_id, amount, destination, at) values (%s, %s, %s, %s, %s) on conflict do nothing
               returning id""",
            [request, node, amount, destination, at],
        )
        if await cursor.fetchone() is None:
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


async def list_payouts(db: Pool, node: NodeId) -> Sequence[tuple[UUID, int, str, str, datetime]]:
    """The last hundred that the node asked for, the newest first: id, micro-credits, status, destination, when."""
    rows = await db.fetch_all(
        "select id, amount, status, destination, at from payout_requests where node_id = %s order by at desc, id limit 100",
        [node],
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]
