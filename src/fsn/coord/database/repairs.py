"""The repair queue in the catalogue: chunks that want looking at, worst first; replicas that are lost; nodes to be scanned.

Who locks rows here does so in this order: files, chunks, replicas, repairs; within each table in the order of its key.
"""

from collections.abc import Sequence
from datetime import datetime

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.ids import FileId, NodeId, ReplicaId

__all__ = ["queue_chunks", "queue_node", "report_lost"]

ChunkKey = tuple[FileId, int]


async def report_lost(db: Pool, replicas: Sequence[ReplicaId], *, reason: str, at: datetime) -> int:
    """Mark replicas as lost and queue their chunks for repair, in one transaction; how many were live until now.

    Unknown ids and those that are lost already are passed over; again is harmless. Nothing is deleted: a lost replica's row stays until
    its chunk has enough others, and until then it is read as a last resort. A few thousand at once at most.
    """
    ids = sorted(set(replicas))
    async with db.transaction() as connection:
        # The files first: who deletes one holds its row, and then takes those of its replicas.
        await connection.execute(
            """select 1 from files where id in (select file_id from replicas where id = any (%s::uuid[]))
               order by id for share""",
            [ids],
        )
        cursor = await connection.execute(
            """update replicas set state = 'lost', lost_at = %(at)s, lost_reason = %(reason)s
               where id in (select id from replicas where id = any (%(ids)s::uuid[]) and state = 'live' order by id
                            for no key update)
               returning file_id, chunk_index""",
            {"at": at, "reason": reason, "ids": ids},
        )
        rows = await cursor.fetchall()
        await queue_chunks(connection, [(FileId(file), int(index)) for file, index in rows], reason=reason, at=at)
    return len(rows)


async def queue_chunks(db: Connection | Pool, chunks: Sequence[ChunkKey], *, reason: str, at: datetime) -> None:
    """Have chunks looked at: repaired, trimmed, or let go when nothing is the matter. Again only makes it due now.

    A chunk that somebody works on at this moment is looked at once more afterwards. Urgency is counted here: live replicas on nodes
    that are there, as the catalogue says.
    """
    keys = sorted(set(chunks))
    if not keys:
        return
    await db.execute(
        """insert into repairs (file_id, chunk_index, live, reason, queued_at, due_at)
           select k.file_id, k.index,
                  (select count(*) from replicas r join nodes n on n.id = r.node_id
                   where r.file_id = k.file_id and r.chunk_index = k.index and r.state = 'live'
                       and n.status in ('joining', 'online', 'draining')),
                  %(reason)s, %(at)s, %(at)s
           from unnest(%(files)s::uuid[], %(indexes)s::int[]) as k (file_id, index) order by 1, 2
           on conflict (file_id, chunk_index) do update set live = excluded.live, reason = excluded.reason,
               due_at = case when repairs.leased_by is null then excluded.due_at else repairs.due_at end,
               revision = repairs.revision + 1""",
        {"reason": reason, "at": at, "files": [file for file, _ in keys], "indexes": [index for _, index in keys]},
    )


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
