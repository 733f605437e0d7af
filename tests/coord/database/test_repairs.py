"""The repair queue and the scans of nodes in the catalogue, each statement against what it promises."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs
import pytest
import trio
from psycopg.errors import ForeignKeyViolation

from fsn.coord.catalog import PlacedReplica
from fsn.coord.database import chunk_states, repair_scans, repairs
from fsn.coord.database.pool import Pool
from fsn.core.ids import FileId, NodeId, ReplicaId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
HOUR = timedelta(hours=1)
SINCE = NOW - HOUR
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


async def claim(db: Pool, by: str = "me", now: datetime = NOW, limit: int = 10) -> list[repairs.QueuedRepair]:
    """As a coordinator does."""
    return list(await repairs.claim_repairs(db, by, now, now + timedelta(minutes=5), now + 7 * HOUR, limit))


async def settle(db: Pool, outcomes: list[repairs.RepairOutcome], by: str = "me") -> None:
    """In a transaction."""
    async with db.transaction() as connection:
        await repairs.settle_repairs(connection, outcomes, by, LATER)


def found(*live: int) -> list[repairs.FoundChunk]:
    """Chunks with so many live replicas."""
    return [repairs.FoundChunk(FILE, index, count) for index, count in enumerate(live)]


async def test_the_worst_is_claimed_first(db: Pool) -> None:
    """Each chunk by one; fewest live replicas first; nothing that is leased or not due."""
    await repairs.queue_found(db, found(2, 0, 1, 30), reason="r", at=NOW)
    await repairs.queue_found(db, [repairs.FoundChunk(FILE, 9, 0)], reason="r", at=LATER)
    assert [each.index for each in await claim(db, limit=2)] == [1, 2]
    assert [(each.index, each.live) for each in await claim(db, "other")] == [(0, 2), (3, repairs.MOST_LIVE)]
    assert await claim(db) == []
    assert [each.index for each in await claim(db, now=LATER)] == [1, 9, 2, 0, 3], "leases end"


async def test_two_who_claim_at_once_share(db: Pool) -> None:
    """What one has locked the other passes over."""
    await repairs.queue_found(db, found(1, 1), reason="r", at=NOW)
    async with db.transaction() as other:
        await other.execute("select 1 from repairs where chunk_index = 0 for update")
        assert [each.index for each in await claim(db)] == [1]


async def test_a_clock_that_was_ahead_stops_nothing(db: Pool) -> None:
    """What is due later than anybody would make it is due."""
    await repairs.queue_found(db, found(1), reason="r", at=NOW + 8 * HOUR)
    assert len(await claim(db)) == 1


async def test_what_is_done_leaves_the_queue(db: Pool) -> None:
    """Unless it was queued again meanwhile, or another has taken it over; the rest is due when it says."""
    await repairs.queue_found(db, found(1, 1, 1, 1), reason="r", at=NOW)
    done, again, failed, taken = await claim(db)
    await repairs.queue_chunks(db, [again.key], reason="r", at=NOW)
    await db.execute("update repairs set leased_by = 'other' where chunk_index = 3")
    await settle(
        db,
        [
            repairs.RepairOutcome(done),
            repairs.RepairOutcome(again),
            repairs.RepairOutcome(failed, NOW + HOUR, tries=1, failure="no", live=2),
            repairs.RepairOutcome(taken),
        ],
    )
    rows = await db.fetch_all("select chunk_index, live, due_at, tries, leased_by, failure from repairs order by 1")
    assert rows == [
        (1, 3, LATER, 0, None, None),
        (2, 2, NOW + HOUR, 1, None, "no"),
        (3, 1, taken.due_at, 1, "other", None),
    ]


async def test_the_queue_is_counted_and_paged(db: Pool) -> None:
    """By urgency; the oldest; each row once."""
    assert await repairs.queue_counts(db) == repairs.QueueCounts({}, None)
    await repairs.queue_found(db, found(2, 0, 2), reason="r", at=NOW)
    assert await repairs.queue_counts(db) == repairs.QueueCounts({0: 1, 2: 2}, NOW)
    first = await repairs.queued_repairs(db, None, 2)
    last = first[-1]
    rest = await repairs.queued_repairs(db, (last.live, last.due_at, last.file, last.index), 2)
    assert [each.index for each in (*first, *rest)] == [1, 0, 2]


async def test_a_chunk_is_read_with_its_replicas_and_nodes(db: Pool) -> None:
    """All of them, lost ones too; a deleted file's chunks are not there."""
    await repairs.report_lost(db, [replica(0, 2)], reason="r", at=NOW)
    states = await chunk_states.chunk_states(db, [(FILE, 0), (FILE, 7)])
    (state,) = states.values()
    assert (state.key, state.size_bytes, state.wanted, state.file_status) == ((FILE, 0), 1, 3, "ready")
    assert [(each.id, each.node, each.is_lost, each.operator) for each in state.replicas] == [
        (replica(0, number), NODES[number], number == 2, str(NODES[number])) for number in range(3)
    ]
    await db.execute("delete from replicas where chunk_index = 1")
    assert (await chunk_states.chunk_states(db, [(FILE, 1)]))[FILE, 1].replicas == ()
    await db.execute("update files set status = 'deleted'")
    assert await chunk_states.chunk_states(db, [(FILE, 0)]) == {}


