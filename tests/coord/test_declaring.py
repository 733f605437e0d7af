"""What a coordinator makes of what nodes declare."""

from collections.abc import AsyncIterator

import pytest

from fsn.coord.database.node_states import change_status
from fsn.coord.database.pool import Pool
from fsn.core.errors import Invalid
from fsn.core.ids import PeerId
from fsn.p2p.wire.messages import Declaration, Refusal, RefusalCode, Standing
from tests.coord.upkeep.drains import NODES, Stage, open_stage_with, peer_of

ONE, TWO = NODES[:2]
HOUR = 3600


@pytest.fixture
async def stage(pool: Pool) -> AsyncIterator[Stage]:
    """Four nodes and a file."""
    async with open_stage_with(pool) as stage:
        yield stage


async def test_a_stranger_is_refused(stage: Stage) -> None:
    """Only registered nodes declare anything."""
    answer = await stage.declarations.declare(PeerId("stranger"), Declaration(Standing.DRAINING))
    assert isinstance(answer, Refusal)
    assert answer.code == RefusalCode.NOT_AUTHORISED


async def test_what_is_not_known_is_refused(stage: Stage) -> None:
    """A later version's standing, and a maintenance without an end."""
    for standing in ("SLEEPING", Standing.MAINTENANCE):
        with pytest.raises(Invalid):
            await stage.declare(ONE, standing)
    assert (await stage.standing(ONE)).status == "online"


async def test_an_active_node_hears_how_it_stands(stage: Stage) -> None:
    """Nothing changes, and nothing is recorded."""
    stage.later(hours=2)
    answer = await stage.declare(ONE, Standing.ACTIVE)
    assert (answer.state, answer.since_seconds) == ("online", 2 * HOUR)
    assert await stage.record(ONE) == []


async def test_a_drain_is_on_record_and_repair_is_told(stage: Stage) -> None:
    """Once, however often it is declared; what is left is what the node said, until it is counted."""
    for _ in range(3):
        answer = await stage.declare(ONE, Standing.DRAINING)
        assert (answer.state, answer.replicas_left, answer.bytes_left, answer.remaining_seconds) == (
            "draining",
            2,
            200,
            0,
        )
    assert await stage.record(ONE) == [("draining", "declared by its operator")]
    assert await stage.scans() == [(ONE, "draining")]
    await stage.db.execute("delete from repair_scans")
    await stage.declare(ONE, Standing.DRAINING)
    assert await stage.scans() == []


async def test_a_deadline_may_change(stage: Stage) -> None:
    """It is on record when it does, and not for the second that a message travels; repair need not begin anew."""
    assert (await stage.declare(ONE, Standing.DRAINING, 48 * HOUR)).remaining_seconds == 48 * HOUR
    stage.later(hours=1)
    assert (await stage.declare(ONE, Standing.DRAINING, 47 * HOUR + 1)).remaining_seconds == 47 * HOUR
    assert len(await stage.record(ONE)) == 1
    assert (await stage.declare(ONE, Standing.DRAINING, HOUR)).remaining_seconds == HOUR
    assert (await stage.declare(ONE, Standing.DRAINING)).remaining_seconds == 0
    assert len(await stage.record(ONE)) == 3
    assert (await stage.declare(ONE, Standing.DRAINING, 2**63 - 1)).remaining_seconds > 0  # a node may say any number


async def test_a_cancelled_drain_is_undone(stage: Stage) -> None:
    """The node counts again, and repair looks for what is too much now."""
    await stage.declare(ONE, Standing.DRAINING)
    await stage.db.execute("delete from repair_scans")
    assert (await stage.declare(ONE, Standing.ACTIVE)).state == "online"
    assert await stage.record(ONE) == [
        ("draining", "declared by its operator"),
        ("online", "drain ended by its operator"),
    ]
    assert await stage.scans() == [(ONE, "drain cancelled")]
    assert not (await stage.standing(ONE)).is_draining


