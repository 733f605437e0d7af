"""Chunks and their replicas in the catalogue, written and read many at a time."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from fsn.coord.catalog import ChunkRecord, PlacedReplica, StoredChunk
from fsn.coord.database.driver import TrioConnection
from fsn.coord.database.pool import Pool
from fsn.core.ids import ChunkId, FileId, NodeId, ReplicaId

__all__ = [
    "chunk_fingerprint",
    "chunk_totals",
    "chunks_between",
    "fingerprints",
    "insert_chunks",
    "insert_replicas",
    "missing_indexes",
    "queue_deletions",
    "replica_health",
    "stored_ranges",
]  # fmt: skip

ChunkKey = tuple[FileId, int]


async def insert_chunks(db: TrioConnection, records: Sequence[ChunkRecord]) -> set[ChunkKey]:
    """Insert the chunks whose file is still coming in and that are not there yet; the keys of those inserted.

    Locks the files' rows (shared) until the transaction ends, so that an upload cannot be completed or aborted in between.
    """
    cursor = await db.execute(
        """with incoming as (
               select * from unnest(%s::uuid[], %s::int[], %s::uuid[], %s::int[], %s::bytea[])
                   as c (file_id, index, id, size_bytes, fingerprint)),
           open as materialized (
               select id from files where id = any (%s::uuid[]) and status = 'uploading' order by id for share)
           insert into chunks (file_id, index, id, size_bytes, fingerprint)
           select i.* from incoming i join open o on o.id = i.file_id
           on conflict do nothing returning file_id, index""",
        [
            [r.file for r in records], [r.index for r in records], [r.id for r in records],
            [r.size_bytes for r in records], [r.fingerprint for r in records], list({r.file for r in records}),
        ],
    )  # fmt: skip
    return {(FileId(file), int(index)) for file, index in await cursor.fetchall()}


async def insert_replicas(
    db: TrioConnection, records: Sequence[ChunkRecord], slots: Sequence[int], at: datetime
) -> None:
    """Insert the replicas of chunks that were just inserted; `slots` has one random number 0..16383 for each replica."""
    rows = [(record, replica) for record in records for replica in record.replicas]
    await db.execute(
        """insert into replicas (id, file_id, chunk_index, number, node_id, root, sealed_bytes, slot, stored_at)
           select r.*, %s from unnest(%s::uuid[], %s::uuid[], %s::int[], %s::smallint[], %s::uuid[], %s::bytea[],
                                      %s::int[], %s::smallint[]) as r""",
        [
            at, [r.id for _, r in rows], [c.file for c, _ in rows], [c.index for c, _ in rows],
            [r.number for _, r in rows], [r.node for _, r in rows], [r.root for _, r in rows],
            [r.sealed_bytes for _, r in rows], list(slots),
        ],
    )  # fmt: skip


async def queue_deletions(db: TrioConnection, replicas: Sequence[PlacedReplica], at: datetime) -> None:
    """Remember sealed bytes that lie on nodes and that nobody needs; those that are replicas of a chunk are left out."""
    await db.execute(
        """insert into replica_deletions (replica_id, node_id, queued_at, next_try_at)
           select r.id, r.node, %s, %s from unnest(%s::uuid[], %s::uuid[]) as r (id, node)
           where not exists (select 1 from replicas where replicas.id = r.id) on conflict do nothing""",
        [at, at, [r.id for r in replicas], [r.node for r in replicas]],
    )


async def fingerprints(db: TrioConnection, keys: Sequence[ChunkKey]) -> Mapping[ChunkKey, bytes]:
    """The fingerprints of those of the chunks that are there."""
    cursor = await db.execute(
        """select c.file_id, c.index, c.fingerprint from chunks c
           join unnest(%s::uuid[], %s::int[]) as k (file_id, index) on c.file_id = k.file_id and c.index = k.index""",
        [[file for file, _ in keys], [index for _, index in keys]],
    )
    return {(FileId(file), int(index)): bytes(mark) for file, index, mark in await cursor.fetchall()}


async def chunk_fingerprint(db: Pool, file: FileId, index: int) -> bytes | None:
    """The fingerprint of one chunk, None when it is not there."""
    row = await db.fetch_one("select fingerprint from chunks where file_id = %s and index = %s", [file, index])
    return bytes(row[0]) if row else None


async def chunk_totals(db: TrioConnection, file: FileId) -> tuple[int, int]:
    """How many chunks of `file` are there, and their bytes."""
    cursor = await db.execute("select count(*), coalesce(sum(size_bytes), 0) from chunks where file_id = %s", [file])
    row = await cursor.fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


async def missing_indexes(db: TrioConnection | Pool, file: FileId, count: int, limit: int) -> list[int]:
    """The first `limit` indexes of 0..count-1 that are not there."""
    sql = """select i from generate_series(0, %s) i
             where not exists (select 1 from chunks where file_id = %s and index = i) order by i limit %s"""
    parameters = [count - 1, file, limit]
    if isinstance(db, Pool):
        return [int(row[0]) for row in await db.fetch_all(sql, parameters)]
    return [int(row[0]) for row in await (await db.execute(sql, parameters)).fetchall()]


async def stored_ranges(db: Pool, file: FileId, limit: int) -> list[tuple[int, int]]:
    """The chunks that are there, as up to `limit` ranges (first, last), in order."""
    sql = """select min(index), max(index) from
                 (select index, index - row_number() over (order by index) as run from chunks where file_id = %s) c
             group by run order by 1 limit %s"""
    return [(int(first), int(last)) for first, last in await db.fetch_all(sql, [file, limit])]


async def chunks_between(db: Pool, file: FileId, first: int, last: int) -> list[StoredChunk]:
    """The chunks first..last, in order, each with its live replicas."""
    sql = """select c.index, c.id, c.size_bytes,
                    array_agg(r.id order by r.number) filter (where r.id is not null),
                    array_agg(r.node_id order by r.number) filter (where r.id is not null)
             from chunks c left join replicas r on r.file_id = c.file_id and r.chunk_index = c.index and r.state = 'live'
             where c.file_id = %s and c.index between %s and %s group by c.file_id, c.index order by c.index"""
    return [
        StoredChunk(
            index,
            ChunkId(chunk),
            size,
            tuple((ReplicaId(r), NodeId(n)) for r, n in zip(replicas or (), nodes or (), strict=True)),
        )
        for index, chunk, size, replicas, nodes in await db.fetch_all(sql, [file, first, last])
    ]


async def replica_health(db: Pool, file: FileId, online: Sequence[NodeId]) -> int | None:
    """The smallest number of live replicas on the nodes `online` over the file's chunks; None without chunks."""
    sql = """select min(n) from (select count(r.id) as n from chunks c
                 left join replicas r on r.file_id = c.file_id and r.chunk_index = c.index and r.state = 'live'
                                     and r.node_id = any (%s::uuid[])
                 where c.file_id = %s group by c.index) counts"""
    row = await db.fetch_one(sql, [list(online), file])
    return int(row[0]) if row and row[0] is not None else None
