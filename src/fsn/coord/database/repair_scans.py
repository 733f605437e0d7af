"""Nodes whose replicas are to be looked at again, each with a cursor; and which silences of nodes have been looked at, how far."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.nodes import NIL
from fsn.coord.database.pool import Pool
from fsn.core.ids import FileId, NodeId, ReplicaId

__all__ = [
    "RepairScan",
    "ScannedReplica",
    "WatchedSilence",
    "advance_scan",
    "claim_scan",
    "finish_scan",
    "node_replicas",
    "queue_node",
    "queue_returned",
    "queue_silent",
    "watched_silences",
]


@attrs.frozen
class RepairScan:
    """A claimed scan: replicas of the node after `cursor` are to be looked at."""

    node: NodeId
    reason: str
    cursor: ReplicaId
    revision: int


@attrs.frozen
class ScannedReplica:
    """A replica on the node, and its chunk."""

    replica: ReplicaId
    file: FileId
    index: int


@attrs.frozen
class WatchedSilence:
    """How far a silence has been looked at: 1 the chunks with few other replicas, 2 all. `since` tells silences of one node apart."""

    node: NodeId
    stage: int
    since: datetime


async def queue_node(db: Connection | Pool, node: NodeId, *, reason: str, at: datetime) -> None:
    """Have all replicas of `node` looked at (again), a page at a time, by whichever coordinator comes first; does not wait for it.

    Call it whenever what the node's replicas count for has changed: it left, was disqualified, drains, is back. A scan under way begins
    anew. Again is harmless; an unknown node is an error (a foreign key's).
    """
    await db.execute(
        """insert into repair_scans (node_id, reason, queued_at, due_at) values (%(node)s, %(reason)s, %(at)s, %(at)s)
           on conflict (node_id) do update set reason = excluded.reason, queued_at = excluded.queued_at, due_at = excluded.due_at,
               cursor = default, revision = repair_scans.revision + 1, leased_by = null, finished_at = null""",
        {"node": node, "reason": reason, "at": at},
    )


async def queue_silent(db: Pool, silences: Sequence[WatchedSilence], *, reason: str, at: datetime) -> Sequence[NodeId]:
    """Queue the nodes whose silence has not been looked at so far yet; which these are. Again, or by several at once, is harmless."""
    ordered = sorted(silences, key=lambda silence: silence.node)
    rows = await db.fetch_all(
        """insert into repair_scans (node_id, reason, queued_at, due_at, stage, silent_since)
           select s.node_id, %(reason)s, %(at)s, %(at)s, s.stage, s.since
           from unnest(%(nodes)s::uuid[], %(stages)s::smallint[], %(since)s::timestamptz[]) with ordinality
               as s (node_id, stage, since, turn) order by s.turn
           on conflict (node_id) do update set reason = excluded.reason, queued_at = excluded.queued_at, due_at = excluded.due_at,
               cursor = default, revision = repair_scans.revision + 1, leased_by = null, finished_at = null,
               stage = excluded.stage, silent_since = excluded.silent_since
               where repair_scans.stage < excluded.stage or repair_scans.silent_since is distinct from excluded.silent_since
           returning node_id""",
        {
            "reason": reason,
            "at": at,
            "nodes": [each.node for each in ordered],
            "stages": [each.stage for each in ordered],
            "since": [each.since for each in ordered],
        },
    )
    return [NodeId(row[0]) for row in rows]


async def queue_returned(
    db: Pool, silences: Sequence[WatchedSilence], *, reason: str, at: datetime
) -> Sequence[NodeId]:
    """Queue nodes that are heard again after those silences: what was made good for them may be surplus now. Which were queued."""
    ordered = sorted(silences, key=lambda silence: silence.node)
    rows = await db.fetch_all(
        """with back as (
               select r.node_id from repair_scans r join unnest(%(nodes)s::uuid[], %(since)s::timestamptz[]) as s (node_id, since)
                   on r.node_id = s.node_id and r.silent_since = s.since
               where r.stage > 0 order by r.node_id for update of r)
           update repair_scans r set reason = %(reason)s, queued_at = %(at)s, due_at = %(at)s, cursor = default,
               revision = r.revision + 1, leased_by = null, finished_at = null, stage = 0, silent_since = null
           from back where r.node_id = back.node_id returning r.node_id""",
        {
            "reason": reason,
            "at": at,
            "nodes": [each.node for each in ordered],
            "since": [each.since for each in ordered],
        },
    )
    return [NodeId(row[0]) for row in rows]


async def watched_silences(db: Pool, *, after: NodeId | None = None, limit: int = 10_000) -> Sequence[WatchedSilence]:
    """Silences that have been looked at, in the order of the nodes' ids, up to `limit` of those after `after`."""
    return await db.fetch_all(
        """select node_id as node, stage, silent_since as since from repair_scans
           where stage > 0 and node_id > %s order by node_id limit %s""",
        [after or NIL, limit],
        row=WatchedSilence,
    )


async def claim_scan(db: Pool, by: str, now: datetime, until: datetime) -> RepairScan | None:
    """Take the scan that has waited longest, or go on with one of one's own, for `by` alone until `until`."""
    row = await db.fetch_one(
        """with due as materialized (
               select node_id from repair_scans where finished_at is null and (due_at <= %(now)s or leased_by = %(by)s)
               order by queued_at limit 1 for update skip locked)
           update repair_scans r set leased_by = %(by)s, due_at = %(until)s from due where r.node_id = due.node_id
           returning r.node_id, r.reason, r.cursor, r.revision""",
        {"by": by, "now": now, "until": until},
    )
    return RepairScan(NodeId(row[0]), str(row[1]), ReplicaId(row[2]), int(row[3])) if row else None


async def node_replicas(db: Pool, node: NodeId, after: ReplicaId, limit: int) -> Sequence[ScannedReplica]:
    """Up to `limit` replicas on a node, in the order of their ids, those after `after` only; lost ones, too."""
    return await db.fetch_all(
        """select id as replica, file_id as file, chunk_index as index from replicas
           where node_id = %s and id > %s order by id limit %s""",
        [node, after, limit],
        row=ScannedReplica,
    )


async def advance_scan(db: Connection, scan: RepairScan, cursor: ReplicaId) -> bool:
    """Note how far the scan is; False when it was queued again, or taken over, meanwhile."""
    done = await db.execute(
        "update repair_scans set cursor = %s where node_id = %s and revision = %s and cursor = %s",
        [cursor, scan.node, scan.revision, scan.cursor],
    )
    return done.rowcount > 0


async def finish_scan(db: Pool, scan: RepairScan, at: datetime) -> None:
    """The scan is through, unless it was queued again meanwhile. The row of a silence stays; it says that this one was looked at."""
    async with db.transaction() as connection:
        await connection.execute(
            "delete from repair_scans where node_id = %s and revision = %s and stage = 0", [scan.node, scan.revision]
        )
        await connection.execute(
            "update repair_scans set finished_at = %s, leased_by = null where node_id = %s and revision = %s",
            [at, scan.node, scan.revision],
        )
