"""Repair in a network: nodes die, lie, fill up and come back; chunks move after the grace, and only then."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import LiteralString

import attrs
import pytest
import trio

from fsn.coord.config import RepairConfig
from fsn.coord.database.pool import Pool
from fsn.coord.database.repairs import queue_chunks, queue_counts, queue_node, report_lost
from fsn.core.errors import TooFewCopies
from fsn.node.chunkstore.memory import MemoryStore
from tests.coord.upkeep.stage import BY_HAND, DAY, HOUR, MINUTE, Stage, open_stage


@pytest.fixture
async def stage(pool: Pool) -> AsyncIterator[Stage]:
    """Five nodes, one file."""
    async with open_stage(pool) as stage:
        yield stage


def damage(store: MemoryStore) -> None:
    """Flip a bit in everything that lies there."""
    for replica, (chunk, data) in store._chunks.items():
        store._chunks[replica] = chunk, bytes([data[0] ^ 1]) + data[1:]


async def count(stage: Stage, query: LiteralString, *parameters: object) -> int:
    """What a counting query says."""
    row = await stage.pool.fetch_one(query, list(parameters))
    return int(row[0]) if row else 0


async def test_a_dead_nodes_chunks_move_after_a_day(stage: Stage) -> None:
    """Not before; and with the first look after it."""
    dead, repair = (await stage.holders())[0], stage.repair()
    await stage.kill(dead, DAY - MINUTE)
    await stage.turn(repair)
    assert dead in await stage.holders()
    assert len(await stage.holders()) == 3
    await stage.silence(dead, DAY)
    await stage.turn(repair)
    await stage.check_whole()
    assert dead in await stage.holders(), "it keeps its replicas, should it come back"


async def test_with_fewer_than_two_others_they_move_after_half_an_hour(stage: Stage) -> None:
    """Both dead nodes' replicas are made good."""
    first, second, _ = await stage.holders()
    await stage.kill(first, 40 * MINUTE)
    repair = stage.repair()
    await stage.turn(repair)
    assert len(await stage.holders()) == 3, "two others are there"
    await stage.kill(second, 31 * MINUTE)
    await stage.turn(repair)
    assert len(await stage.holders()) == 5
    await stage.check_whole()


async def test_a_node_that_is_back_before_the_repair_costs_nothing(stage: Stage) -> None:
    """What was queued for it is let go."""
    dead, repair = (await stage.holders())[0], stage.repair()
    await stage.kill(dead, DAY)
    await repair.watching.step()
    while await repair.scanning.step() is None:
        pass
    assert await stage.queued() == 3
    await stage.restart(dead)
    await stage.turn(repair)
    assert await stage.queued() == 0
    assert len(await stage.holders()) == 3
    assert await stage.pool.fetch_one("select count(*) from replica_deletions") == (0,)


async def test_surplus_is_trimmed_when_a_node_is_back(stage: Stage) -> None:
    """Each chunk has three replicas again, and the node is told to forget the others."""
    dead, repair = (await stage.holders())[0], stage.repair()
    await stage.kill(dead, DAY)
    await stage.turn(repair)
    assert len(await stage.holders()) == 4
    await stage.restart(dead)
    await stage.turn(repair)
    assert len(await stage.holders()) == 3
    await stage.check_whole()
    assert await stage.pool.fetch_one("select count(*) from replica_deletions") == (3,)
    assert await stage.pool.fetch_one("select count(*) from repair_scans") == (0,)


async def test_a_silence_that_begins_anew_is_looked_at_anew(stage: Stage) -> None:
    """Back for a moment that nobody saw, what was let go meanwhile is queued again."""
    dead, repair = (await stage.holders())[0], stage.repair()
    await stage.kill(dead, DAY)
    await repair.watching.step()
    while await repair.scanning.step() is None:
        pass
    await stage.pool.execute("delete from repairs")
    await stage.silence(dead, DAY + HOUR)
    await stage.turn(repair)
    await stage.check_whole()


