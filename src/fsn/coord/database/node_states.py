"""States of nodes in the catalogue, each transition on record."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from fsn.coord.catalog import NodeTransition
from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.ids import NodeId, PeerId
from fsn.core.node_states import PREDECESSORS, NodeState

__all__ = [
    "StatusChange",
    "change_status",
    "last_transition",
    "maintenance_over",
    "make_transitions",
    "transitions_of",
    "transitions_since",
]


@attrs.frozen
class StatusChange:
    """A node's way into another state, and why."""

    node: NodeId
    to: NodeState
    reason: str
    at: datetime


async def change_status(
    db: Pool | Connection,
    node: NodeId,
    to: NodeState,
    *,
    reason: str,
    at: datetime,
    until: datetime | None = None,
    coordinator: PeerId | None = None,
) -> bool:
    """Bring a node into the state `to`, and record the transition in the same transaction; durable on return.

    True when it stands in `to` now, by this call or before; False when it may not pass there from where it stands
    (`fsn.core.node_states`), or there is no such node. A repeated call is harmless and records nothing; one with another `until`
    records that. A node that leaves maintenance is silent from then on at the earliest. `coordinator` is who does it; None: an
    administrator at the command line. "online" and "offline" are put right by presence within seconds. With a `Connection` it is part of
    the caller's transaction.
    """
    if isinstance(db, Pool):
        async with db.connection() as connection:
            return await change_status(connection, node, to, reason=reason, at=at, until=until, coordinator=coordinator)
    cursor = await db.execute(
        """with was as materialized (select id, status, status_until from nodes where id = %(node)s for no key update),
           changed as (
               update nodes n set status = %(to)s::node_status, status_reason = %(reason)s, status_until = %(until)s,
                   status_since = case when was.status = %(to)s::node_status then n.status_since else %(at)s end,
                   absent_since = case when was.status = 'maintenance' and n.absent_since < %(at)s then %(at)s
                                       else n.absent_since end
               from was where n.id = was.id and (was.status = any (%(allowed)s::node_status[])
                   or (was.status = %(to)s::node_status and was.status_until is distinct from %(until)s))
               returning n.id, was.status as from_status),
           noted as (
               insert into node_transitions (node_id, at, from_status, to_status, reason, until, coordinator)
               select id, %(at)s, from_status, %(to)s::node_status, %(reason)s, %(until)s, %(coordinator)s from changed)
           select exists (select from changed) or exists (select from was where status = %(to)s::node_status)""",
        {
            "node": node, "to": to, "reason": reason, "at": at, "until": until, "coordinator": coordinator,
            "allowed": list(PREDECESSORS[to]),
        },
    )  # fmt: skip
    row = await cursor.fetchone()
    return bool(row[0])


async def make_transitions(connection: Connection, changes: Sequence[StatusChange], coordinator: PeerId) -> None:
    """Write transitions of nodes whose rows the transaction has locked, and which were judged by what it read there."""
    if not changes:
        return
    await connection.execute(
        """with c as (
               select * from unnest(%(nodes)s::uuid[], %(to)s::text[], %(reasons)s::text[], %(at)s::timestamptz[])
                   as c (id, to_status, reason, at)),
           noted as (
               insert into node_transitions (node_id, at, from_status, to_status, reason, coordinator)
               select n.id, c.at, n.status, c.to_status::node_status, c.reason, %(coordinator)s
               from c join nodes n on n.id = c.id order by c.at)
           update nodes n set status = c.to_status::node_status, status_since = c.at, status_reason = c.reason, status_until = null
               from c where n.id = c.id""",
        {
            "nodes": [change.node for change in changes], "to": [change.to for change in changes],
            "reasons": [change.reason for change in changes], "at": [change.at for change in changes],
            "coordinator": coordinator,
        },
    )  # fmt: skip


async def maintenance_over(db: Pool, now: datetime, limit: int) -> Sequence[NodeId]:
    """Up to `limit` nodes whose declared maintenance is over, the longest over first."""
    rows = await db.fetch_all(
        "select id from nodes where status = 'maintenance' and status_until <= %s order by status_until limit %s",
        [now, limit],
    )
    return [NodeId(node) for (node,) in rows]


async def transitions_of(db: Pool, node: NodeId, before: int | None, limit: int) -> Sequence[NodeTransition]:
    """Up to `limit` transitions of a node, the newest first; those with ids below `before` only."""
    return await db.fetch_all(
        """select id, node_id as node, at, from_status::text as begin, to_status::text as end, reason, until, coordinator
           from node_transitions where node_id = %s and id < %s order by id desc limit %s""",
        [node, before if before is not None else 2**63 - 1, limit],
        row=NodeTransition,
    )


async def transitions_since(db: Pool, after: int, limit: int) -> Sequence[NodeTransition]:
    """Up to `limit` transitions of all nodes with ids above `after`, in their order."""
    return await db.fetch_all(
        """select id, node_id as node, at, from_status::text as begin, to_status::text as end, reason, until, coordinator
           from node_transitions where id > %s order by id limit %s""",
        [after, limit],
        row=NodeTransition,
    )


async def last_transition(db: Pool) -> int:
    """The highest id of a transition, 0 when there is none."""
    row = await db.fetch_one("select coalesce(max(id), 0) from node_transitions")
    return int(row[0]) if row else 0
