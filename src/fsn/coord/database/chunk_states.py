"""Chunks as repair sees them: all their replicas, each with its node; and what a repair writes, under the chunk's lock."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from fsn.coord.catalog import FileStatus, NodeStatus, PlacedReplica
from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.ids import ChunkId, FileId, NodeId, ReplicaId

__all__ = ["ChunkState", "HeldReplica", "NewCopy", "chunk_states", "insert_copies", "lock_chunks", "remove_replicas"]

ChunkKey = tuple[FileId, int]


@attrs.frozen
class HeldReplica:
    """A replica in the catalogue, and what is known of its node."""

    id: ReplicaId
    number: int
    node: NodeId
    is_lost: bool
    status: NodeStatus
    operator: str
    region: str | None
    observed_address: str | None
    free_bytes: int
    reputation: float


@attrs.frozen
class ChunkState:
    """A chunk of a file that is not deleted; `wanted` is the number of replicas that it shall have."""

    file: FileId
    index: int
    id: ChunkId
    size_bytes: int
    wanted: int
    file_status: FileStatus
    replicas: tuple[HeldReplica, ...]

    @property
    def key(self) -> ChunkKey:
        """Which chunk."""
        return self.file, self.index


@attrs.frozen
class NewCopy:
    """A replica that was made for a chunk; `slot` is random, 0..16383."""

    file: FileId
    index: int
    replica: PlacedReplica
    slot: int


async def chunk_states(db: Pool | Connection, keys: Sequence[ChunkKey]) -> dict[ChunkKey, ChunkState]:
    """Those of the chunks that are there."""
    sql = """select c.file_id, c.index, c.id, c.size_bytes, f.pieces, f.status::text,
                    r.id, r.number, r.node_id, r.state = 'lost', n.status::text, coalesce(n.operator_id, n.id)::text, n.region,
                    n.observed_address, n.free_bytes, n.reputation
             from unnest(%s::uuid[], %s::int[]) as k (file_id, index)
             join chunks c on c.file_id = k.file_id and c.index = k.index
             join files f on f.id = c.file_id and f.status <> 'deleted'
             left join replicas r on r.file_id = c.file_id and r.chunk_index = c.index
             left join nodes n on n.id = r.node_id
             order by c.file_id, c.index, r.number, r.id"""
    parameters = [[file for file, _ in keys], [index for _, index in keys]]
    if isinstance(db, Pool):
        rows = await db.fetch_all(sql, parameters)
    else:
        rows = await (await db.execute(sql, parameters)).fetchall()
    found: dict[ChunkKey, ChunkState] = {}
    for file, index, chunk, size_bytes, wanted, status, replica, *rest in rows:
        key = (FileId(file), int(index))
        state = found.get(key) or ChunkState(*key, ChunkId(chunk), size_bytes, wanted, status, ())
        more = () if replica is None else (HeldReplica(ReplicaId(replica), *rest),)
        found[key] = attrs.evolve(state, replicas=state.replicas + more)
    return found


async def lock_chunks(db: Connection, keys: Sequence[ChunkKey]) -> dict[ChunkKey, ChunkState]:
    """As `chunk_states`, as they stand now, and nobody else repairs them, deletes their file or ends its upload until the commit."""
    files, indexes = [file for file, _ in keys], [index for _, index in keys]
    await db.execute("select 1 from files where id = any (%s::uuid[]) order by id for share", [files])
    await db.execute(
        """select 1 from chunks c join unnest(%s::uuid[], %s::int[]) as k (file_id, index)
               on c.file_id = k.file_id and c.index = k.index
           order by c.file_id, c.index for no key update of c""",
        [files, indexes],
    )
    return await chunk_states(db, keys)  # in a statement of its own: it sees what was committed while we waited


async def insert_copies(db: Connection, copies: Sequence[NewCopy], at: datetime) -> None:
    """Add replicas to chunks that the transaction has locked."""
    await db.execute(
        """insert into replicas (id, file_id, chunk_index, number, node_id, root, sealed_bytes, slot, stored_at)
           select r.*, %s from unnest(%s::uuid[], %s::uuid[], %s::int[], %s::smallint[], %s::uuid[], %s::bytea[], %s::int[],
                                      %s::smallint[]) as r""",
        [
            at,
            [copy.replica.id for copy in copies],
            [copy.file for copy in copies],
            [copy.index for copy in copies],
            [copy.replica.number for copy in copies],
            [copy.replica.node for copy in copies],
            [copy.replica.root for copy in copies],
            [copy.replica.sealed_bytes for copy in copies],
            [copy.slot for copy in copies],
        ],
    )


async def remove_replicas(db: Connection, replicas: Sequence[ReplicaId], at: datetime) -> None:
    """Take replicas out of chunks that the transaction has locked, and queue their bytes for deletion on their nodes."""
    ids = sorted(replicas)
    await db.execute("select 1 from replicas where id = any (%s::uuid[]) order by id for update", [ids])
    await db.execute(
        """with gone as (delete from replicas where id = any (%(ids)s::uuid[]) returning id, node_id)
           insert into replica_deletions (replica_id, node_id, queued_at, next_try_at)
           select id, node_id, %(at)s, %(at)s from gone on conflict do nothing""",
        {"ids": ids, "at": at},
    )
