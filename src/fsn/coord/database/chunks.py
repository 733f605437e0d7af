"""Chunks and their replicas in the catalogue, written and read many at a time."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from fsn.coord.catalog import ChunkRecord, PlacedReplica, StoredChunk, WholeFile
from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.ids import ChunkId, FileId, NodeId, ReplicaId
from fsn.core.tariff import PREPAID_DAYS

__all__ = [
    "FileHealth",
    "chunk_fingerprint",
    "chunk_totals",
    "chunks_between",
    "file_health",
    "fingerprints",
    "insert_recorded",
    "missing_indexes",
    "queue_deletions",
    "stored_ranges",
]  # fmt: skip

ChunkKey = tuple[FileId, int]


async def insert_recorded(
    connection: Connection,
    records: Sequence[ChunkRecord],
    wholes: Sequence[WholeFile],
    slots: Sequence[int],
    at: datetime,
) -> set[ChunkKey]:
    """Insert small files that are whole, and chunks with their replicas; the keys of the chunks inserted. One statement.

    A chunk is inserted when its file is still coming in, or is one of `wholes` (whose chunks are among `records`), and it is not there
    yet. `slots` has one random number 0..16383 for each replica. Locks the rows of files that are coming in (shared) until the commit, so
    that an upload cannot be completed or aborted in between. Files with a cost are marked as paid; who calls this charges them.
    """
    rows = [(record, replica) for record in records for replica in record.replicas]
    files = [whole.file for whole in wholes]
    inserted = await connection.execute(
        """with whole as (
               insert into files (id, user_id, name, size_bytes, chunk_bytes, pieces, status, master_key_id, wrapped_key,
                                  wrap_secret, created_at, ready_at, monthly_cost, paid_micro, paid_until)
               select f.id, f.user_id, f.name, f.size_bytes, f.chunk_bytes, f.pieces, 'ready', f.master_key_id, f.wrapped_key,
                      f.wrap_secret, f.created_at, f.ready_at, f.cost, f.cost, case when f.cost > 0 then f.ready_at + %(prepaid)s end
               from unnest(%(f_id)s::uuid[], %(f_user)s::uuid[], %(f_name)s::text[], %(f_size)s::bigint[], %(f_chunk)s::int[],
                           %(f_pieces)s::smallint[], %(f_master)s::text[], %(f_wrapped)s::bytea[], %(f_secret)s::bytea[],
                           %(f_created)s::timestamptz[], %(f_ready)s::timestamptz[], %(w_cost)s::bigint[])
                   as f (id, user_id, name, size_bytes, chunk_bytes, pieces, master_key_id, wrapped_key, wrap_secret, created_at,
                         ready_at, cost)
               returning id),
           open as materialized (
               select id from files where id = any (%(open)s::uuid[]) and status = 'uploading' order by id for share),
           added as (
               insert into chunks (file_id, index, id, size_bytes, fingerprint)
               select c.* from unnest(%(c_file)s::uuid[], %(c_index)s::int[], %(c_id)s::uuid[], %(c_size)s::int[],
                                      %(c_mark)s::bytea[]) as c (file_id, index, id, size_bytes, fingerprint)
               where c.file_id in (select id from open union all select id from whole)
               on conflict do nothing returning file_id, index),
           replicated as (
               insert into replicas (id, file_id, chunk_index, number, node_id, root, sealed_bytes, slot, stored_at)
               select r.*, %(at)s from unnest(%(r_id)s::uuid[], %(r_file)s::uuid[], %(r_index)s::int[], %(r_number)s::smallint[],
                                              %(r_node)s::uuid[], %(r_root)s::bytea[], %(r_size)s::int[], %(r_slot)s::smallint[])
                   as r (id, file_id, chunk_index, number, node_id, root, sealed_bytes, slot)
               join added a on a.file_id = r.file_id and a.index = r.chunk_index)
           select file_id, index from added""",
        {
            "at": at,
            "open": list({r.file for r in records} - {f.id for f in files}),
            **_columns("f_", files, id="id", user="user_id", name="name", size="size_bytes", chunk="chunk_bytes",
                       pieces="pieces", master="master_key_id", wrapped="wrapped_key", secret="wrap_secret",  # noqa: S106 - columns
                       created="created_at", ready="ready_at"),
            "w_cost": [whole.cost for whole in wholes],
            "prepaid": timedelta(days=PREPAID_DAYS),
            **_columns("c_", records, file="file", index="index", id="id", size="size_bytes", mark="fingerprint"),
            "r_file": [c.file for c, _ in rows],
            "r_index": [c.index for c, _ in rows],
            **_columns("r_", [r for _, r in rows], id="id", number="number", node="node", root="root", size="sealed_bytes"),
            "r_slot": list(slots),
        },
    )  # fmt: skip
    return {(FileId(file), int(index)) for file, index in await inserted.fetchall()}


def _columns(prefix: str, values: Sequence[object], **names: str) -> dict[str, list[object]]:
    """One list for each named attribute of `values`, as unnest takes them."""
    return {prefix + short: [getattr(value, name) for value in values] for short, name in names.items()}


async def queue_deletions(db: Pool, replicas: Sequence[PlacedReplica], at: datetime) -> None:
    """Remember sealed bytes that lie on nodes and that nobody needs; those that are replicas of a chunk are left out."""
    await db.execute(
        """insert into replica_deletions (replica_id, node_id, queued_at, next_try_at)
           select r.id, r.node, %s, %s from unnest(%s::uuid[], %s::uuid[]) as r (id, node)
           where not exists (select 1 from replicas where replicas.id = r.id) on conflict do nothing""",
        [at, at, [r.id for r in replicas], [r.node for r in replicas]],
    )


async def fingerprints(db: Pool, keys: Sequence[ChunkKey]) -> Mapping[ChunkKey, bytes]:
    """The fingerprints of those of the chunks that are there."""
    found = await db.fetch_all(
        """select c.file_id, c.index, c.fingerprint from chunks c
           join unnest(%s::uuid[], %s::int[]) as k (file_id, index) on c.file_id = k.file_id and c.index = k.index""",
        [[file for file, _ in keys], [index for _, index in keys]],
    )
    return {(FileId(file), int(index)): bytes(mark) for file, index, mark in found}


async def chunk_fingerprint(db: Pool, file: FileId, index: int) -> bytes | None:
    """The fingerprint of one chunk, None when it is not there."""
    row = await db.fetch_one("select fingerprint from chunks where file_id = %s and index = %s", [file, index])
    return bytes(row[0]) if row else None


async def chunk_totals(db: Connection, file: FileId) -> tuple[int, int]:
    """How many chunks of `file` are there, and their bytes."""
    cursor = await db.execute("select count(*), coalesce(sum(size_bytes), 0) from chunks where file_id = %s", [file])
    row = await cursor.fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


async def missing_indexes(db: Connection | Pool, file: FileId, count: int, limit: int) -> list[int]:
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
    """The chunks first..last, in order, each with its live replicas, and the lost ones apart."""
    sql = """select c.index, c.id, c.size_bytes,
                    array_agg(r.id order by r.number) filter (where r.state = 'live'),
                    array_agg(r.node_id order by r.number) filter (where r.state = 'live'),
                    array_agg(r.id order by r.number) filter (where r.state = 'lost'),
                    array_agg(r.node_id order by r.number) filter (where r.state = 'lost')
             from chunks c left join replicas r on r.file_id = c.file_id and r.chunk_index = c.index
             where c.file_id = %s and c.index between %s and %s group by c.file_id, c.index order by c.index"""
    return [
        StoredChunk(index, ChunkId(chunk), size, _pairs(replicas, nodes), _pairs(lost, lost_nodes))
        for index, chunk, size, replicas, nodes, lost, lost_nodes in await db.fetch_all(sql, [file, first, last])
    ]


def _pairs(replicas: Sequence[UUID] | None, nodes: Sequence[UUID] | None) -> tuple[tuple[ReplicaId, NodeId], ...]:
    return tuple((ReplicaId(r), NodeId(n)) for r, n in zip(replicas or (), nodes or (), strict=True))


@attrs.frozen
class FileHealth:
    """Of a file's chunks: live replicas of the worst, on nodes that are there (None without chunks); how many have fewer than wanted; how
    many wait for repair or are in it."""

    live: int | None
    chunks_below: int
    chunks_in_repair: int


async def file_health(db: Pool, file: FileId, online: Sequence[NodeId]) -> FileHealth:
    """The health of a file, counting live replicas on the nodes `online`."""
    # The replicas of the file in one go, by their index: a look-up for each chunk reads sixty times the pages. A chunk without any is not
    # among them, hence the count.
    sql = """select case when c.n > 0 then case when r.chunks < c.n then 0 else r.least end end, c.n - r.enough, q.n
             from (select count(*) as n from chunks where file_id = %(file)s) c,
                  (select count(*) as chunks, min(n) as least,
                          count(*) filter (where n >= (select pieces from files where id = %(file)s)) as enough from
                      (select count(o.id) as n from replicas left join unnest(%(online)s::uuid[]) as o (id) on o.id = node_id
                       where file_id = %(file)s and state = 'live' group by chunk_index) counts) r,
                  (select count(*) as n from repairs where file_id = %(file)s) q"""
    row = await db.fetch_one(sql, {"file": file, "online": list(online)})
    assert row is not None
    return FileHealth(*row)
