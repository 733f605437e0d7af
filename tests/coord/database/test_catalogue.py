"""Queries of the catalogue, each against what it promises."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from fsn.coord.catalog import StoredFile
from fsn.coord.database import chunks, files, nodes
from fsn.coord.database.pool import Pool
from fsn.coord.database.repairs import queue_chunks
from fsn.core.ids import FileId, NodeId, ReplicaId, UploadId, UserId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAUSE = timedelta(minutes=5)
LATER = NOW + PAUSE
USER = UserId(UUID(int=1))
FILE = FileId(UUID(int=2))
NODES = [NodeId(UUID(int=number)) for number in (11, 12, 13)]


def file(number: int, created_at: datetime = NOW) -> StoredFile:
    """One that is coming in."""
    name = FileId(UUID(int=number))
    return StoredFile(name, USER, "f", 1, 262_144, 3, "uploading", "k", b"w", b"s", created_at, None)


def replica(chunk: int, number: int) -> ReplicaId:
    """The id of a replica."""
    return ReplicaId(UUID(int=1000 + 10 * chunk + number))


@pytest.fixture
async def db(pool: Pool) -> AsyncIterator[Pool]:
    """A user, three nodes, and a file of two chunks with three replicas each."""
    await pool.execute("insert into users values (%s, 'a@b', '', %s)", [USER, NOW])
    await pool.execute("insert into master_keys values ('k', %s)", [NOW])
    for node in NODES:
        await pool.execute(
            "insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, capacity_bytes)"
            " values (%s, %s, %s, 'n', %s, %s, %s, 1)",
            [node, str(node), node.bytes * 2, node.bytes, NOW, NOW],
        )
    await files.insert_upload(pool, UploadId(UUID(int=3)), file(2), LATER)
    for chunk in (0, 1):
        await pool.execute("insert into chunks values (%s, %s, %s, 1, '')", [FILE, chunk, UUID(int=chunk)])
        for number, node in enumerate(NODES):
            await pool.execute(
                "insert into replicas values (%s, %s, %s, %s, %s, 'live', %s, 1, 0, %s)",
                [replica(chunk, number), FILE, chunk, number, node, bytes(32), NOW],
            )
    yield pool


async def queue(db: Pool, node: NodeId, replicas: list[ReplicaId], at: datetime = NOW) -> None:
    """Deletions as the recorder queues them, but for its look at the replicas."""
    for each in replicas:
        await db.execute("insert into replica_deletions values (%s, %s, %s, 0, %s)", [each, node, at, at])


@pytest.mark.parametrize(("online", "live", "below"), [(3, 3, 0), (1, 1, 2), (0, 0, 2)])
async def test_health_is_that_of_the_worst_chunk(db: Pool, online: int, live: int, below: int) -> None:
    """Live replicas on nodes that are online count."""
    assert await chunks.file_health(db, FILE, NODES[:online]) == chunks.FileHealth(live, below, 0)


async def test_health_of_lost_replicas(db: Pool) -> None:
    """A lost replica does not count; a chunk that has lost all is 0; a file without chunks has no health. What is queued is counted."""
    await db.execute("update replicas set state = 'lost' where id = %s", [replica(1, 0)])
    assert await chunks.file_health(db, FILE, NODES) == chunks.FileHealth(2, 1, 0)
    await db.execute("update replicas set state = 'lost' where chunk_index = 1")
    await queue_chunks(db, [(FILE, 1)], reason="r", at=NOW)
    assert await chunks.file_health(db, FILE, NODES) == chunks.FileHealth(0, 1, 1)
    assert await chunks.file_health(db, FileId(UUID(int=9)), NODES) == chunks.FileHealth(None, 0, 0)


async def test_due_deletions(db: Pool) -> None:
    """Those of the nodes given whose time has come, each node's oldest first, and not more than asked for."""
    ids = [ReplicaId(UUID(int=number)) for number in range(5)]
    await queue(db, NODES[0], ids[1:2], NOW - timedelta(seconds=1))
    await queue(db, NODES[0], ids[:1], NOW - timedelta(seconds=2))
    await queue(db, NODES[0], ids[2:3], LATER)
    await queue(db, NODES[1], ids[3:4])
    await queue(db, NODES[2], ids[4:])
    due = [each.replica for each in await nodes.due_deletions(db, NODES[:2], NOW, PAUSE, 10)]
    assert due == [ids[0], ids[1], ids[3]]
    assert [each.replica for each in await nodes.due_deletions(db, NODES, NOW, PAUSE, 1)] == [ids[0]]


