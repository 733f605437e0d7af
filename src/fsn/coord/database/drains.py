"""Nodes on their way out in the catalogue: who drains, how far each is, and what still keeps it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs

from fsn.coord.catalog import NodeStatus
from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.ids import FileId, NodeId, PeerId, ReplicaId

__all__ = [
    "Drain",
    "DrainingReplica",
    "NodeStanding",
    "advance_drain",
    "are_deletions_queued",
    "begin_drain",
    "claim_drain",
    "drain_page",
    "end_drain",
    "finish_pass",
    "is_being_scanned",
    "lock_drain",
    "maintenance_spans",
    "standing_of",
]


@attrs.frozen
class NodeStanding:
    """How a node stands, and how far its drain is (zeros without one)."""

    node: NodeId
    status: NodeStatus
    since: datetime
    reason: str
    until: datetime | None
    is_draining: bool
    replicas_left: int
    bytes_left: int
    only_here: int
    waits_for: str | None


@attrs.frozen
class Drain:
    """A claimed drain: replicas after `cursor` are to be counted in this pass. `absent_since` is None while the node is heard."""

    node: NodeId
    declared_at: datetime
    cursor: ReplicaId
    pass_began_at: datetime
    pass_replicas: int
    pass_bytes: int
    pass_only_here: int
    pass_waits_for: str | None
    status: NodeStatus
    deadline: datetime | None
    absent_since: datetime | None


@attrs.frozen
class DrainingReplica:
    """A replica that is still on the node, and its chunk: whether a node that is there and stays has another one, whether repair knows
    of the chunk, and what came in its way the last time."""

    replica: ReplicaId
    file: FileId
    index: int
    size_bytes: int
    has_other: bool
    is_queued: bool
    failure: str | None


async def standing_of(db: Pool, peer: PeerId) -> NodeStanding | None:
    """How the node with this peer id stands; None when there is none."""
    return await db.fetch_one(
        """select n.id as node, n.status::text as status, n.status_since as since, n.status_reason as reason, n.status_until as until,
                  d.node_id is not null as is_draining, coalesce(d.replicas_left, 0) as replicas_left,
                  coalesce(d.bytes_left, 0) as bytes_left, coalesce(d.only_here, 0) as only_here, d.waits_for
           from nodes n left join drains d on d.node_id = n.id where n.peer_id = %s""",
        [peer],
        row=NodeStanding,
    )


async def begin_drain(db: Connection, node: NodeId, at: datetime) -> bool:
    """Watch the node's replicas go; whether that is new. What it said of itself is what is left, until it is counted."""
    cursor = await db.execute(
        """insert into drains (node_id, declared_at, due_at, pass_began_at, replicas_left, bytes_left)
           select id, %(at)s, %(at)s, %(at)s, chunk_count, used_bytes from nodes where id = %(node)s
           on conflict (node_id) do update set due_at = excluded.due_at where drains.leased_by is null and drains.due_at > excluded.due_at
           returning xmax = 0""",
        {"node": node, "at": at},
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def end_drain(db: Connection, node: NodeId) -> bool:
    """It stays, or has left; whether it was being watched."""
    return (await db.execute("delete from drains where node_id = %s", [node])).rowcount > 0


async def lock_drain(db: Connection, drain: Drain) -> bool:
    """Whether this very drain is still going on; it is until the transaction ends. Locks the node, as who declares does."""
    cursor = await db.execute(
        "select 1 from nodes where id = %s and status = 'draining' for no key update", [drain.node]
    )
    if await cursor.fetchone() is None:
        return False
    sql = "select 1 from drains where node_id = %s and declared_at = %s"
    return await (await db.execute(sql, [drain.node, drain.declared_at])).fetchone() is not None


async def claim_drain(db: Pool, by: str, now: datetime, until: datetime, longest_pause: timedelta) -> Drain | None:
    """Take the drain that has waited longest, for `by` alone until `until`; None when none is due.

    Nothing pauses for longer than `longest_pause`: what is due later was written when a clock was ahead, and is due now.
    """
    return await db.fetch_one(
        """with due as materialized (
               select node_id from drains where due_at <= %(now)s or due_at > %(latest)s order by due_at limit 1
               for update skip locked)
           update drains d set leased_by = %(by)s, due_at = %(until)s,
               pass_began_at = case when d.pass_replicas = 0 then %(now)s else d.pass_began_at end
           from due join nodes n on n.id = due.node_id
           where d.node_id = due.node_id
           returning d.node_id as node, d.declared_at, d.cursor, d.pass_began_at, d.pass_replicas, d.pass_bytes, d.pass_only_here,
                     d.pass_waits_for, n.status::text as status, n.status_until as deadline, n.absent_since""",
        {"by": by, "now": now, "until": until, "latest": now + longest_pause},
        row=Drain,
    )


async def drain_page(db: Pool, drain: Drain, limit: int) -> Sequence[DrainingReplica]:
    """The next `limit` replicas of the node, in the order of their ids; lost ones, too. A few look-ups by index each."""
    return await db.fetch_all(
        # Scalar sub-selects: "exists" in a list of columns may be planned as one hash of the whole table.
        """select r.id as replica, r.file_id as file, r.chunk_index as index, r.sealed_bytes as size_bytes,
                  (select o.id from replicas o join nodes n on n.id = o.node_id
                   where o.file_id = r.file_id and o.chunk_index = r.chunk_index and o.id <> r.id and o.state = 'live'
                       and n.status in ('joining', 'online') limit 1) is not null as has_other,
                  p.file_id is not null or (select f.status from files f where f.id = r.file_id) is distinct from 'ready' as is_queued,
                  p.failure
           from (select id, file_id, chunk_index, sealed_bytes from replicas where node_id = %s and id > %s order by id limit %s) r
           left join repairs p on p.file_id = r.file_id and p.chunk_index = r.chunk_index
           order by r.id""",
        [drain.node, drain.cursor, limit],
        row=DrainingReplica,
    )


async def advance_drain(db: Pool, drain: Drain, by: str, counted: Drain, at: datetime) -> None:
    """Note how far the pass is; the next page is due at once. Nothing happens when another has taken over."""
    await db.execute(
        """update drains set cursor = %s, pass_replicas = %s, pass_bytes = %s, pass_only_here = %s, pass_waits_for = %s, due_at = %s,
               leased_by = null
           where node_id = %s and leased_by = %s and cursor = %s and pass_began_at = %s""",
        [
            counted.cursor, counted.pass_replicas, counted.pass_bytes, counted.pass_only_here, counted.pass_waits_for, at,
            drain.node, by, drain.cursor, drain.pass_began_at,
        ],
    )  # fmt: skip


async def finish_pass(db: Pool, drain: Drain, by: str, counted: Drain, *, again_at: datetime) -> None:
    """What this pass has counted is what is left; the next one begins at `again_at`. Nothing happens when another has taken over."""
    await db.execute(
        """update drains set replicas_left = %s, bytes_left = %s, only_here = %s, waits_for = %s, cursor = default, pass_replicas = 0,
               pass_bytes = 0, pass_only_here = 0, pass_waits_for = null, pass_began_at = %s, due_at = %s, leased_by = null
           where node_id = %s and leased_by = %s and cursor = %s and pass_began_at = %s""",
        [
            counted.pass_replicas, counted.pass_bytes, counted.pass_only_here, counted.pass_waits_for, again_at, again_at,
            drain.node, by, drain.cursor, drain.pass_began_at,
        ],
    )  # fmt: skip


async def are_deletions_queued(db: Pool, node: NodeId) -> bool:
    """Whether the node has still to forget something."""
    row = await db.fetch_one("select exists (select 1 from replica_deletions where node_id = %s)", [node])
    return bool(row and row[0])


async def is_being_scanned(db: Pool, node: NodeId) -> bool:
    """Whether repair is still looking through the node's replicas."""
    sql = "select exists (select 1 from repair_scans where node_id = %s and finished_at is null)"
    row = await db.fetch_one(sql, [node])
    return bool(row and row[0])


async def maintenance_spans(db: Pool, node: NodeId, since: datetime, now: datetime) -> Sequence[tuple[float, float]]:
    """The node's maintenances that ended after `since`, as unix seconds; one that lasts ends now."""
    rows = await db.fetch_all(
        """select extract(epoch from at)::float8, extract(epoch from ended)::float8
           from (select at, to_status, coalesce(lead(at) over (order by id), %(now)s) as ended from node_transitions
                 where node_id = %(node)s and id >= coalesce(
                     (select max(id) from node_transitions where node_id = %(node)s and at <= %(since)s), 0)) t
           where to_status = 'maintenance'""",
        {"node": node, "since": since, "now": now},
    )
    return [(float(begin), float(end)) for begin, end in rows]
