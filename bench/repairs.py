"""Every statement of repair on a catalogue of millions of replicas, a tenth of the chunks in the queue: what each reads; then how fast
repair is beside an upload."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final
from uuid import UUID

import attrs
import psycopg
import trio

from bench.catalogue import Undo, Work, measure, open_catalogue
from bench.catalogue_rows import LARGE_CHUNKS, NODES, NOW, Shape, named
from bench.repair_speed import measure_speed
from fsn.coord.catalog import PlacedReplica
from fsn.coord.database import chunk_states, chunks, files, presence, repair_scans, repairs
from fsn.coord.database.pool import Pool
from fsn.core.ids import FileId, NodeId, ReplicaId

__all__ = ["main"]

ME: Final = "bench"
LATEST: Final = NOW + timedelta(hours=7)
PAGE: Final = 1000
BATCH: Final = 256
RECORDED: Final = 32
SILENT: Final = 100
ChunkKey = tuple[FileId, int]


@attrs.define
class Repairs:
    """The operations, each with parameters of its own for run `i`."""

    shape: Shape

    def file(self, number: int) -> FileId:
        """One of the large files."""
        return FileId(named("f", 1 + number % self.shape.large))

    def keys(self, i: int, count: int) -> list[ChunkKey]:
        """Chunks of many large files."""
        return [(self.file(i * 7919 + n), (i * 31 + n) % LARGE_CHUNKS) for n in range(count)]

    def replicas(self, i: int, count: int) -> list[ReplicaId]:
        """The first replica of each of these."""
        found = []
        for n in range(count):
            number, index = 1 + (i * 7919 + n) % self.shape.large, (i * 31 + n) % LARGE_CHUNKS
            found.append(ReplicaId(named(f"{number} {index} ", 0)))
        return found

    def nodes(self, i: int, count: int) -> list[NodeId]:
        """Nodes in turn."""
        return [NodeId(named("n", (i * count + n) % NODES)) for n in range(count)]

    def operations(self) -> dict[str, Work]:
        """By what they are for, in the order of a repair's life."""
        silent = [repair_scans.WatchedSilence(node, 1, NOW) for node in self.nodes(0, SILENT)]

        async def report(db: Pool, i: int, count: int) -> None:
            await repairs.report_lost(db, self.replicas(i, count), reason="scrub", at=NOW)

        async def silences(db: Pool, i: int) -> None:
            stage = [attrs.evolve(each, since=NOW + timedelta(seconds=i)) for each in silent]
            await repair_scans.queue_silent(db, stage, reason="silent", at=NOW)

        async def page(db: Pool, i: int) -> Sequence[repair_scans.ScannedReplica]:
            middle = ReplicaId(UUID(int=(i % 16) << 124))
            return await repair_scans.node_replicas(db, self.nodes(i, 1)[0], middle, PAGE)

        async def scan(db: Pool, i: int) -> None:
            """One page of a scan, with all that it reads and writes, but for the commit."""
            claimed = await repair_scans.claim_scan(db, ME, NOW, NOW)
            assert claimed is not None
            found = await page(db, i)
            states = await chunk_states.chunk_states(db, sorted({(each.file, each.index) for each in found}))
            with suppress(Undo):
                async with db.transaction() as connection:
                    await repair_scans.advance_scan(connection, claimed, found[-1].replica)
                    due = [repairs.FoundChunk(*key, 2) for key in states]
                    await repairs.queue_found(connection, due, reason="silent", at=NOW)
                    await repairs.wake_repairs(connection, list(states), NOW)
                    raise Undo

        async def claim(db: Pool, i: int) -> None:
            now = NOW + timedelta(seconds=i)
            await repairs.claim_repairs(db, ME, now, now + timedelta(minutes=4), LATEST, BATCH)

        async def record(db: Pool, i: int) -> None:
            keys = self.keys(i, RECORDED)
            claimed = [repairs.QueuedRepair(*key, 2, "r", NOW, NOW, 1, 0, ME, None) for key in keys]
            with suppress(Undo):
                async with db.transaction() as connection:
                    states = await chunk_states.lock_chunks(connection, keys)
                    made = [_copy(state, n) for n, state in enumerate(states.values())]
                    await chunk_states.insert_copies(connection, made, NOW)
                    gone = [state.replicas[0].id for state in states.values()]
                    await chunk_states.remove_replicas(connection, gone, NOW)
                    outcomes = [repairs.RepairOutcome(each) for each in claimed]
                    await repairs.settle_repairs(connection, outcomes, ME, NOW)
                    raise Undo

        async def deep(db: Pool, i: int) -> None:
            await repairs.queued_repairs(db, (2, NOW, self.file(i), 0), 100)

        return {
            "who is silent": lambda db, i: presence.silences(db, NOW),
            "which silences were looked at": lambda db, i: repair_scans.watched_silences(db),
            "queue 100 silent nodes": silences,
            "queue 100 nodes that are back": lambda db, i: repair_scans.queue_returned(
                db, [attrs.evolve(each, since=NOW + timedelta(seconds=i)) for each in silent], reason="back", at=NOW
            ),
            "queue a node": lambda db, i: repairs.queue_node(db, self.nodes(i, 1)[0], reason="left", at=NOW),
            "scan: claim a node": lambda db, i: repair_scans.claim_scan(db, ME, NOW, NOW),
            "scan: 1000 replicas of a node": page,
            "scan: 1000 chunks with all replicas": lambda db, i: chunk_states.chunk_states(db, self.keys(i, PAGE)),
            "scan: a page, all together": scan,
            "report 1 lost": lambda db, i: report(db, i, 1),
            "report 1000 lost": lambda db, i: report(db, 1 + i, 1000),
            "queue 100 chunks": lambda db, i: repairs.queue_chunks(db, self.keys(i, 100), reason="r", at=NOW),
            "repair: claim 256": claim,
            "repair: 256 chunks with all replicas": lambda db, i: chunk_states.chunk_states(db, self.keys(i, BATCH)),
            "repair: the files of 256 chunks": lambda db, i: files.files_by_id(
                db, [file for file, _ in self.keys(i, BATCH)]
            ),
            "repair: record 32, all together": record,
            "the queue counted": lambda db, i: repairs.queue_counts(db),
            "the queue: first page": lambda db, i: repairs.queued_repairs(db, None, 100),
            "the queue: a later page": deep,
            "a file's health, 400 chunks": lambda db, i: chunks.file_health(db, self.file(i), self.nodes(0, 900)),
        }