async def test_many_silent_nodes_are_waited_for_and_told_of(pool: Pool) -> None:
    """When more than a fifth fall silent together, nothing is done that follows from silence; a lost replica is made good all the same.
    When they stay away, repair goes on."""
    async with open_stage(pool, nodes=6) as stage:
        rule = attrs.evolve(BY_HAND, pause_min_nodes=6)
        repair = stage.repair(config=rule)
        dead = (await stage.holders())[:2]
        for member in dead:
            await stage.kill(member, DAY)
        (lost, _), *_ = [each for each in await stage.replicas(1) if stage.member(each[1]) not in dead]
        await queue_chunks(pool, [(stage.file.id, 0)], reason="by hand", at=stage.clock())
        await report_lost(pool, [lost], reason="scrub", at=stage.clock())
        await stage.turn(repair)
        assert repair.outlooks.latest is not None
        assert "2 nodes fell silent together, 4 are heard" in str(repair.outlooks.latest.paused_because)
        assert len(await stage.holders(0)) == 3
        assert len(await stage.holders(1)) == 3
        assert await stage.queued() == 2, "what waits for the silent is not forgotten"
        for member in dead:
            await stage.silence(member, 49 * HOUR)
        stage.ahead += timedelta(minutes=6)
        await stage.turn(repair)
        assert repair.outlooks.latest.paused_because is None
        await stage.check_whole()


async def test_all_silent(pool: Pool) -> None:
    """Nothing is done, nothing is forgotten, and nothing spins."""
    async with open_stage(pool, nodes=4) as stage:
        repair = stage.repair()
        for member in stage.network.nodes:
            await stage.kill(member, DAY)
        await stage.turn(repair)
        rows = await pool.fetch_all("select live, tries, failure, leased_by from repairs")
        assert [(live, tries, by) for live, tries, _, by in rows] == [(0, 1, None)] * 3
        assert "cannot be read now" in rows[0][2]
        for member in stage.network.nodes:
            await stage.restart(member)
        await stage.turn(repair)
        assert await stage.queued() == 0
        await stage.check_whole()


async def test_a_corrupt_replica_is_found_by_a_read_and_replaced(stage: Stage) -> None:
    """By the coordinator's own workers, at once; its node is told to forget it, and the file was right all the time."""
    bad = (await stage.holders())[0]
    damaged = [replica for index in range(3) for replica, node in await stage.replicas(index) if node == bad.node]
    damage(bad.store)
    while await count(stage, "select count(*) from replicas where id = any (%s::uuid[])", damaged):
        assert await stage.read() == stage.data
        await trio.sleep(0.05)
    while not set(damaged).isdisjoint(await bad.replicas()):  # noqa: ASYNC110 - other tasks' affair
        await trio.sleep(0.05)
    while await stage.queued():  # noqa: ASYNC110 - other tasks' affair
        await trio.sleep(0.05)
    assert await count(stage, "select count(*) from replicas where state = 'live'") == 9
    assert await count(stage, "select count(*) from replicas where state = 'lost'") == 0


async def test_a_wrong_key_condemns_nobody(stage: Stage) -> None:
    """When no replica of a chunk opens, it is rather us: nothing is reported."""
    for member in stage.network.nodes:
        damage(member.store)
    with pytest.raises(TooFewCopies):
        await stage.read()
    await trio.sleep(0.1)
    assert await stage.pool.fetch_one("select count(*) from replicas where state = 'lost'") == (0,)


async def test_a_lost_replica_is_a_last_resort(stage: Stage) -> None:
    """All three are said to be lost and are there all the same: the file reads, and gets three new replicas."""
    lost = [replica for index in range(3) for replica, _ in await stage.replicas(index)]
    await report_lost(stage.pool, lost, reason="scrub", at=stage.clock())
    assert await stage.read() == stage.data
    await stage.turn(stage.repair())
    await stage.check_whole()
    assert set(lost).isdisjoint({replica for index in range(3) for replica, _ in await stage.replicas(index)})


async def test_without_another_node_a_lost_replica_is_replaced_where_it_lay(pool: Pool) -> None:
    """A bad sector in a network of three costs nothing."""
    async with open_stage(pool, nodes=3) as stage:
        lost = [(await stage.replicas(index))[0][0] for index in range(3)]
        await report_lost(pool, lost, reason="scrub", at=stage.clock())
        await stage.turn(stage.repair())
        await stage.check_whole()


