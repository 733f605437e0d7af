"""What the last dial-back found of each node: the only module that reads and writes `dial_backs`."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from fsn.coord.database.pool import Pool
from fsn.core.ids import NodeId, PeerId

__all__ = ["DialedNode", "Reached", "dialed_node", "reached_nodes", "record_dial_back"]


@attrs.frozen
class DialedNode:
    """How a node was reached when it was last dialled: `reach` and `outcome` as in `core.reachability`."""

    reach: str
    outcome: str
    tested_at: datetime


@attrs.frozen
class Reached:
    """A node that answered when it was last dialled, and where."""

    peer: PeerId
    addresses: tuple[str, ...]


async def record_dial_back(
    db: Pool, node: NodeId, found: DialedNode, addresses: Sequence[str], *, tested_by: PeerId
) -> None:
    """Keep what was found, unless something newer is known. Harmless to repeat."""
    await db.execute(
        """insert into dial_backs as d (node_id, tested_at, tested_by, reach, outcome, addresses)
           values (%s, %s, %s, %s, %s, %s)
           on conflict (node_id) do update set tested_at = excluded.tested_at, tested_by = excluded.tested_by,
               reach = excluded.reach, outcome = excluded.outcome, addresses = excluded.addresses
               where d.tested_at <= excluded.tested_at""",
        [node, found.tested_at, tested_by, found.reach, found.outcome, list(addresses)],
    )


async def dialed_node(db: Pool, node: NodeId) -> DialedNode | None:
    """What is known of a node; None when it was never dialled."""
    sql = "select reach, outcome, tested_at from dial_backs where node_id = %s"
    return await db.fetch_one(sql, [node], row=DialedNode)


async def reached_nodes(db: Pool, limit: int) -> Sequence[Reached]:
    """Up to `limit` nodes that were reached when they were last dialled, those dialled last first."""
    rows = await db.fetch_all(
        """select n.peer_id, d.addresses from (select node_id, addresses, tested_at from dial_backs where reach = 'direct'
               order by tested_at desc limit %s) d join nodes n on n.id = d.node_id order by d.tested_at desc""",
        [limit],
    )
    return [Reached(PeerId(peer), tuple(addresses)) for peer, addresses in rows]
