"""The repair queue in the catalogue: chunks that want looking at, worst first.

Who locks rows for repair does so in this order: files, chunks, replicas, repairs; within each table in the order of its key.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, LiteralString

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.coord.database.repair_scans import queue_node
from fsn.core.ids import FileId, ReplicaId

__all__ = [
    "COUNTED",
    "MOST_LIVE",
    "FoundChunk",
    "QueueCounts",
    "QueuedRepair",
    "RepairOutcome",
    "claim_repairs",
    "mark_lost",
    "queue_chunks",
    "queue_counts",
    "queue_found",
    "queue_node",
    "queued_repairs",
    "report_lost",
    "settle_repairs",
    "wake_repairs",
]

ChunkKey = tuple[FileId, int]

MOST_LIVE: Final = 10
"""The least urgent level: so many live replicas, or more."""
COUNTED: Final = 100_000
"""A level of the queue is counted so far: a figure for people need not read millions of rows."""
_AGAIN: Final[LiteralString] = """
    on conflict (file_id, chunk_index) do update set live = excluded.live, reason = excluded.reason,
        due_at = case when repairs.leased_by is null then excluded.due_at else repairs.due_at end, revision = repairs.revision + 1"""


@attrs.frozen
class FoundChunk:
    """A chunk that wants repair, and how many of its replicas can be read."""

    file: FileId
    index: int
    live: int


@attrs.frozen
class QueuedRepair:
    """A row of the queue. `tries` counts the one that begins when it is claimed; `due_at` is the end of the lease then."""

    file: FileId
    index: int
    live: int
    reason: str
    queued_at: datetime
    due_at: datetime
    tries: int
    revision: int
    leased_by: str | None
    failure: str | None

    @property
    def key(self) -> ChunkKey:
        """Which chunk."""
        return self.file, self.index


@attrs.frozen
class RepairOutcome:
    """What became of a claimed repair: done (`again_at` is None), or to be looked at again then."""

    repair: QueuedRepair
    again_at: datetime | None = None
    tries: int = 0
    failure: str | None = None
    live: int = 0


@attrs.frozen
class QueueCounts:
    """How many chunks wait, by live replicas (each level counted to COUNTED), and since when the oldest."""

    waiting: Mapping[int, int]
    oldest: datetime | None


async def report_lost(db: Pool, replicas: Sequence[ReplicaId], *, reason: str, at: datetime) -> int:
    """Mark replicas as lost and queue their chunks for repair, in one transaction; how many were live until now.

    Unknown ids and those that are lost already are passed over; again is harmless. Nothing is deleted: a lost replica's row stays until
    its chunk has enough others, and until then it is read as a last resort. A few thousand at once at most.
    """
    async with db.transaction() as connection:
        return await mark_lost(connection, replicas, reason=reason, at=at)


async def mark_lost(connection: Connection, replicas: Sequence[ReplicaId], *, reason: str, at: datetime) -> int:
    """`report_lost` within the caller's transaction."""
    ids = sorted(set(replicas))
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
        f"""insert into repairs (file_id, chunk_index, live, reason, queued_at, due_at)
           select k.file_id, k.index,
                  least(%(most)s, (select count(*) from replicas r join nodes n on n.id = r.node_id
                                   where r.file_id = k.file_id and r.chunk_index = k.index and r.state = 'live'
                                       and n.status in ('joining', 'online', 'draining'))),
                  %(reason)s, %(at)s, %(at)s
           from unnest(%(files)s::uuid[], %(indexes)s::int[]) with ordinality as k (file_id, index, turn) order by k.turn {_AGAIN}""",  # noqa: S608 - a constant
        {
            "most": MOST_LIVE,
            "reason": reason,
            "at": at,
            "files": [file for file, _ in keys],
            "indexes": [index for _, index in keys],
        },
    )


async def queue_found(db: Connection | Pool, found: Sequence[FoundChunk], *, reason: str, at: datetime) -> None:
    """As `queue_chunks`, by somebody who has counted already."""
    if not found:
        return
    ordered = sorted({(each.file, each.index): each for each in found}.items())
    await db.execute(
        f"""insert into repairs (file_id, chunk_index, live, reason, queued_at, due_at)
           select k.file_id, k.index, k.live, %(reason)s, %(at)s, %(at)s
           from unnest(%(files)s::uuid[], %(indexes)s::int[], %(live)s::smallint[]) with ordinality as k (file_id, index, live, turn)
           order by k.turn {_AGAIN}""",  # noqa: S608 - a constant
        {
            "reason": reason,
            "at": at,
            "files": [key[0] for key, _ in ordered],
            "indexes": [key[1] for key, _ in ordered],
            "live": [min(each.live, MOST_LIVE) for _, each in ordered],
        },
    )


async def wake_repairs(db: Connection, chunks: Sequence[ChunkKey], at: datetime) -> None:
    """Those of the chunks that pause in the queue are due now: something has changed for them."""
    keys = sorted(set(chunks))
    await db.execute(
        """with paused as (
               select r.file_id, r.chunk_index from repairs r join unnest(%(files)s::uuid[], %(indexes)s::int[]) as k (file_id, index)
                   on r.file_id = k.file_id and r.chunk_index = k.index
               where r.leased_by is null and r.due_at > %(at)s order by r.file_id, r.chunk_index for update of r)
           update repairs r set due_at = %(at)s from paused where r.file_id = paused.file_id and r.chunk_index = paused.chunk_index""",
        {"at": at, "files": [file for file, _ in keys], "indexes": [index for _, index in keys]},
    )