async def test_full_nodes_are_waited_for(pool: Pool) -> None:
    """The chunk is tried again later, less and less often, and the reason stands in the queue."""
    async with open_stage(pool, nodes=3) as stage:
        await stage.network.add_node(capacity_bytes=1000)
        repair = stage.repair()
        await stage.kill((await stage.holders())[0], DAY)
        await stage.turn(repair)
        rows = await pool.fetch_all("select live, tries, failure, due_at from repairs")
        assert [(live, tries, failure) for live, tries, failure, _ in rows] == [
            (2, 1, "1 storage nodes are needed to store 1 replicas; 0 are usable at the moment")
        ] * 3
        assert all(MINUTE - 10 < (due - stage.clock()).total_seconds() <= MINUTE for *_, due in rows)
        await stage.network.add_node()
        stage.ahead += timedelta(minutes=2)
        await stage.turn(repair)
        await stage.check_whole()


async def test_a_drained_nodes_chunks_are_copied_and_then_leave(stage: Stage) -> None:
    """Nothing is left in the catalogue of what it has, and its bytes are to be deleted."""
    draining, repair = (await stage.holders())[0], stage.repair()
    await stage.pool.execute("update nodes set status = 'draining' where id = %s", [draining.node])
    await queue_node(stage.pool, draining.node, reason="draining", at=stage.clock())  # type: ignore[arg-type]
    stage.network.services.membership.member(draining.node).read_at = -1e9  # type: ignore[arg-type,union-attr]
    await stage.turn(repair)
    assert draining not in await stage.holders()
    await stage.check_whole()
    assert await stage.pool.fetch_one("select count(*) from replicas where node_id = %s", [draining.node]) == (0,)


async def test_two_who_repair_one_chunk_make_one_replica(stage: Stage) -> None:
    """The lease of the first has run out; the second is as fast. What the slower one has stored is deleted."""
    first, second = stage.repair("first"), stage.repair("second")
    lost = [(await stage.replicas(index))[0][0] for index in range(3)]
    await report_lost(stage.pool, lost, reason="scrub", at=stage.clock())
    async with trio.open_nursery() as nursery:
        record = first.repairing.recorder.record

        async def late(attempts: list[object]) -> None:
            stage.ahead += timedelta(minutes=10)
            while await second.repairing.step() is None:
                pass
            await record(attempts)  # type: ignore[arg-type]

        first.repairing.recorder.record = late  # type: ignore[method-assign,assignment]
        nursery.start_soon(first.repairing.step)
    assert await stage.queued() == 0
    await stage.check_whole()


async def test_a_file_that_is_deleted_is_left_alone(stage: Stage) -> None:
    """Its chunks leave the queue."""
    await queue_chunks(stage.pool, [(stage.file.id, 0)], reason="by hand", at=stage.clock())
    await stage.network.services.files.delete(stage.user, stage.file.id)
    await stage.turn(stage.repair())
    assert await stage.queued() == 0


async def test_a_file_that_is_coming_in_is_looked_at_later(stage: Stage) -> None:
    """Nothing is done about it; the queue keeps its chunk."""
    (lost, _), *_ = await stage.replicas(0)
    await report_lost(stage.pool, [lost], reason="scrub", at=stage.clock())
    await stage.pool.execute("update files set status = 'uploading'")
    repair = stage.repair()
    await stage.turn(repair)
    assert len(await stage.holders()) == 2
    await stage.pool.execute("update files set status = 'ready'")
    stage.ahead += timedelta(minutes=6)
    await stage.turn(repair)
    await stage.check_whole()


async def test_repair_begins_within_one_tick_of_the_grace(pool: Pool) -> None:
    """With the coordinator's own workers, and nobody's help."""
    config = RepairConfig(tick_seconds=0.1)
    async with open_stage(pool, config=config) as stage:
        dead = (await stage.holders())[0]
        await stage.kill(dead, DAY + HOUR)
        while len(await stage.holders()) < 4 or await stage.queued():  # noqa: ASYNC110 - the database's affair
            await trio.sleep(0.05)
        await stage.check_whole()
        assert (await queue_counts(pool)).waiting == {}