async def test_a_needed_replica_is_never_due(db: Pool) -> None:
    """One that is part of a chunk after all is put off, and does not stand before the others for ever."""
    await queue(db, NODES[0], [replica(0, 0)], NOW - timedelta(seconds=1))
    await queue(db, NODES[0], [ReplicaId(UUID(int=7))])
    assert await nodes.due_deletions(db, NODES, NOW, PAUSE, 1) == []
    assert await nodes.due_deletions(db, NODES, NOW, PAUSE, 1) == [nodes.DueDeletion(ReplicaId(UUID(int=7)), NODES[0])]
    assert await db.fetch_one("select next_try_at from replica_deletions where replica_id = %s", [replica(0, 0)]) == (
        LATER,
    )


async def test_a_file_whose_replica_is_queued_already_can_be_deleted(db: Pool) -> None:
    """A recording that was given up, and had happened, leaves a queued replica of a live chunk: deleting the file takes it, too."""
    await queue(db, NODES[0], [replica(0, 0)])
    async with db.transaction() as connection:
        assert await files.forget_file(connection, USER, FILE, NOW)
    assert await db.fetch_one("select count(*) from replica_deletions") == (6,)
    assert len(await nodes.due_deletions(db, NODES, NOW, PAUSE, 10)) == 6


async def test_a_large_file_is_cleared_in_batches(db: Pool) -> None:
    """Deleting takes a bounded number of chunks at once; the rest goes batch by batch, and each replica is queued."""
    count = 2 * files.CLEARED_AT_ONCE + 2
    await db.execute(
        "insert into chunks select %s, i, gen_random_uuid(), 1, '' from generate_series(2, %s) i", [FILE, count - 1]
    )
    await db.execute(
        "insert into replicas select gen_random_uuid(), %s, i, 0, %s, 'live', %s, 1, 0, %s from generate_series(2, %s) i",
        [FILE, NODES[0], bytes(32), NOW, count - 1],
    )
    async with db.transaction() as connection:
        assert await files.forget_file(connection, USER, FILE, NOW)
    left: list[int] = []
    for _ in range(3):
        left += await db.fetch_one("select count(*) from chunks") or []
        assert await files.clear_next_file(db, LATER) is (left[-1] > 0)
    assert left == [files.CLEARED_AT_ONCE + 2, 2, 0]
    assert await db.fetch_one("select count(*) from replica_deletions") == (count + 4,)
    assert await db.fetch_one("select count(*) from replicas") == (0,)


async def test_pages_of_files(db: Pool) -> None:
    """Newest first, each once, of one moment too; a first page and those after."""
    for number in range(20, 25):
        created_at = NOW - timedelta(seconds=number // 2)
        await files.insert_upload(db, UploadId(UUID(int=100 + number)), file(number, created_at), LATER)
    seen: list[int] = []
    after = None
    while page := await files.files_of_user(db, USER, after, 2):
        seen += [each.id.int for each in page]
        after = (page[-1].created_at, page[-1].id)
    assert seen == [2, 21, 20, 23, 22, 24]


async def test_pages_of_nodes(db: Pool) -> None:
    """In the order of their ids, from the beginning or after one."""
    assert [each.id for each in await nodes.list_nodes(db, None, 2)] == NODES[:2]
    assert [each.id for each in await nodes.list_nodes(db, NODES[1], 2)] == NODES[2:]