async def claim_repairs(
    db: Pool, by: str, now: datetime, until: datetime, latest: datetime, limit: int
) -> Sequence[QueuedRepair]:
    """Take up to `limit` chunks that are due, those with the fewest live replicas first, for `by` alone until `until`.

    Nobody pauses or leases beyond `latest`: what is due later than that was written when a clock was ahead, and is due now. Reads about
    `limit` rows, however many wait and whatever is leased or paused.
    """
    rows = await db.fetch_all(
        """with due as materialized (
               select d.* from (
                   select live, after, upto from generate_series(0, %(most)s) as l (live)
                   cross join (values ('-infinity', %(now)s), (%(latest)s, 'infinity')) as span (after, upto) order by live) level
               cross join lateral (
                   select file_id, chunk_index from repairs
                   where live = level.live and due_at > level.after::timestamptz and due_at <= level.upto::timestamptz
                   order by due_at limit %(limit)s for update skip locked) d
               limit %(limit)s)
           update repairs r set due_at = %(until)s, leased_by = %(by)s, tries = r.tries + 1 from due
           where r.file_id = due.file_id and r.chunk_index = due.chunk_index
           returning r.file_id as file, r.chunk_index as index, r.live, r.reason, r.queued_at, r.due_at, r.tries, r.revision, r.leased_by,
                     r.failure""",
        {"most": MOST_LIVE, "by": by, "now": now, "until": until, "latest": latest, "limit": limit},
        row=QueuedRepair,
    )
    return sorted(rows, key=lambda repair: (repair.live, repair.queued_at, repair.key))


async def settle_repairs(db: Connection, outcomes: Sequence[RepairOutcome], by: str, at: datetime) -> None:
    """Write what became of repairs that `by` has claimed: done ones leave the queue, the others are due again when they say.

    What was queued again meanwhile is due now; what another has taken over (the lease had run out) is left to him.
    """
    if not outcomes:
        return
    rows = sorted(outcomes, key=lambda outcome: outcome.repair.key)
    columns = {
        "by": by,
        "at": at,
        "files": [each.repair.file for each in rows],
        "indexes": [each.repair.index for each in rows],
        "revisions": [each.repair.revision for each in rows],
        "again": [each.again_at for each in rows],
        "tries": [each.tries for each in rows],
        "failures": [each.failure for each in rows],
        "live": [min(each.live, MOST_LIVE) for each in rows],
    }
    await db.execute(
        """select 1 from repairs r join unnest(%(files)s::uuid[], %(indexes)s::int[]) as k (file_id, index)
               on r.file_id = k.file_id and r.chunk_index = k.index
           where r.leased_by = %(by)s order by r.file_id, r.chunk_index for update of r""",
        columns,
    )
    await db.execute(
        """delete from repairs r
           using unnest(%(files)s::uuid[], %(indexes)s::int[], %(revisions)s::int[], %(again)s::timestamptz[])
               as k (file_id, index, revision, again_at)
           where r.file_id = k.file_id and r.chunk_index = k.index and r.leased_by = %(by)s and k.again_at is null
               and r.revision = k.revision""",
        columns,
    )
    await db.execute(
        """update repairs r set leased_by = null, tries = k.tries, failure = k.failure,
               live = case when r.revision = k.revision then k.live else r.live end,
               due_at = case when r.revision = k.revision then coalesce(k.again_at, %(at)s) else %(at)s end
           from unnest(%(files)s::uuid[], %(indexes)s::int[], %(revisions)s::int[], %(again)s::timestamptz[], %(tries)s::int[],
                       %(failures)s::text[], %(live)s::smallint[])
               as k (file_id, index, revision, again_at, tries, failure, live)
           where r.file_id = k.file_id and r.chunk_index = k.index and r.leased_by = %(by)s""",
        columns,
    )


async def queue_counts(db: Pool) -> QueueCounts:
    """What waits, by urgency. Raises Unavailable."""
    rows = await db.fetch_all(
        """select level.live, c.n from generate_series(0, %(most)s) as level (live) cross join lateral (
               select count(*) as n from (select 1 from repairs where live = level.live limit %(counted)s) found) c
           where c.n > 0""",
        {"most": MOST_LIVE, "counted": COUNTED},
    )
    oldest = await db.fetch_one("select min(queued_at) from repairs")
    return QueueCounts({int(live): int(count) for live, count in rows}, oldest[0] if oldest else None)


async def queued_repairs(
    db: Pool, after: tuple[int, datetime, FileId, int] | None, limit: int
) -> Sequence[QueuedRepair]:
    """Up to `limit` rows, worst first; those after (live, due_at, file, index) only."""
    where: LiteralString = "where (live, due_at, file_id, chunk_index) > (%s, %s, %s, %s)" if after else ""
    return await db.fetch_all(
        f"""select file_id as file, chunk_index as index, live, reason, queued_at, due_at, tries, revision, leased_by, failure
            from repairs {where} order by live, due_at, file_id, chunk_index limit %s""",  # noqa: S608 - constants
        [*(after or ()), limit],
        row=QueuedRepair,
    )
