"""The repair queue in the catalogue, each statement against what it promises."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from psycopg.errors import ForeignKeyViolation

from fsn.coord.database import repairs
from fsn.coord.database.pool import Pool
from fsn.core.ids import FileId, NodeId, ReplicaId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
USER = UUID(int=1)
FILE = FileId(UUID(int=2))
NODES = [NodeId(UUID(int=number)) for number in (11, 12, 13, 14)]


def replica(chunk: int, number: int) -> ReplicaId:
    """The id of a replica."""
    return ReplicaId(UUID(int=1000 + 10 * chunk + number))


@pytest.fixture
async def db(pool: Pool) -> AsyncIterator[Pool]:
    """A user, four nodes that are online, and a ready file of two chunks with three replicas each on the first three."""
    await pool.execute("insert into users values (%s, 'a@b', '', %s)", [USER, NOW])
    await pool.execute("insert into master_keys values ('k', %s)", [NOW])
    for node in NODES:
        await pool.execute(
            "insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, capacity_bytes, status)"
            " values (%s, %s, %s, 'n', %s, %s, %s, 1, 'online')",
            [node, str(node), node.bytes * 2, node.bytes, NOW, NOW],
        )
    await pool.execute(
        "insert into files (id, user_id, name, size_bytes, chunk_bytes, pieces, status, master_key_id, wrapped_key, wrap_secret,"
        " created_at) values (%s, %s, 'f', 2, 1, 3, 'ready', 'k', 'w', 's', %s)",
        [FILE, USER, NOW],
    )
    for chunk in (0, 1):
        await pool.execute("insert into chunks values (%s, %s, %s, 1, '')", [FILE, chunk, UUID(int=chunk)])
        for number, node in enumerate(NODES[:3]):
            await pool.execute(
                "insert into replicas values (%s, %s, %s, %s, %s, 'live', %s, 1, 0, %s)",
                [replica(chunk, number), FILE, chunk, number, node, bytes(32), NOW],
            )
    yield pool


async def queued(db: Pool) -> list[tuple[object, ...]]:
    """Index, live, reason, due and revision of what waits."""
    return await db.fetch_all("select chunk_index, live, reason, due_at, revision from repairs order by chunk_index")


async def test_a_lost_replica_queues_its_chunk(db: Pool) -> None:
    """It is marked with the reason, and its chunk waits with the number that are left; unknown ids are passed over."""
    unknown = ReplicaId(UUID(int=5))
    assert await repairs.report_lost(db, [replica(1, 0), unknown], reason="scrub", at=NOW) == 1
    assert await db.fetch_one(
        "select state::text, lost_at, lost_reason from replicas where id = %s", [replica(1, 0)]
    ) == (
        "lost",
        NOW,
        "scrub",
    )
    assert await queued(db) == [(1, 2, "scrub", NOW, 0)]


async def test_a_loss_told_again_changes_nothing(db: Pool) -> None:
    """The first report stands."""
    await repairs.report_lost(db, [replica(1, 0)], reason="scrub", at=NOW)
    assert await repairs.report_lost(db, [replica(1, 0)], reason="proof", at=LATER) == 0
    assert await queued(db) == [(1, 2, "scrub", NOW, 0)]


async def test_another_loss_of_the_chunk_is_told_to_who_repairs_it(db: Pool) -> None:
    """The revision grows, and the chunk is due at once; unless somebody works on it, whose lease stays."""
    await repairs.report_lost(db, [replica(1, 0)], reason="scrub", at=NOW)
    await db.execute("update repairs set due_at = %s", [LATER])
    await repairs.report_lost(db, [replica(1, 1)], reason="proof", at=NOW)
    assert await queued(db) == [(1, 1, "proof", NOW, 1)]
    await db.execute("update repairs set leased_by = 'me', due_at = %s", [LATER])
    await repairs.report_lost(db, [replica(1, 2)], reason="proof", at=NOW)
    assert await queued(db) == [(1, 0, "proof", LATER, 2)]


async def test_replicas_on_nodes_that_are_away_do_not_count_as_live(db: Pool) -> None:
    """Urgency is what can be read now."""
    await db.execute("update nodes set status = 'offline' where id = %s", [NODES[1]])
    await repairs.queue_chunks(db, [(FILE, 1), (FILE, 0), (FILE, 0)], reason="r", at=NOW)
    assert await queued(db) == [(0, 2, "r", NOW, 0), (1, 2, "r", NOW, 0)]


async def test_a_node_is_queued_once(db: Pool) -> None:
    """Again, its scan begins anew, whoever was at it."""
    await repairs.queue_node(db, NODES[0], reason="draining", at=NOW)
    await db.execute("update repair_scans set cursor = %s, leased_by = 'me', due_at = %s", [UUID(int=9), LATER])
    await repairs.queue_node(db, NODES[0], reason="left", at=LATER)
    row = await db.fetch_one("select node_id, reason, due_at, cursor, revision, leased_by from repair_scans")
    assert row == (NODES[0], "left", LATER, UUID(int=0), 1, None)
    with pytest.raises(ForeignKeyViolation):
        await repairs.queue_node(db, NodeId(UUID(int=99)), reason="left", at=NOW)