def _copy(state: chunk_states.ChunkState, n: int) -> chunk_states.NewCopy:
    replica = ReplicaId(named("new", n))
    return chunk_states.NewCopy(
        state.file, state.index, PlacedReplica(replica, 0, state.replicas[0].node, bytes(32), 262_160), n
    )


def main(replicas: int = 5_000_000, files: int = 3) -> None:
    """Print the table of statements, and the two speeds."""
    shape = Shape(replicas)
    with open_catalogue(shape) as dsn:
        _fill_queue(dsn)
        trio.run(measure, dsn, Repairs(shape).operations())
    measure_speed(files)


def _fill_queue(dsn: str) -> None:
    """Every tenth chunk waits: some unreadable and paused for hours, most due, some leased; a hundred nodes are to be scanned."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in _QUEUE:
            connection.execute(statement, {"now": NOW, "silent": SILENT})
        connection.execute("vacuum analyze")


_QUEUE: Final[tuple[bytes, ...]] = (
    b"""insert into repairs (file_id, chunk_index, live, reason, queued_at, due_at, leased_by)
        select file_id, index, case when n %% 10 < 2 then 0 when n %% 10 < 4 then 1 else 2 end, 'silent', %(now)s,
               case when n %% 10 < 2 then %(now)s + interval '3 hours' else %(now)s end, case when n %% 10 = 9 then 'other' end
        from (select file_id, index, row_number() over () as n from chunks where index %% 10 = 3) c""",
    b"""update nodes set status = 'offline', absent_since = %(now)s - interval '2 hours'
        where id in (select md5('n' || i)::uuid from generate_series(0, %(silent)s - 1) i)""",
    b"""insert into coordinator_watches select 'bench', %(now)s - n * interval '1 day', %(now)s - n * interval '1 day' + interval '23 hours'
        from generate_series(1, 50) n""",
    b"""insert into repair_scans (node_id, reason, queued_at, due_at)
        select id, 'draining', %(now)s, %(now)s from nodes where status = 'online' limit 100""",
)
