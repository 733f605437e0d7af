"""Every statement of the chunk path on a catalogue of millions of replicas: round trips, time, and what the server reads for it.

The rows are synthetic; the code is the coordinator's own, on its own driver, prepared statements and all. Plans are auto_explain's.
"""

import json
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import attrs
import psycopg
import trio
from psycopg.errors import Diagnostic

from bench.catalogue_rows import BIG_CHUNKS, LARGE_CHUNKS, NODES, NOW, OFFLINE, USERS, Shape, fill, named
from fsn.coord.catalog import ChunkRecord, PlacedReplica, StoredFile, User, WholeFile
from fsn.coord.database import chunks, dial_backs, drains, files, ledger, nodes, users
from fsn.coord.database.base import Connection
from fsn.coord.database.dial_backs import DialedNode
from fsn.coord.database.driver import TrioConnection
from fsn.coord.database.embedded import EmbeddedPostgres
from fsn.coord.database.migrate import migrate
from fsn.coord.database.pool import Pool, PoolConfig
from fsn.core.ids import ChunkId, FileId, NodeId, PeerId, ReplicaId, UploadId, UserId
from fsn.core.units import MicroCredits

__all__ = ["Undo", "Work", "main", "measure", "open_catalogue"]

WARM_RUNS: Final = 12
"""After five runs psycopg prepares a statement; after five more PostgreSQL may keep one plan for all parameters."""
RUNS: Final = 21
EXPLAIN: Final = """
    load 'auto_explain';
    set auto_explain.log_min_duration = 0; set auto_explain.log_analyze = on; set auto_explain.log_buffers = on;
    set auto_explain.log_timing = off; set auto_explain.log_format = json; set client_min_messages = log"""
FEW_ROWS: Final = 100
"""A table read from end to end is named when it has more rows."""

Work = Callable[[Pool, int], Awaitable[object]]


class Undo(Exception):
    """Roll the transaction back."""


@attrs.define
class Meter:
    """What the last operation did."""

    trips: int = 0
    plans: list[tuple[float, dict[str, Any]]] = attrs.field(factory=list)

    def see(self, notice: Diagnostic) -> None:
        """Take the duration and the plan that auto_explain tells."""
        head, found, plan = (notice.message_primary or "").partition("plan:\n")
        if found:
            self.plans.append((float(head.split()[1]), json.loads(plan)["Plan"]))

    @property
    def server_ms(self) -> float:
        """Executing, without planning."""
        return sum(duration for duration, _ in self.plans)

    @property
    def pages(self) -> int:
        """8 KiB pages looked at, in memory or not."""
        return sum(int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]) for _, plan in self.plans)

    @property
    def rows(self) -> int:
        """Rows of tables that were looked at."""
        return sum(_rows(node) for node in self._nodes() if "Relation Name" in node or "Index Name" in node)

    @property
    def whole_tables(self) -> list[str]:
        """What was read from end to end."""
        return [
            f"{node['Relation Name']} ({_rows(node)} rows)"
            for node in self._nodes()
            if node["Node Type"] == "Seq Scan" and _rows(node) > FEW_ROWS
        ]

    def _nodes(self) -> Iterator[dict[str, Any]]:
        pending = [plan for _, plan in self.plans]
        while pending:
            node = pending.pop()
            yield node
            pending += node.get("Plans", ())


def _rows(node: dict[str, Any]) -> int:
    read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int(read * node["Actual Loops"])


class CountingConnection(TrioConnection):
    """Counts what is sent to the server and waited for."""

    meter: Meter

    async def wait(self, *args: Any, **kwargs: Any) -> Any:
        """One round trip: psycopg comes here for each command, and for nothing else that we use."""
        self.meter.trips += 1
        return await super().wait(*args, **kwargs)