async def test_a_locked_chunk_is_repaired_by_one(db: Pool) -> None:
    """The second sees what the first has written; a file is not deleted in between."""
    new = chunk_states.NewCopy(FILE, 0, PlacedReplica(ReplicaId(UUID(int=5)), 2, NODES[3], bytes(32), 17), 7)
    async with db.transaction() as first:
        assert len((await chunk_states.lock_chunks(first, [(FILE, 0)]))[FILE, 0].replicas) == 3
        async with trio.open_nursery() as nursery:
            seen: list[int] = []

            async def second() -> None:
                async with db.transaction() as connection:
                    seen.append(len((await chunk_states.lock_chunks(connection, [(FILE, 0)]))[FILE, 0].replicas))

            nursery.start_soon(second)
            while not await db.fetch_one("select 1 from pg_locks where not granted"):  # noqa: ASYNC110 - the server's affair
                await trio.sleep(0.01)
            await chunk_states.insert_copies(first, [new], NOW)
            await chunk_states.remove_replicas(first, [replica(0, 0), replica(0, 1)], NOW)
            await first.execute("commit")
            await first.execute("begin")
    assert seen == [2]
    assert await db.fetch_one("select array_agg(node_id order by node_id) from replica_deletions") == (NODES[:2],)


async def test_a_silence_is_queued_once_for_each_stage(db: Pool) -> None:
    """By however many coordinators; another silence of the node is another matter."""
    silence = repair_scans.WatchedSilence(NODES[0], 1, SINCE)
    assert await repair_scans.queue_silent(db, [silence], reason="silent", at=NOW) == [NODES[0]]
    assert await repair_scans.queue_silent(db, [silence], reason="silent", at=NOW) == []
    second = attrs.evolve(silence, stage=2)
    assert await repair_scans.queue_silent(db, [second], reason="silent", at=NOW) == [NODES[0]]
    assert await repair_scans.queue_silent(db, [silence], reason="silent", at=NOW) == []
    assert await repair_scans.watched_silences(db) == [second]
    assert await repair_scans.queue_silent(db, [attrs.evolve(silence, since=NOW)], reason="silent", at=NOW) == [
        NODES[0]
    ]


async def test_a_node_that_is_back_is_queued_once(db: Pool) -> None:
    """Unless it is silent again already; its row goes with the scan."""
    silence = repair_scans.WatchedSilence(NODES[0], 2, SINCE)
    await repair_scans.queue_silent(db, [silence], reason="silent", at=NOW)
    assert await repair_scans.queue_returned(db, [attrs.evolve(silence, since=NOW)], reason="back", at=NOW) == []
    assert await repair_scans.queue_returned(db, [silence], reason="back", at=NOW) == [NODES[0]]
    assert await repair_scans.queue_returned(db, [silence], reason="back", at=NOW) == []
    scan = await repair_scans.claim_scan(db, "me", NOW, LATER)
    assert scan is not None
    await repair_scans.finish_scan(db, scan, NOW)
    assert await db.fetch_one("select count(*) from repair_scans") == (0,)


async def test_a_scan_is_one_coordinators_until_its_lease_ends(db: Pool) -> None:
    """He goes on with it; another takes it over where it stands; queued again, it begins anew, and the old one ends nothing."""
    await repair_scans.queue_silent(db, [repair_scans.WatchedSilence(NODES[0], 1, SINCE)], reason="silent", at=NOW)
    scan = await repair_scans.claim_scan(db, "me", NOW, LATER)
    assert scan is not None
    assert await repair_scans.claim_scan(db, "other", NOW, LATER) is None
    page = await repair_scans.node_replicas(db, NODES[0], scan.cursor, 1)
    assert [each.replica for each in page] == [replica(0, 0)]
    async with db.transaction() as connection:
        assert await repair_scans.advance_scan(connection, scan, page[-1].replica)
        assert not await repair_scans.advance_scan(connection, scan, page[-1].replica)
    mine = await repair_scans.claim_scan(db, "me", NOW, LATER)
    others = await repair_scans.claim_scan(db, "other", LATER, LATER + HOUR)
    assert mine == others == attrs.evolve(scan, cursor=replica(0, 0))
    assert await repair_scans.node_replicas(db, NODES[0], replica(0, 0), 9) == [
        repair_scans.ScannedReplica(replica(1, 0), FILE, 1)
    ]
    await repairs.queue_node(db, NODES[0], reason="left", at=NOW)
    await repair_scans.finish_scan(db, scan, NOW)
    assert await repair_scans.claim_scan(db, "me", NOW, LATER) == repair_scans.RepairScan(
        NODES[0], "left", ReplicaId(UUID(int=0)), 1
    )


async def test_what_pauses_can_be_woken(db: Pool) -> None:
    """What somebody works on is left to him."""
    await repairs.queue_found(db, found(1, 1), reason="r", at=LATER)
    await db.execute("update repairs set leased_by = 'me' where chunk_index = 1")
    async with db.transaction() as connection:
        await repairs.wake_repairs(connection, [(FILE, 0), (FILE, 1), (FILE, 2)], NOW)
    assert [due for *_, due, _ in await queued(db)] == [NOW, LATER]
