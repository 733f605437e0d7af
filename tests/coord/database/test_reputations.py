"""Rounds of proofs are reckoned into reputations once, and what follows is on record."""

import time
from datetime import UTC, datetime, timedelta

import pytest
import trio

from fsn.coord.database.nodes import node_by_id
from fsn.coord.database.pool import Pool
from fsn.coord.database.reputations import Judged, exclude, judge_round, list_events, node_proofs, start_anew
from fsn.core.ids import NodeId
from fsn.core.reputation import VETTING_PROOFS
from tests.coord.database.test_node_states import new_node

AT = datetime(2026, 11, 26, tzinfo=UTC)


async def add_round(db: Pool, number: int, node: NodeId, *, suspicion: str | None = None, **sums: int) -> None:
    """A round that is over, with the sums of one node."""
    await db.execute(
        "insert into proof_rounds (round, begins_at, suspicion) values (%s, %s, %s)", [number, AT, suspicion]
    )
    given = {"asked": 10, "passed": 0, "failed": 0, "missed": 0, "errors": 0, **sums}
    await db.execute(
        """insert into proof_sums (round, node_id, asked, passed, failed, missed, errors)
           values (%(round)s, %(node)s, %(asked)s, %(passed)s, %(failed)s, %(missed)s, %(errors)s)""",
        {"round": number, "node": node, **given},
    )


async def judge(db: Pool, number: int, *, hours: float = 0) -> tuple[Judged, ...]:
    """Judge a round, so long after the first."""
    async with db.transaction() as connection:
        return await judge_round(connection, number, AT + timedelta(hours=hours))


async def test_a_round_is_reckoned_in_once(pool: Pool) -> None:
    """However many coordinators judge it at the same time."""
    node = await new_node(pool)
    await add_round(pool, 1, node, passed=9, failed=1)
    changes: list[Judged] = []

    async def one() -> None:
        changes.extend(await judge(pool, 1))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert [each.kind for each in changes] == ["fault"]
    found = await node_proofs(pool, node)
    assert (found.passed, found.failed) == (9, 1)
    assert found.reputation.score == pytest.approx((0.98 * 50 + 0.9) / (0.98 * 50 + 1.0))


async def test_a_suspicious_round_changes_nothing(pool: Pool) -> None:
    """It is over, and that is all."""
    node = await new_node(pool)
    await add_round(pool, 1, node, suspicion="half of them", failed=10)
    assert await judge(pool, 1) == ()
    assert (await node_proofs(pool, node)).reputation.score == 1.0
    assert await judge(pool, 2) == ()  # there is no such round


async def test_who_answers_nothing_is_suspended_and_taken_on_again(pool: Pool) -> None:
    """In its tenth round; back with the first that passes. Its state in the network is another matter."""
    node = await new_node(pool)
    kinds = []
    for number in range(10):
        await add_round(pool, number, node, missed=5, errors=5)
        kinds.append([each.kind for each in await judge(pool, number)])
    assert kinds == [["fault"]] * 9 + [["fault", "suspended"]]
    record = await node_by_id(pool, node)
    assert record is not None
    assert record.suspended_at == AT
    assert record.judged_because == "0.60 of its challenges answered is below 0.6: misses and refusals"
    await add_round(pool, 10, node, passed=10)
    assert [each.kind for each in await judge(pool, 10)] == ["resumed"]
    record = await node_by_id(pool, node)
    assert record is not None
    assert (record.suspended_at, record.judged_because) == (None, None)


async def test_a_node_is_vetted_by_proofs_and_days(pool: Pool) -> None:
    """A hundred proofs, the first of them a week ago; the events are told, the newest first."""
    node = await new_node(pool)
    await add_round(pool, 0, node, asked=VETTING_PROOFS, passed=VETTING_PROOFS)
    assert await judge(pool, 0) == ()
    await add_round(pool, 1, node, passed=10)
    assert await judge(pool, 1, hours=24 * 7 - 1) == ()
    await add_round(pool, 2, node, passed=9, failed=1)
    assert [each.kind for each in await judge(pool, 2, hours=24 * 7)] == ["fault", "vetted"]
    assert [each.kind for each in await list_events(pool, node, None, 10)] == ["vetted", "fault"]


async def test_ten_thousand_nodes_take_a_moment(pool: Pool) -> None:
    """A few statements for all of them together."""
    await new_node(pool)
    await pool.execute(
        """insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, capacity_bytes, status_since,
                              absent_since, unfolded_from)
           select gen_random_uuid(), 'peer' || n, sha256(n::text::bytea), 'n', sha256(('k' || n)::bytea), now(), now(), 1, now(), now(),
                  current_date from generate_series(1, 10000) n"""
    )
    await pool.execute("insert into proof_rounds (round, begins_at) values (1, now())")
    await pool.execute("insert into proof_sums (round, node_id, asked, passed) select 1, id, 10, 10 from nodes")
    began = time.perf_counter()
    assert await judge(pool, 1) == ()
    assert time.perf_counter() - began < 10
    assert await pool.fetch_one("select count(*), min(alpha), max(passed) from node_reputations") == (10001, 50.0, 10)


async def test_a_new_start_forgets_what_failed_before_it(pool: Pool) -> None:
    """The rounds that follow do not count it again."""
    node = await new_node(pool)
    await add_round(pool, 1, node, passed=5, failed=5)
    await judge(pool, 1)
    async with pool.transaction() as connection:
        await start_anew(connection, node, reason="a mistake of ours", at=AT + timedelta(hours=1))
    await add_round(pool, 2, node, passed=10)
    assert await judge(pool, 2, hours=4) == ()
    assert (await node_proofs(pool, node)).reputation.score == 1.0


async def test_an_administrators_disqualification_is_on_record_as_the_node_stood(pool: Pool) -> None:
    """With both of its tracks."""
    node = await new_node(pool)
    await add_round(pool, 1, node, passed=5, missed=5)
    await judge(pool, 1)
    async with pool.transaction() as connection:
        await exclude(connection, node, reason="a complaint", at=AT + timedelta(hours=1))
    stands = (await node_proofs(pool, node)).reputation
    event = (await list_events(pool, node, None, 1))[0]
    assert event.kind == "disqualified"
    assert event.score == pytest.approx(stands.score)
    assert event.answering == pytest.approx(stands.answering)
    assert stands.answering < 1