@pytest.mark.parametrize("state", ["left", "disqualified"])
async def test_who_is_judged_stays_so(stage: Stage, state: str) -> None:
    """Whatever it declares."""
    await stage.db.execute("update nodes set status = %s::node_status where id = %s", [state, ONE])
    for standing in (Standing.ACTIVE, Standing.DRAINING, Standing.MAINTENANCE, Standing.STOPPING):
        assert (await stage.declare(ONE, standing, 60)).state == state
    assert await stage.scans() == []


async def test_maintenance_has_an_end_and_a_reason(stage: Stage) -> None:
    """Both are told; again, as after each restart, records nothing; longer or shorter does."""
    answer = await stage.declare(ONE, Standing.MAINTENANCE, 4 * HOUR, "a new disk")
    assert (answer.state, answer.remaining_seconds, answer.reason) == ("maintenance", 4 * HOUR, "a new disk")
    stage.later(hours=1)
    await stage.declare(ONE, Standing.MAINTENANCE, 3 * HOUR)
    assert len(await stage.record(ONE)) == 1
    assert (await stage.declare(ONE, Standing.MAINTENANCE, 5 * HOUR)).remaining_seconds == 5 * HOUR
    assert (await stage.declare(ONE, Standing.ACTIVE)).state == "online"
    assert [state for state, _ in await stage.record(ONE)] == ["maintenance", "maintenance", "online"]


async def test_maintenance_is_bounded_at_a_time(stage: Stage) -> None:
    """72 hours, whatever a node says."""
    for seconds in (73 * HOUR, 2**62):
        with pytest.raises(Invalid, match=r"72 hours in 30 days, of which 72\.0 are left"):
            await stage.declare(ONE, Standing.MAINTENANCE, seconds)
    assert (await stage.declare(ONE, Standing.MAINTENANCE, 72 * HOUR)).state == "maintenance"


async def test_maintenance_is_bounded_in_a_month(stage: Stage) -> None:
    """What was used counts, what was declared and not used does not; after 30 days it is forgotten. Other nodes have their own."""
    await stage.declare(ONE, Standing.MAINTENANCE, 72 * HOUR)
    stage.later(hours=40)
    await stage.declare(ONE, Standing.ACTIVE)
    with pytest.raises(Invalid, match=r"of which 32\.0 are left; 33\.0 were wanted"):
        await stage.declare(ONE, Standing.MAINTENANCE, 33 * HOUR)
    assert (await stage.declare(TWO, Standing.MAINTENANCE, 72 * HOUR)).state == "maintenance"
    await stage.declare(ONE, Standing.MAINTENANCE, 32 * HOUR)
    stage.later(hours=30)
    with pytest.raises(Invalid, match=r"2\.0 are left"):
        await stage.declare(ONE, Standing.MAINTENANCE, 10 * HOUR)  # by little longer each time, for ever
    await stage.declare(ONE, Standing.ACTIVE)
    stage.later(days=29)
    assert (await stage.declare(ONE, Standing.MAINTENANCE, 40 * HOUR)).state == "maintenance"


async def test_from_a_drain_into_maintenance(stage: Stage) -> None:
    """A node that has changed its mind while this coordinator was away stays, and is away for a while."""
    await stage.declare(ONE, Standing.DRAINING)
    assert (await stage.declare(ONE, Standing.MAINTENANCE, HOUR)).state == "maintenance"
    assert (await stage.declare(ONE, Standing.DRAINING)).state == "draining"
    assert [state for state, _ in await stage.record(ONE)] == ["draining", "online", "maintenance", "draining"]


async def test_a_node_that_is_back_before_it_is_counted_so_hears_that_it_is_online(stage: Stage) -> None:
    """It is here, and asks."""
    await change_status(stage.db, ONE, "offline", reason="silent", at=stage.now)
    assert (await stage.declare(ONE, Standing.ACTIVE)).state == "online"
    assert (await stage.declare(ONE, Standing.DRAINING)).state == "draining"
    assert peer_of(ONE) != peer_of(TWO)
