"""Chunks into the catalogue: shared commits, clear outcomes, and no replica forgotten."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from uuid import UUID, uuid4

import attrs
import psycopg
import pytest
import trio

from fsn.coord.catalog import ChunkRecord, PlacedReplica, StoredFile, WholeFile
from fsn.coord.database.base import Connect, Connection
from fsn.coord.database.pool import Pool, PoolConfig
from fsn.coord.recording import BATCH_CHUNKS, Recorder
from fsn.core.errors import Conflict, FsnError, Unavailable
from fsn.core.ids import FileId, NodeId, ReplicaId, UserId, chunk_id
from fsn.runtime.supervise import Bell

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NODES = [NodeId(UUID(int=number)) for number in (1, 2, 3)]
TEST_SECONDS = 30


class FlakyPool(Pool):
    """A real pool that counts visits to the server, and loses it when told to: before the first statement or after the commit."""

    def __init__(self, dsn: str, connect: Connect) -> None:
        super().__init__(dsn, PoolConfig(size=4), connect)
        self.visits = 0
        self.is_away = False
        self.loses_answers = False
        self.began = trio.Event()
        self.may_go_on = trio.Event()
        self.may_go_on.set()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.visits += 1
        self.began.set()
        await self.may_go_on.wait()
        if self.is_away:
            raise Unavailable("the server is away")
        async with super().connection() as connection:
            yield connection
        if self.loses_answers:
            raise Unavailable("the connection broke amid COMMIT")


@pytest.fixture
async def flaky(pool: Pool, database_dsn: str, connect: Connect) -> AsyncIterator[FlakyPool]:
    """A flaky pool on a database with a user, three nodes and two files that are coming in; `pool` is a sound one."""
    await pool.execute("insert into users values (%s, 'a@b', '', %s)", [NODES[0], NOW])
    await pool.execute("insert into master_keys values ('k', %s)", [NOW])
    for node in NODES:
        await pool.execute(
            "insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, capacity_bytes)"
            " values (%s, %s, %s, 'n', %s, %s, %s, 1)",
            [node, str(node), node.bytes * 2, node.bytes, NOW, NOW],
        )
    for file in FILES:
        await pool.execute(
            "insert into files (id, user_id, name, chunk_bytes, pieces, master_key_id, wrapped_key, wrap_secret, created_at)"
            " values (%s, %s, 'f', 262144, 3, 'k', '', '', %s)",
            [file, NODES[0], NOW],
        )
    flaky = FlakyPool(database_dsn, connect)
    yield flaky
    flaky.close()


FILES = [FileId(UUID(int=number)) for number in (10, 11)]


def chunk(index: int, *, mark: bytes = b"m" * 32, file: FileId = FILES[0], nodes: list[NodeId] = NODES) -> ChunkRecord:
    """A chunk with a freshly sealed replica on each node."""
    replicas = tuple(
        PlacedReplica(ReplicaId(uuid4()), number, node, bytes(32), 100) for number, node in enumerate(nodes)
    )
    return ChunkRecord(file, index, chunk_id(file, index), 84, mark, replicas)


def ids(*records: ChunkRecord) -> set[ReplicaId]:
    """The replicas of these chunks."""
    return {replica.id for record in records for replica in record.replicas}


async def recorded(pool: Pool) -> set[ReplicaId]:
    """The replicas in the catalogue."""
    return {ReplicaId(row[0]) for row in await pool.fetch_all("select id from replicas")}


async def queued(pool: Pool) -> set[ReplicaId]:
    """The replicas that nodes should forget."""
    return {ReplicaId(row[0]) for row in await pool.fetch_all("select replica_id from replica_deletions")}


async def wait_queued(pool: Pool, wanted: set[ReplicaId]) -> None:
    """Until exactly these are queued for deletion; the test's deadline bounds it."""
    while await queued(pool) != wanted:  # noqa: ASYNC110 - what is waited for is in the database
        await trio.sleep(0.01)


