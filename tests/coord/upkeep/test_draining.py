"""A draining node is watched until nothing counts on it."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from fsn.coord.database.node_states import change_status
from fsn.coord.database.pool import Pool
from fsn.coord.upkeep import draining
from fsn.coord.upkeep.draining import GONE_AFTER, LATE_REPLICAS_AFTER, LONGEST_PAUSE, SHORTEST_PAUSE
from fsn.p2p.wire.messages import Standing
from tests.coord.upkeep.drains import FILE, NODES, Stage, add_chunk, open_stage_with, replica

ONE, TWO, THREE, FOUR = NODES
HOUR = 3600


@pytest.fixture
async def stage(pool: Pool) -> AsyncIterator[Stage]:
    """Four nodes, a file of two chunks on the first three of them."""
    async with open_stage_with(pool) as stage:
        yield stage


async def look(stage: Stage, **span: float) -> None:
    """Wait for the next pass, and let it be made."""
    stage.later(**(span or {"seconds": SHORTEST_PAUSE.total_seconds()}))
    await stage.work()


async def test_nothing_to_do(stage: Stage) -> None:
    """Without draining nodes the worker rests."""
    assert await stage.draining.step() is not None


async def test_copies_first_then_deletion_then_left(stage: Stage) -> None:
    """A node has left when none of its replicas counts, and it has deleted them all; not before."""
    await stage.declare(ONE, Standing.DRAINING)
    await stage.work()
    assert (await stage.standing(ONE)).replicas_left == 2
    await stage.move(0, 0)
    await look(stage)
    answer = await stage.declare(ONE, Standing.DRAINING)
    assert (answer.state, answer.replicas_left, answer.bytes_left) == ("draining", 1, 100)
    await stage.move(1, 0)
    await look(stage)
    answer = await stage.declare(ONE, Standing.DRAINING)
    assert (answer.state, answer.replicas_left) == ("draining", 0)
    await stage.forget(ONE)
    await look(stage)
    answer = await stage.declare(ONE, Standing.DRAINING)
    assert (answer.state, answer.reason) == ("left", "drained: everything is elsewhere")
    await look(stage)
    assert [state for state, _ in await stage.record(ONE)] == ["draining", "left"]


async def test_an_empty_node_leaves_at_once(stage: Stage) -> None:
    """The first look finds nothing."""
    await stage.declare(FOUR, Standing.DRAINING)
    await stage.work()
    assert (await stage.standing(FOUR)).status == "left"


async def test_a_late_replica_is_looked_for(stage: Stage) -> None:
    """A chunk that was on its way when the drain was declared is given to repair, also when it is recorded after the node has left."""
    await stage.declare(FOUR, Standing.DRAINING)
    await stage.db.execute("delete from repair_scans")
    await stage.work()
    (row,) = await stage.db.fetch_all("select node_id, reason, due_at from repair_scans")
    assert row == (FOUR, "left", stage.now + LATE_REPLICAS_AFTER)


async def test_chunks_that_repair_does_not_know_are_queued(stage: Stage) -> None:
    """Those that were recorded after its scan; while the scan lasts, and while an upload lasts, they are left to it."""
    await stage.declare(ONE, Standing.DRAINING)
    await stage.work()
    assert await stage.queue() == []
    await stage.db.execute("delete from repair_scans")
    await stage.db.execute("update files set status = 'uploading'")
    await look(stage)
    assert await stage.queue() == []
    await stage.db.execute("update files set status = 'ready'")
    await look(stage)
    assert await stage.queue() == [(0, "draining"), (1, "draining")]


async def test_what_repair_waits_for_is_told(stage: Stage) -> None:
    """A network with too few nodes to take the copies pauses the drain, with the reason; nothing is let go."""
    await stage.declare(ONE, Standing.DRAINING)
    await stage.db.execute("delete from repair_scans")
    await stage.work()
    await stage.db.execute("update repairs set failure = '1 storage node is needed; 0 are usable'")
    await look(stage)
    answer = await stage.declare(ONE, Standing.DRAINING)
    assert answer.reason == "waits: 1 storage node is needed; 0 are usable"
    await stage.db.execute("delete from repairs")
    await look(stage)
    await stage.move(0, 0)
    await look(stage, hours=1)
    assert (await stage.declare(ONE, Standing.DRAINING)).reason == ""


async def test_at_the_deadline_the_node_has_left(stage: Stage) -> None:
    """What is not copied then is left to repair, and the record says how much."""
    await stage.declare(ONE, Standing.DRAINING, HOUR)
    await stage.db.execute("delete from repair_scans")
    await look(stage, minutes=59)
    assert (await stage.standing(ONE)).status == "draining"
    await stage.move(0, 0)
    await look(stage, minutes=2)
    await look(stage)
    assert (await stage.record(ONE))[-1] == ("left", "left at its deadline; 1 replicas were not copied")
    assert (ONE, "left") in await stage.scans()


async def test_the_last_copy_holds_a_node_beyond_its_deadline(stage: Stage) -> None:
    """While no node that is there and stays has another one: also not one that drains, is silent, or whose copy is lost."""
    await stage.db.execute("update replicas set state = 'lost' where id = %s", [replica(0, 1)])
    await change_status(stage.db, THREE, "offline", reason="silent", at=stage.now)
    await stage.declare(ONE, Standing.DRAINING, HOUR)
    await stage.declare(TWO, Standing.DRAINING, HOUR)
    for _ in range(3):
        await look(stage, hours=1)
    answer = await stage.declare(ONE, Standing.DRAINING, 1)
    assert (answer.state, answer.replicas_left, answer.replicas_only_here) == ("draining", 2, 2)
    await change_status(stage.db, THREE, "online", reason="back", at=stage.now)
    await look(stage, hours=1)
    await look(stage)
    assert (await stage.standing(ONE)).status == (await stage.standing(TWO)).status == "left"


async def test_a_node_that_is_gone_does_not_hold_its_drain_open_for_ever(stage: Stage) -> None:
    """Seven days silent with nothing left but what it was to delete, or beyond its deadline: it has left."""
    await stage.db.execute("delete from replicas where node_id <> all (%s)", [[ONE, TWO]])
    await stage.db.execute("update nodes set absent_since = %s where id = any (%s)", [stage.now, [ONE, TWO]])
    await stage.declare(ONE, Standing.DRAINING)
    await stage.declare(TWO, Standing.DRAINING, HOUR)
    await stage.move(0, 0)
    await stage.move(1, 0)
    for span in (timedelta(hours=2), GONE_AFTER - timedelta(hours=3)):
        await look(stage, seconds=span.total_seconds())
        await look(stage)
    assert {(await stage.standing(node)).status for node in (ONE, TWO)} == {"draining"}
    await look(stage, hours=2)
    await look(stage)
    assert "silent since" in (await stage.record(ONE))[-1][1]
    assert (await stage.record(TWO))[-1] == (
        "left",
        "left at its deadline; 2 replicas were not copied, 2 of them the only ones",
    )


async def test_pages_and_coordinators_share_a_large_node(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted page by page, by whoever comes; each replica once a pass, wherever a coordinator dies."""
    monkeypatch.setattr(draining, "PAGE_REPLICAS", 3)
    for chunk in range(2, 10):
        await add_chunk(stage.db, chunk)
    await stage.declare(ONE, Standing.DRAINING)
    await stage.draining.step()
    await stage.second.step()
    stage.later(seconds=1)
    await stage.db.execute("update drains set leased_by = 'dead', due_at = %s", [stage.now + draining.LEASE])
    assert await stage.second.step() is not None  # the dead one's lease holds
    stage.later(seconds=draining.LEASE.total_seconds())
    await stage.work(stage.second)
    found = await stage.standing(ONE)
    assert (found.replicas_left, found.bytes_left) == (10, 1000)


