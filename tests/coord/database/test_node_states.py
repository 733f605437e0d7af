"""States of nodes in the catalogue: what may change, what is recorded, how silence is counted."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import trio

from fsn.coord.database.node_states import change_status, maintenance_over, transitions_of, transitions_since
from fsn.coord.database.nodes import Registration, node_by_id, register_node
from fsn.coord.database.pool import Pool
from fsn.coord.database.presence import WATCHES_KEPT, silences
from fsn.core.ids import NodeId, PeerId
from fsn.core.node_states import NODE_STATES, NodeState, is_allowed

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
US = PeerId("us")


async def new_node(db: Pool, *, node: UUID | None = None, at: datetime = NOW) -> NodeId:
    """A registered node."""
    key = uuid4().bytes * 2
    registration = Registration(
        node=NodeId(node or uuid4()), peer=PeerId(key.hex()), public_key=key, name="n", capacity_bytes=1, region=None,
        operator=None, api_key_hash=key, challenged_at=at, registered_at=at, coordinator=US,
    )  # fmt: skip
    registered = await register_node(db, registration)
    assert registered is not None
    return registered


async def put(db: Pool, node: NodeId, status: NodeState, absent_since: datetime | None) -> None:
    """Set a node's state behind everybody's back."""
    sql = "update nodes set status = %s, absent_since = %s where id = %s"
    await db.execute(sql, [status, absent_since, node])


async def watch(db: Pool, coordinator: str, *spans: tuple[float, float | None], alive: float = 0) -> None:
    """A coordinator that was there in these spans of hours after NOW (None: until it was alive last)."""
    sql = "insert into coordinators (peer_id, started_at, alive_at) values (%s, %s, %s)"
    await db.execute(sql, [coordinator, NOW, NOW + alive * HOUR])
    for begin, end in spans:
        sql = "insert into coordinator_watches values (%s, %s, %s)"
        await db.execute(sql, [coordinator, NOW + begin * HOUR, None if end is None else NOW + end * HOUR])


async def silent_hours(db: Pool, at: float) -> dict[NodeId, float]:
    """How long nodes are silent, so many hours after NOW."""
    return {each.node: each.watched_seconds / 3600 for each in await silences(db, NOW + at * HOUR)}


async def test_registration_is_the_first_entry(pool: Pool) -> None:
    """A registered node is joining, has not been heard, and its record begins."""
    node = await new_node(pool)
    (entry,) = await transitions_of(pool, node, None, 10)
    assert (entry.begin, entry.end, entry.reason, entry.at, entry.coordinator) == (
        None,
        "joining",
        "registered",
        NOW,
        US,
    )
    record = await node_by_id(pool, node)
    assert record is not None
    assert (record.status, record.status_since, record.absent_since) == ("joining", NOW, NOW)


@pytest.mark.parametrize("begin", NODE_STATES)
async def test_only_allowed_transitions_happen(pool: Pool, begin: NodeState) -> None:
    """From each state exactly those of the table are made, and each is on record with its reason; staying records nothing."""
    for end in NODE_STATES:
        node = await new_node(pool)
        await put(pool, node, begin, None)
        assert await change_status(pool, node, end, reason="why", at=NOW + HOUR, coordinator=US) is is_allowed(
            begin, end
        )
        record, (entry, *_) = await node_by_id(pool, node), await transitions_of(pool, node, None, 10)
        assert record is not None
        if is_allowed(begin, end) and begin != end:
            assert (record.status, record.status_since, record.status_reason) == (end, NOW + HOUR, "why")
            assert (entry.begin, entry.end, entry.reason, entry.at, entry.coordinator) == (
                begin,
                end,
                "why",
                NOW + HOUR,
                US,
            )
        else:
            assert (record.status, record.status_reason, entry.reason) == (begin, "registered", "registered")


async def test_a_repetition_is_harmless_and_an_extension_recorded(pool: Pool) -> None:
    """The same declaration twice is one; with another end it is a second, and the state keeps its beginning."""
    node, until = await new_node(pool), NOW + 4 * HOUR
    for at in (0, 1):
        assert await change_status(pool, node, "maintenance", reason="declared", at=NOW + at * HOUR, until=until)
    assert len(await transitions_of(pool, node, None, 10)) == 2
    assert await change_status(pool, node, "maintenance", reason="longer", at=NOW + HOUR, until=until + HOUR)
    record, entries = await node_by_id(pool, node), await transitions_of(pool, node, None, 10)
    assert record is not None
    assert (record.status_since, record.status_until, len(entries)) == (NOW, until + HOUR, 3)
    assert entries[0].until == until + HOUR


async def test_a_node_that_is_not_there(pool: Pool) -> None:
    """Nothing changes, nothing is raised."""
    assert not await change_status(pool, NodeId(uuid4()), "draining", reason="why", at=NOW)


async def test_of_two_that_race_one_is_recorded(pool: Pool) -> None:
    """Many coordinators judge a node in the same moment: one entry."""
    node = await new_node(pool)

    async def judge() -> None:
        assert await change_status(pool, node, "disqualified", reason="why", at=NOW)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(judge)
    assert len(await transitions_of(pool, node, None, 10)) == 2


async def test_the_record_is_paged(pool: Pool) -> None:
    """A node's entries come newest first, all nodes' in order."""
    node, other = await new_node(pool), await new_node(pool)
    for to in ("online", "draining", "left", "joining"):
        await change_status(pool, node, to, reason="why", at=NOW)
    first = await transitions_of(pool, node, None, 3)
    rest = await transitions_of(pool, node, first[-1].id, 3)
    assert [entry.end for entry in (*first, *rest)] == ["joining", "left", "draining", "online", "joining"]
    everybody = await transitions_since(pool, 0, 100)
    assert [entry.node for entry in everybody] == [node, other, node, node, node, node]
    assert await transitions_since(pool, everybody[-1].id, 100) == []


async def test_maintenance_that_is_over(pool: Pool) -> None:
    """It is found once its end has come."""
    node = await new_node(pool)
    await change_status(pool, node, "maintenance", reason="declared", at=NOW, until=NOW + HOUR)
    assert await maintenance_over(pool, NOW + HOUR / 2, 10) == []
    assert await maintenance_over(pool, NOW + HOUR, 10) == [node]


async def test_silence_counts_while_somebody_watched(pool: Pool) -> None:
    """The time of two coordinators counts once where they overlap, and not at all where neither was there."""
    node = await new_node(pool)
    await put(pool, node, "offline", NOW + HOUR)
    await watch(pool, "a", (0, 2), (5, None), alive=7)
    await watch(pool, "b", (1.5, 3))
    assert await silent_hours(pool, 10) == pytest.approx({node: (3 - 1) + (7 - 5)})
    assert await silent_hours(pool, 6) == pytest.approx({node: (3 - 1) + (6 - 5)})


async def test_who_is_silent(pool: Pool) -> None:
    """Absent nodes are, unless they are in maintenance, left, judged, or never came; one draining and away is as well."""
    await watch(pool, "a", (0, None), alive=9)
    nodes = {state: await new_node(pool) for state in NODE_STATES}
    for state, node in nodes.items():
        await put(pool, node, state, NOW)
    assert set(await silent_hours(pool, 9)) == {nodes[state] for state in ("online", "offline", "draining")}
    for state, node in nodes.items():
        await put(pool, node, state, None)
    assert await silent_hours(pool, 9) == {}


async def test_maintenance_is_not_silence(pool: Pool) -> None:
    """Who does not come back from maintenance is silent from its end on."""
    node = await new_node(pool)
    await watch(pool, "a", (0, None), alive=9)
    await change_status(pool, node, "maintenance", reason="declared", at=NOW, until=NOW + 4 * HOUR)
    assert await silent_hours(pool, 9) == {}
    await change_status(pool, node, "offline", reason="not back", at=NOW + 4 * HOUR)
    assert await silent_hours(pool, 9) == pytest.approx({node: 5})


async def test_silences_are_paged_and_bounded(pool: Pool) -> None:
    """They come in the order of ids; one older than watches are kept is told as that."""
    nodes = sorted([await new_node(pool) for _ in range(3)])
    for node in nodes:
        await put(pool, node, "offline", NOW - 2 * WATCHES_KEPT)
    await watch(pool, "a", (-3000, None), alive=0)
    first = await silences(pool, NOW, limit=2)
    rest = await silences(pool, NOW, after=first[-1].node, limit=2)
    assert [each.node for each in (*first, *rest)] == nodes
    assert first[0].watched_seconds == pytest.approx(WATCHES_KEPT.total_seconds())