def new_recorder(pool: Pool, bell: Bell | None = None) -> Recorder:
    """A recorder that stands still."""
    return Recorder(pool, clock=lambda: NOW, chance=Random(1), deletions_due=bell or Bell())


@asynccontextmanager
async def running(pool: Pool) -> AsyncIterator[Recorder]:
    """A recorder at work."""
    recorder = new_recorder(pool)
    with trio.fail_after(TEST_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.run)
            yield recorder
            nursery.cancel_scope.cancel()


async def outcomes_of(recorder: Recorder, records: list[ChunkRecord]) -> list[FsnError | None]:
    """Record all at once; how each one ended."""
    outcomes: list[FsnError | None] = [None] * len(records)

    async def record(place: int) -> None:
        try:
            await recorder.record(records[place])
        except FsnError as error:
            outcomes[place] = error

    async with trio.open_nursery() as nursery:
        for place in range(len(records)):
            nursery.start_soon(record, place)
    return outcomes


async def test_many_at_once_share_few_commits(flaky: FlakyPool, pool: Pool) -> None:
    """Five hundred chunks take a handful of transactions, and all of them are there."""
    records = [chunk(index) for index in range(500)]
    async with running(flaky) as recorder:
        assert await outcomes_of(recorder, records) == [None] * 500
    assert flaky.visits <= 3
    assert await recorded(pool) == ids(*records)
    assert await queued(pool) == set()
    slots = await pool.fetch_one("select count(distinct slot) from replicas")
    assert slots is not None
    assert slots[0] > 1000


async def test_more_than_a_batch_is_several(flaky: FlakyPool, pool: Pool) -> None:
    """No transaction grows without a bound."""
    records = [chunk(index) for index in range(2 * BATCH_CHUNKS + 10)]
    async with running(flaky) as recorder:
        assert set(await outcomes_of(recorder, records)) == {None}
    assert 3 <= flaky.visits <= 4


async def test_the_same_chunk_again_is_a_success_and_its_replicas_go(flaky: FlakyPool, pool: Pool) -> None:
    """Together or later: one set of replicas stays, the losers' are queued, never one that is part of the chunk."""
    together, later = [chunk(0), chunk(0), chunk(0)], chunk(0)
    async with running(flaky) as recorder:
        assert await outcomes_of(recorder, together) == [None] * 3
        await recorder.record(later)
    kept = await recorded(pool)
    assert len(kept) == 3
    assert kept in [ids(record) for record in together]
    assert await queued(pool) == ids(*together, later) - kept


async def test_another_content_is_a_conflict_and_its_replicas_go(flaky: FlakyPool, pool: Pool) -> None:
    """Which bytes came first is for the database to say; the others are told."""
    first, second, other = chunk(0), chunk(0, mark=b"x" * 32), chunk(1)
    async with running(flaky) as recorder:
        await recorder.record(first)
        outcomes = await outcomes_of(recorder, [second, other])
    assert isinstance(outcomes[0], Conflict)
    assert outcomes[0].code == "chunk_differs"
    assert outcomes[1] is None
    assert await recorded(pool) == ids(first, other)
    assert await queued(pool) == ids(second)


async def test_a_whole_small_file_goes_in_in_one_piece(flaky: FlakyPool, pool: Pool) -> None:
    """With all its chunks, or none when it is empty, beside chunks of files that are coming in."""
    template = StoredFile(
        FILES[0], UserId(NODES[0]), "whole", 84, 262_144, 3, "ready", "k", b"w", b"s", NOW, NOW
    )  # fmt: skip
    full, empty = (attrs.evolve(template, id=FileId(uuid4()), size_bytes=size) for size in (84, 0))
    inside, beside = chunk(0, file=full.id), chunk(0)
    async with running(flaky) as recorder, trio.open_nursery() as nursery:
        nursery.start_soon(recorder.record_whole, WholeFile(full, (inside,)))
        nursery.start_soon(recorder.record_whole, WholeFile(empty, ()))
        nursery.start_soon(recorder.record, beside)
    assert await recorded(pool) == ids(inside, beside)
    assert await pool.fetch_one("select count(*) from files where status = 'ready' and ready_at is not null") == (2,)