async def test_two_coordinators_let_a_node_go_once(stage: Stage) -> None:
    """The record has one departure."""
    await stage.declare(FOUR, Standing.DRAINING)
    await stage.work()
    await stage.work(stage.second)
    assert [state for state, _ in await stage.record(FOUR)] == ["draining", "left"]


async def test_a_drain_that_was_cancelled_meanwhile_does_not_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled, or cancelled and declared anew, between the count and the departure: the node stays."""
    for again in (False, True):
        await stage.declare(FOUR, Standing.DRAINING)

        async def cancel(pool: Pool, node: object, again: bool = again) -> bool:
            stage.later(seconds=1)
            await stage.declare(FOUR, Standing.ACTIVE)
            if again:
                await stage.declare(FOUR, Standing.DRAINING)
            return False

        with monkeypatch.context() as patch:
            patch.setattr(draining, "are_deletions_queued", cancel)
            await stage.draining.step()
        assert (await stage.standing(FOUR)).status == ("draining" if again else "online")


async def test_a_disqualified_node_is_no_longer_watched(stage: Stage) -> None:
    """What was judged is judged."""
    await stage.declare(ONE, Standing.DRAINING)
    await change_status(stage.db, ONE, "disqualified", reason="failed", at=stage.now)
    await stage.work()
    assert not (await stage.standing(ONE)).is_draining


async def test_a_clock_that_was_ahead_delays_no_drain(stage: Stage) -> None:
    """What is due next year was written by it, and is due now."""
    await stage.declare(ONE, Standing.DRAINING)
    stage.later(days=400)
    await stage.work()
    stage.later(days=-400)
    await stage.move(0, 0)
    await look(stage, seconds=LONGEST_PAUSE.total_seconds() / 1000)
    assert (await stage.standing(ONE)).replicas_left == 1
    assert await stage.db.fetch_all("select 1 from files where id = %s", [FILE])
