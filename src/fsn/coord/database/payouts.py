"""Payouts that nodes asked for: recorded, and off the balance at once."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from fsn.coord.database.pool import Pool
from fsn.core.errors import InsufficientCredits
from fsn.core.ids import NodeId
from fsn.core.units import MicroCredits, format_credits

__all__ = ["list_payouts", "request_payout"]


async def request_payout(db: Pool, request: UUID, node: NodeId, amount: int, destination: str, at: datetime) -> bool:
    """Record that a node wants `amount` micro-credits paid out; its balance falls by it at once. False when `request` was made before.

    Raises InsufficientCredits when the balance is lower.
    """
    async with db.transaction() as connection:
        cursor = await connection.execute(
            """insert into payout_requests (id, node_id, amount, destination, at) values (%s, %s, %s, %s, %s) on conflict do nothing
               returning id""",
            [request, node, amount, destination, at],
        )
        if await cursor.fetchone() is None:
            return False
        cursor = await connection.execute(
            """select a.id, a.balance, p.id from ledger_account p left join ledger_account a on a.kind = 'node' and a.owner = %s
               where p.kind = 'system' and p.owner = 'payouts' for no key update of p""",
            [str(node)],
        )
        account, balance, payouts = await cursor.fetchone()
        if account is None or balance < amount:
            raise InsufficientCredits(
                f"a payout of {format_credits(MicroCredits(amount))} credits is wanted, the balance is"
                f" {format_credits(MicroCredits(balance or 0))}"
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