async def test_an_ended_upload_takes_no_chunks(flaky: FlakyPool, pool: Pool) -> None:
    """Aborted meanwhile: a conflict, and the replicas are queued; other files in the same batch are not touched."""
    await pool.execute("update files set status = 'deleted' where id = %s", [FILES[1]])
    late, other = chunk(0, file=FILES[1]), chunk(0)
    async with running(flaky) as recorder:
        outcomes = await outcomes_of(recorder, [late, other])
    assert isinstance(outcomes[0], Conflict)
    assert outcomes[0].code == "upload_closed"
    assert outcomes[1] is None
    assert await queued(pool) == ids(late)


async def test_an_outage_is_told_and_nothing_is_forgotten(flaky: FlakyPool, pool: Pool) -> None:
    """Those who wait get Unavailable; when the database is back, what was stored in vain is queued, and new chunks go in."""
    lost, unwanted, meanwhile = [chunk(0), chunk(1)], chunk(2), chunk(3)
    flaky.is_away = True
    flaky.may_go_on = trio.Event()
    async with running(flaky) as recorder:
        recorder.discard(unwanted.replicas)
        async with trio.open_nursery() as nursery:
            found: list[FsnError | None] = []

            async def record_both() -> None:
                found.extend(await outcomes_of(recorder, lost))

            nursery.start_soon(record_both)
            await flaky.began.wait()
            recorder.discard(meanwhile.replicas)  # while the write that will fail is under way
            flaky.may_go_on.set()
        assert [type(outcome) for outcome in found] == [Unavailable, Unavailable]
        assert found[0] is not found[1]
        flaky.is_away = False
        again = chunk(0)
        await recorder.record(again)
        await wait_queued(pool, ids(*lost, unwanted, meanwhile))
    assert await recorded(pool) == ids(again)


async def test_an_unknown_outcome_loses_no_replica_of_a_chunk(flaky: FlakyPool, pool: Pool) -> None:
    """The commit happened, its answer was lost: the asker is told to try again, and the replicas recorded are never queued."""
    record, loser = chunk(0), chunk(1)
    async with running(flaky) as recorder:
        await recorder.record(chunk(1))
        flaky.loses_answers = True
        outcomes = await outcomes_of(recorder, [record, loser])
        assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
        flaky.loses_answers = False
        await recorder.record(chunk(0))  # sent again by the client: it is there
        await trio.sleep(0.3)
        await recorder.record(chunk(5))
    assert ids(record) <= await recorded(pool)
    assert ids(record) & await queued(pool) == set()
    assert ids(loser) <= await queued(pool)


async def test_a_recorder_that_is_stopped_reports_no_success(flaky: FlakyPool, pool: Pool) -> None:
    """Cancelled amid a write, it tells those who wait, in the write and behind it, that their chunk may not be committed."""
    flaky.may_go_on = trio.Event()
    with trio.fail_after(TEST_SECONDS):
        async with trio.open_nursery() as outer:
            recorder = new_recorder(flaky)
            found: list[FsnError | None] = []

            async def record() -> None:
                found.extend(await outcomes_of(recorder, [chunk(index) for index in range(BATCH_CHUNKS + 1)]))

            outer.start_soon(record)
            async with trio.open_nursery() as inner:
                inner.start_soon(recorder.run)
                await flaky.began.wait()
                inner.cancel_scope.cancel()
    assert [type(outcome) for outcome in found] == [Unavailable] * (BATCH_CHUNKS + 1)
    assert await recorded(pool) == set()