@contextmanager
def open_server() -> Iterator[tuple[Path, str]]:
    """A folder, and the DSN of an embedded server in it, all migrations applied. It syncs, as a coordinator's does."""
    with tempfile.TemporaryDirectory(prefix="fsn-bench-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = EmbeddedPostgres(folder / "postgres")
        try:
            dsn = server.start()
            migrate(dsn)
            yield folder, dsn
        finally:
            server.stop()


@asynccontextmanager
async def open_metered(dsn: str, *, is_explained: bool) -> AsyncIterator[tuple[Pool, Meter]]:
    """A pool of one connection, and what it does."""
    meter = Meter()

    async def connect(conninfo: str, /, *, autocommit: bool, prepare_threshold: int | None) -> Connection:
        connection = await CountingConnection.connect(
            conninfo, autocommit=autocommit, prepare_threshold=prepare_threshold
        )
        connection.meter = meter
        if is_explained:
            await connection.execute(EXPLAIN)
            connection.add_notice_handler(meter.see)
        return connection

    pool = Pool(dsn, PoolConfig(size=1), connect)
    try:
        yield pool, meter
    finally:
        pool.close()


@attrs.define
class Catalogue:
    """The operations, each with parameters of its own for run `i`."""

    shape: Shape
    small: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.small = self.shape.large + 1

    # -- what the operations are made of

    def user(self, file: int) -> UserId:
        """Whose file it is."""
        return UserId(named("u", 0 if file % 4 == 0 else file % USERS))

    def a_small(self, i: int) -> int:
        """Some file of one chunk."""
        return self.small + (i * 7919 + secrets.randbelow(1000)) % self.shape.small

    def a_large(self, i: int) -> int:
        """Some file of 100 MB."""
        return 1 + i % self.shape.large

    def an_open(self, i: int) -> int:
        """Some file that is coming in."""
        return self.shape.files + i % self.shape.open_uploads

    @staticmethod
    def record(file: FileId, index: int) -> ChunkRecord:
        """A chunk with three replicas."""
        replicas = tuple(
            PlacedReplica(ReplicaId(uuid4()), n, NodeId(named("n", (index + n * 331) % NODES)), bytes(32), 262_160)
            for n in range(3)
        )
        return ChunkRecord(file, index, ChunkId(uuid4()), 262_144, bytes(32), replicas)

    @staticmethod
    def file(status: str = "ready") -> StoredFile:
        """A new one."""
        return StoredFile(
            FileId(uuid4()), UserId(named("u", 1)), "new", 262_144, 262_144, 3, status, "k", b"w", b"s", NOW, NOW,  # type: ignore[arg-type]
        )  # fmt: skip

    @staticmethod
    def drain(i: int) -> drains.Drain:
        """Of some node, a tenth of the way through its replicas."""
        cursor = ReplicaId(UUID(int=2**128 // 10))
        return drains.Drain(NodeId(named("n", i)), NOW, cursor, NOW, 0, 0, 0, None, "draining", None, None)

    async def record_small(self, db: Pool, count: int) -> None:
        """`count` files of one chunk in one statement."""
        files = [self.file() for _ in range(count)]
        records = [self.record(file.id, 0) for file in files]
        wholes = [WholeFile(file, (record,)) for file, record in zip(files, records, strict=True)]
        async with db.connection() as connection:
            assert len(await chunks.insert_recorded(connection, records, wholes, [1] * 3 * count, NOW)) == count

    async def record_chunks(self, db: Pool, i: int, count: int) -> None:
        """`count` chunks of one file that is coming in."""
        file = FileId(named("f", self.an_open(i)))
        begin = secrets.randbelow(1 << 30)
        records = [self.record(file, begin + index) for index in range(count)]
        async with db.connection() as connection:
            assert len(await chunks.insert_recorded(connection, records, [], [1] * 3 * count, NOW)) == count

    def operations(self) -> dict[str, Work]:
        """By the name of what they do, in the order of the paths."""
        online = [NodeId(named("n", i)) for i in range(NODES - OFFLINE)]
        big, whole = FileId(named("f", 0)), FileId(named("f", 1))
        pause = timedelta(minutes=5)
        soon = NOW + pause

        def finish(file: int, count: int) -> Work:
            async def work(db: Pool, i: int) -> None:
                user, upload, name = self.user(file), UploadId(named("o", file)), FileId(named("f", file))
                with suppress(Undo):
                    async with db.transaction() as connection:
                        assert await files.lock_upload(connection, user, upload)
                        assert (await chunks.chunk_totals(connection, name))[0] == count
                        await files.mark_ready(connection, name, 1, NOW)
                        await files.set_upload_state(connection, name, "completed")
                        raise Undo

            return work

        def forget(file: int) -> Work:
            async def work(db: Pool, i: int) -> None:
                with suppress(Undo):
                    async with db.transaction() as connection:
                        await files.set_upload_state(connection, FileId(named("f", file)), "aborted")
                        assert await files.forget_file(connection, self.user(file), FileId(named("f", file)), NOW)
                        raise Undo

            return work

        async def missing(db: Pool, i: int) -> None:
            assert len(await chunks.missing_indexes(db, big, BIG_CHUNKS + 3, 100)) == 3

        async def register(db: Pool, i: int) -> None:
            user = User(UserId(uuid4()), f"{uuid4()}@example.com", "x", NOW)
            with suppress(Undo):
                async with db.transaction() as connection:
                    await users.insert_user(connection, user)
                    await ledger.open_account(connection, "user", user.id)
                    await ledger.book(
                        connection, kind="grant", ref=str(user.id), at=NOW, owner=("user", user.id),
                        system=ledger.GRANTS, amount=MicroCredits(100),
                    )  # fmt: skip
                    raise Undo

        def sightings(count: int) -> list[nodes.Sighting]:
            return [nodes.Sighting(node, 1, 1, 1, "1", ("/ip4/192.0.2.1/tcp/1",), None, NOW) for node in online[:count]]

        return {
            "log in: the user by email": lambda db, i: users.user_by_email(db, f"U{i}@example.com"),
            "log in: the balance": lambda db, i: ledger.balance(db, "user", named("u", i)),
            "register a user": register,
            "upload, 1 small file": lambda db, i: self.record_small(db, 1),
            "upload, 32 small files at once": lambda db, i: self.record_small(db, 32),
            "upload, large: begin": lambda db, i: files.insert_upload(
                db, UploadId(uuid4()), self.file("uploading"), soon
            ),
            "upload, large: 1 chunk": lambda db, i: self.record_chunks(db, i, 1),
            "upload, large: 16 chunks at once": lambda db, i: self.record_chunks(db, i, 16),
            "upload, large: 512 chunks at once": lambda db, i: self.record_chunks(db, i, 512),
            "upload: complete, 400 chunks": finish(1, LARGE_CHUNKS),
            "upload: complete, 100,000 chunks": finish(0, BIG_CHUNKS),
            "upload in steps: look the upload up": lambda db, i: files.upload_of_user(
                db, self.user(self.an_open(i)), UploadId(named("o", self.an_open(i)))
            ),
            "upload in steps: is the chunk there": lambda db, i: chunks.chunk_fingerprint(db, whole, i),
            "upload in steps: progress, 400 chunks": lambda db, i: chunks.stored_ranges(db, whole, 10_000),
            "upload in steps: progress, 100,000 chunks": lambda db, i: chunks.stored_ranges(db, big, 10_000),
            "upload in steps: what is missing of 100,000": missing,
            "who came second: fingerprints of 16": lambda db, i: chunks.fingerprints(
                db, [(whole, n) for n in range(16)]
            ),
            "download: the file": lambda db, i: files.file_of_user(
                db, self.user(self.a_small(i)), FileId(named("f", self.a_small(i)))
            ),
            "download: chunks of a small file": lambda db, i: chunks.chunks_between(
                db, FileId(named("f", self.a_small(i))), 0, 0
            ),
            "download: 256 chunks of a large one": lambda db, i: chunks.chunks_between(
                db, FileId(named("f", self.a_large(i))), 0, 255
            ),
            "download: 256 amid 100,000": lambda db, i: chunks.chunks_between(db, big, 50_000, 50_255),
            "list files: first page": lambda db, i: files.files_of_user(db, UserId(named("u", 0)), None, 100),
            "list files: deep in 100,000": lambda db, i: files.files_of_user(
                db, UserId(named("u", 0)), (NOW - timedelta(seconds=7 * self.shape.files // 2), big), 100
            ),
            "file details: health, small": lambda db, i: chunks.file_health(
                db, FileId(named("f", self.a_small(i))), online
            ),
            "file details: health, 400 chunks": lambda db, i: chunks.file_health(
                db, FileId(named("f", self.a_large(i))), online
            ),
            "file details: health, 100,000 chunks": lambda db, i: chunks.file_health(db, big, online),
            "delete a small file": forget(self.small),
            "delete 400 chunks": forget(1),
            "delete 100,000 chunks: the first 1000": forget(0),
            "deleted files: none is left to clear": lambda db, i: files.clear_next_file(db, NOW),
            "nodes: by peer id": lambda db, i: nodes.node_by_peer(db, PeerId(f"peer{i}")),
            "nodes: by API key": lambda db, i: nodes.node_by_api_key_hash(db, sha256(f"k{i}".encode()).digest()),
            "nodes: first page": lambda db, i: nodes.list_nodes(db, None, 100),
            "nodes: a later page": lambda db, i: nodes.list_nodes(db, NodeId(named("n", i)), 100),
            "declaring: how a node stands": lambda db, i: drains.standing_of(db, PeerId(f"peer{i}")),
            "declaring: maintenance of 30 days": lambda db, i: drains.maintenance_spans(
                db, NodeId(named("n", i)), NOW - timedelta(30), NOW
            ),
            "draining: who is due (of none)": lambda db, i: drains.claim_drain(db, "c", NOW, soon, pause),
            "draining: 1000 replicas of a node": lambda db, i: drains.drain_page(db, self.drain(i), 1000),
            "draining: deletions left": lambda db, i: drains.are_deletions_queued(db, NodeId(named("n", i))),
            "draining: is it being scanned": lambda db, i: drains.is_being_scanned(db, NodeId(named("n", i))),
            "heartbeats of 10 nodes": lambda db, i: nodes.record_sightings(db, sightings(10)),
            "heartbeats of 900 nodes": lambda db, i: nodes.record_sightings(db, sightings(900)),
            "dial-back: what was found of a node": lambda db, i: dial_backs.record_dial_back(
                db,
                NodeId(named("n", i % NODES)),
                DialedNode("direct", "reached", soon),
                ["/ip4/192.0.2.1/tcp/4001"],
                tested_by=PeerId("peer0"),
            ),
            "dial-back: the 20 nodes reached last": lambda db, i: dial_backs.reached_nodes(db, 20),
            "deleting: what is due, 900 nodes online": lambda db, i: nodes.due_deletions(db, online, NOW, pause, 1000),
            "deleting: what is due, nodes that were away": lambda db, i: nodes.due_deletions(
                db, [NodeId(named("n", NODES - 1 - n)) for n in range(OFFLINE)], NOW, pause, 1000
            ),
            "deleting: nothing is due": lambda db, i: nodes.due_deletions(
                db, online, NOW - timedelta(1), timedelta(2), 1000
            ),
            "deleting: 1000 done": lambda db, i: nodes.deletions_done(
                db, [ReplicaId(named("d", 1000 * i + n)) for n in range(1, 1001) if n % 300]
            ),
            "deleting: 100 postponed": lambda db, i: nodes.postpone_deletions(
                db, [ReplicaId(named("d", self.shape.queued - 1 - n)) for n in range(100)], soon
            ),
            "stored in vain: 16 replicas": lambda db, i: chunks.queue_deletions(
                db, [replica for n in range(6) for replica in self.record(big, n).replicas], soon
            ),
            "expiring: what has expired": lambda db, i: files.expired_uploads(db, NOW, 100, PeerId("us")),
        }


def main(replicas: int = 3_000_000) -> None:
    """Make the catalogue, and print one table."""
    shape = Shape(replicas)
    with open_catalogue(shape) as dsn:
        trio.run(measure, dsn, Catalogue(shape).operations())


@contextmanager
def open_catalogue(shape: Shape) -> Iterator[str]:
    """The DSN of a server of its own that has all the rows."""
    with open_server() as (_, dsn):
        began = time.perf_counter()
        fill(dsn, shape)
        with psycopg.connect(dsn) as connection:
            size, version = connection.execute(
                "select pg_size_pretty(pg_database_size(current_database())), current_setting('server_version')"
            ).fetchone() or ("", "")
        seconds = time.perf_counter() - began
        print(
            f"PostgreSQL {version}, {size}: {shape.replicas:,} replicas of {shape.chunks:,} chunks of {shape.files:,} files,"
            f" {shape.queued:,} deletions, {NODES:,} nodes; filled in {seconds:.0f} s"
        )
        yield dsn


async def measure(dsn: str, operations: Mapping[str, Work]) -> None:
    """Print one line for each operation: round trips, time, and what the server reads for it."""
    print(f"{'':44}{'trips':>6}{'ms':>9}{'server ms':>11}{'rows read':>11}{'pages':>8}  whole tables")
    async with open_metered(dsn, is_explained=False) as (plain, trips), open_metered(dsn, is_explained=True) as seen:
        for name, work in operations.items():
            wall = await _median_ms(plain, trips, work)
            explained = await _explain(*seen, work)
            print(
                f"{name:44}{trips.trips:>6}{wall:>9.2f}{explained.server_ms:>11.2f}{explained.rows:>11,}{explained.pages:>8,}"
                f"  {', '.join(explained.whole_tables)}"
            )


async def _median_ms(pool: Pool, meter: Meter, work: Work) -> float:
    times = []
    for i in range(WARM_RUNS + RUNS):
        meter.trips = 0
        began = time.perf_counter()
        await work(pool, i)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[WARM_RUNS:])


async def _explain(pool: Pool, meter: Meter, work: Work) -> Meter:
    """The last of so many runs that its statements are prepared."""
    for i in range(WARM_RUNS):
        meter.plans.clear()
        await work(pool, WARM_RUNS + RUNS + i)
    return meter