async def test_a_bug_is_not_reported_as_a_success(flaky: FlakyPool, pool: Pool) -> None:
    """A row that the database refuses ends the recorder loudly, and nobody is told that the chunk is in."""
    stranger = chunk(0, nodes=[NodeId(uuid4())])
    found: list[FsnError | None] = []
    with trio.fail_after(TEST_SECONDS), pytest.RaisesGroup(psycopg.errors.ForeignKeyViolation):
        async with trio.open_nursery() as outer:
            recorder = new_recorder(flaky)
            outer.start_soon(recorder.run)
            with trio.CancelScope(shield=True):
                found.extend(await outcomes_of(recorder, [stranger]))
    assert [type(outcome) for outcome in found] == [Unavailable]


async def test_a_cancelled_asker_leaves_the_rest_alone(flaky: FlakyPool, pool: Pool) -> None:
    """Its chunk may be recorded all the same; the others' are."""
    flaky.may_go_on = trio.Event()
    records = [chunk(0), chunk(1)]
    async with running(flaky) as recorder, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def give_up() -> None:
            with scope:
                await recorder.record(records[0])

        nursery.start_soon(give_up)
        nursery.start_soon(recorder.record, records[1])
        await flaky.began.wait()
        scope.cancel()
        flaky.may_go_on.set()
    assert ids(records[1]) <= await recorded(pool)
    assert await queued(pool) == set()


async def test_what_is_part_of_a_chunk_is_not_queued_by_mistake(flaky: FlakyPool, pool: Pool) -> None:
    """A discard that comes too late changes nothing."""
    record = chunk(0)
    async with running(flaky) as recorder:
        await recorder.record(record)
        recorder.discard(record.replicas)
        unwanted = chunk(1)
        recorder.discard(unwanted.replicas)
        recorder.discard(unwanted.replicas)
        await wait_queued(pool, ids(unwanted))


async def test_two_coordinators_with_the_same_chunks_in_other_orders(
    flaky: FlakyPool, pool: Pool, database_dsn: str, connect: Connect
) -> None:
    """Each chunk is recorded once, and neither waits for the other for ever."""
    other = FlakyPool(database_dsn, connect)
    count = 300
    forth, back = [chunk(index) for index in range(count)], [chunk(index) for index in reversed(range(count))]
    results: dict[str, list[FsnError | None]] = {}
    try:
        async with running(flaky) as one, running(other) as two, trio.open_nursery() as nursery:

            async def record(name: str, recorder: Recorder, records: list[ChunkRecord]) -> None:
                results[name] = await outcomes_of(recorder, records)

            nursery.start_soon(record, "one", one, forth)
            nursery.start_soon(record, "two", two, back)
    finally:
        other.close()
    assert set(results["one"] + results["two"]) == {None}
    kept = await recorded(pool)
    assert len(kept) == 3 * count
    assert await queued(pool) == ids(*forth, *back) - kept


async def test_what_is_discarded_last_is_not_forgotten_in_a_clean_stop(flaky: FlakyPool, pool: Pool) -> None:
    """Cancelled, the recorder writes what it still has to remember, unless the database takes longer than a moment."""
    first, last = chunk(0), chunk(1)
    async with running(flaky) as recorder:
        recorder.discard(first.replicas)
        await flaky.began.wait()
        recorder.discard(last.replicas)
    assert await queued(pool) == ids(first, last)
    flaky.is_away = True
    async with running(flaky) as recorder:
        recorder.discard(chunk(2).replicas)


async def test_the_deleting_worker_is_woken(flaky: FlakyPool, pool: Pool) -> None:
    """What is queued is due at once."""
    bell = Bell()
    recorder = new_recorder(flaky, bell)
    with trio.fail_after(TEST_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.run)
            recorder.discard(chunk(0).replicas)
            await bell.wait()
            assert len(await queued(pool)) == 3
            nursery.cancel_scope.cancel()
