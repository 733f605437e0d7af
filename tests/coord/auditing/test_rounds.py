"""Rounds of proofs over real services and a real database: what each kind of node comes to, and whom nobody may blame."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from uuid import UUID

import attrs
import pytest
import trio
import trio.testing

from fsn.coord.auditing.asking import Asked, Asking
from fsn.coord.auditing.rounds import Auditing
from fsn.coord.config import AuditConfig
from fsn.coord.database import proof_outcomes, proof_reports, proofs
from fsn.coord.database.node_states import change_status
from fsn.coord.database.pool import Pool
from fsn.coord.database.proof_writing import AskedReplica, Sums, Written
from fsn.core.ids import PeerId, ReplicaId
from fsn.core.proofs import Challenge
from fsn.p2p.client import open_requester
from fsn.runtime.supervise import Rest
from tests.coord.auditing.stage import CHUNKS, ROUND, START, Stage
from tests.coord.network import CONFIG, Hand, Member, open_network


@pytest.fixture
async def stage(pool: Pool) -> AsyncIterator[Stage]:
    """Nobody but the test has rounds played, and nothing is repaired."""
    clock = Hand(START)
    config = attrs.evolve(CONFIG, audit=AuditConfig(enabled=False))
    with trio.fail_after(60):
        async with (
            open_network(pool, config, nodes=4, clock=clock) as network,
            open_requester(network.services.transport) as requester,
        ):
            stage = Stage(network, pool, clock, requester)
            stage.worker = stage.another_worker()
            await stage.put()
            clock.now += ROUND  # what was stored in a round is asked for from the next on
            yield stage


async def test_honest_nodes_pass_every_challenge(stage: Stage) -> None:
    """Each replica is asked for once a round; sums are all that is written."""
    await stage.whole_round()
    await stage.whole_round()
    for member in stage.network.nodes:
        assert await stage.sums(member) == (2 * CHUNKS, 2 * CHUNKS, 0, 0, 0, 0)
    assert await stage.rows("select * from proof_failures") == []
    assert await stage.rows("select distinct vetting_passed, asked, passed from node_reputations") == [(16, 16, 16)]


async def test_a_store_far_away_shows_in_the_answer_times(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """And in nothing else: it passes as the others do, and a round in which nothing passed has no times."""
    far, near = stage.network.nodes[0], stage.network.nodes[1]
    retrieve = far.store.retrieve

    async def fetch(replica: ReplicaId) -> object:
        await trio.sleep(0.05)
        return await retrieve(replica)

    monkeypatch.setattr(far.store, "retrieve", fetch)
    await stage.whole_round()
    assert await stage.sums(far) == (CHUNKS, CHUNKS, 0, 0, 0, 0)
    (of_far,), (of_near,) = [await proof_reports.list_rounds(stage.db, each.node, 5) for each in (far, near)]
    assert of_far.quickest_ms is not None and of_near.quickest_ms is not None
    assert of_near.quickest_ms < 50 <= of_far.quickest_ms <= (of_far.mean_ms or 0)
    of_all = (await proof_reports.list_rounds(stage.db, None, 5))[-1]
    assert of_all.quickest_ms is not None
    assert of_all.quickest_ms <= of_near.quickest_ms
    await near.store.delete(await near.replicas())
    await stage.whole_round()
    last = (await proof_reports.list_rounds(stage.db, near.node, 5))[0]
    assert (last.failed, last.quickest_ms, last.mean_ms) == (CHUNKS, None, None)


async def test_what_a_node_has_deleted_is_lost_queued_for_repair_and_on_record(stage: Stage) -> None:
    """The evidence has the seed and the root; the node is out in its third round."""
    cheat = stage.network.nodes[0]
    await cheat.store.delete(await cheat.replicas())
    await stage.whole_round()
    assert await stage.sums(cheat) == (CHUNKS, 0, CHUNKS, 0, 0, 0)
    assert await stage.lost() == {cheat.node: "proof: gone"}
    assert await stage.rows("select count(*) from repairs") == [(CHUNKS,)]
    found = await stage.rows("select distinct outcome, node_id, octet_length(seed), tries from proof_failures")
    assert found == [("gone", cheat.node, 32, 1)]
    assert await stage.rows("select reputation from nodes where id = %s", cheat.node) == [(pytest.approx(0.98),)]
    events = await stage.rows("select kind, reason from reputation_events")
    assert events == [("fault", "of 8 asked 0 passed, 8 failed, 0 missed, 0 refused")]


async def test_a_node_that_lost_everything_is_disqualified_in_its_third_round(stage: Stage) -> None:
    """Though it is asked only once for what is lost; the others are untouched."""
    cheat = stage.network.nodes[0]
    await cheat.store.delete(await cheat.replicas())
    for _ in range(3):
        await stage.whole_round()
    assert await stage.rows("select status::text from nodes where id = %s", cheat.node) == [("disqualified",)]
    (reason,) = await stage.rows("select judged_because from nodes where id = %s", cheat.node)
    assert reason == ("reputation 0.9412 is below 0.96: too many proofs failed",)
    assert len(await stage.rows("select * from repair_scans where node_id = %s", cheat.node)) == 1
    others = await stage.rows("select distinct reputation from nodes where id <> %s", cheat.node)
    assert others == [(1.0,)]


async def test_wrong_bytes_give_a_bad_answer(stage: Stage) -> None:
    """A chunk that rotted in one bit is found as soon as a leaf with it is visited, or at once by its Merkle path."""
    cheat = stage.network.nodes[1]
    chunks = cheat.store._chunks
    for replica, (chunk, data) in list(chunks.items()):
        chunks[replica] = chunk, bytes(len(data))
    await stage.whole_round()
    assert await stage.sums(cheat) == (CHUNKS, 0, CHUNKS, 0, 0, 0)
    assert await stage.lost() == {cheat.node: "proof: bad"}


async def test_no_answer_is_asked_for_again_three_times_and_then_missed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same seed. Two nodes of ten are no reason to suspect oneself; here there are four, and suspicion is switched off."""
    monkeypatch.setattr("fsn.coord.auditing.rounds.is_suspicious", lambda *_: False)
    cheat = stage.network.nodes[2]
    _silence(cheat)
    await stage.whole_round()
    challenges = await stage.rows("select challenge_id, seed from proof_retries where tries = 1 order by 1")
    await stage.tries()
    assert (await stage.sums(cheat))[1:] == (0, 0, CHUNKS, 0, 0)
    assert await stage.lost() == {cheat.node: "proof: missed"}
    assert len(challenges) == CHUNKS
    assert await stage.rows("select challenge_id, seed from proof_failures order by 1") == challenges
    assert await stage.rows("select distinct outcome, tries from proof_failures") == [("missed", 4)]
    left = await stage.rows("select challenge_id, seed from proof_retries")
    assert not set(left) & set(challenges)


async def test_who_answers_the_second_time_has_passed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was slow for a while: nothing is lost, nothing on record against it."""
    monkeypatch.setattr("fsn.coord.auditing.rounds.is_suspicious", lambda *_: False)
    slow = stage.network.nodes[2]
    _silence(slow, times=CHUNKS)
    await stage.whole_round()
    await stage.tries()
    asked, passed, *others = await stage.sums(slow)
    assert asked == passed  # CHUNKS, and what the next round has begun with
    assert isinstance(passed, int)
    assert passed >= CHUNKS
    assert others == [0, 0, 0, 0]
    assert await stage.rows("select * from proof_failures") == []


async def test_when_many_do_not_answer_nobody_is_blamed(stage: Stage) -> None:
    """More than a fifth: it is rather us. At most three rounds running; in the fourth they are judged."""
    for member in stage.network.nodes[:2]:
        _silence(member)
    for count in (1, 2, 3):
        await stage.whole_round()
        assert await stage.lost() == {}
        assert await stage.rows("select count(*) from proof_rounds where suspicion is not null") == [(count,)]
        assert await stage.rows("select * from proof_retries") == []
    assert await stage.rows("select * from node_reputations") == []
    await stage.whole_round()
    await stage.tries()
    assert set(await stage.lost()) == {member.node for member in stage.network.nodes[:2]}


async def test_a_node_that_is_not_there_is_not_blamed(stage: Stage) -> None:
    """Its uptime counts it, not its reputation."""
    away = stage.network.nodes[3]
    away.kill()
    await trio.testing.wait_all_tasks_blocked()
    await stage.whole_round()
    assert await stage.sums(away) == (CHUNKS, 0, 0, 0, 0, CHUNKS)
    assert await stage.lost() == {}
    assert await stage.rows("select alpha, beta from node_reputations where node_id = %s", away.node) == [(49.0, 0.0)]


async def test_a_node_in_maintenance_is_not_asked(stage: Stage) -> None:
    """It said so."""
    away = stage.network.nodes[3]
    assert away.node is not None
    await change_status(stage.db, away.node, "maintenance", reason="declared", at=stage.clock.now)
    await stage.network.services.membership.reread(away.identity.peer)
    await stage.whole_round()
    assert await stage.sums(away) == (0, 0, 0, 0, 0, 0)


async def test_a_coordinator_that_was_stalled_writes_nothing(stage: Stage) -> None:
    """What did not come meanwhile is no fault of the nodes. It goes on when it has settled."""
    stage.settled = False
    await stage.whole_round()
    assert await stage.rows("select * from proof_sums") == []
    stage.settled = True
    await stage.whole_round()
    assert await stage.sums(stage.network.nodes[0]) == (CHUNKS, CHUNKS, 0, 0, 0, 0)


async def test_two_coordinators_share_a_round_and_count_each_challenge_once(stage: Stage) -> None:
    """Parts are leased, and a part whose lease went over to another is not counted by the first."""
    other = stage.another_worker()
    other.by = PeerId("third")
    stage.clock.now += ROUND - timedelta(minutes=1)

    async def work(worker: Auditing) -> None:
        while not isinstance(await worker.step(), Rest):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, stage.worker)
        nursery.start_soon(work, other)
    (row,) = await stage.rows("select sum(asked), sum(passed) from proof_sums")
    assert row == (4 * CHUNKS, 4 * CHUNKS)
    assert await stage.rows("select count(*) from proof_parts where done_at is null") == [(0,)]


async def test_a_part_whose_coordinator_died_is_done_by_another(stage: Stage) -> None:
    """After its lease; what the dead one had asked is not counted."""
    stage.clock.now += timedelta(hours=3)
    await stage.worker.step()  # opens the round, does some parts
    await stage.rows(
        "update proof_parts set done_at = null, leased_by = 'dead', leased_until = %s returning 1",
        stage.clock.now + timedelta(minutes=2),
    )
    await stage.rows("delete from proof_sums returning 1")
    await stage.work()
    assert await stage.rows("select sum(asked) from proof_sums") == [(None,)]
    stage.clock.now += timedelta(minutes=4)
    await stage.work()
    (row,) = await stage.rows("select count(*) from proof_parts where done_at is not null")
    assert row[0] and (await stage.rows("select coalesce(sum(asked), 0) from proof_sums"))[0][0]


def _silence(member: Member, *, times: int = 10**9) -> None:
    """The node's disk takes longer than any deadline, for so many reads."""
    retrieve, left = member.store.retrieve, iter(range(times))

    async def slow(replica: ReplicaId, offset: int = 0, length: int = 0) -> tuple[bytes, int]:
        if next(left, None) is not None:
            await trio.sleep(0.5)
        return await retrieve(replica, offset, length)

    member.store.retrieve = slow  # type: ignore[method-assign]


async def test_a_node_that_is_silent_for_longer_than_a_lease_costs_nobody_the_part(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two coordinators would take it from each other for ever."""
    monkeypatch.setattr("fsn.coord.auditing.rounds.LEASE", timedelta(seconds=0.6))
    for member in stage.network.nodes:
        _silence(member)
    stage.clock.now += ROUND - timedelta(minutes=1)
    kept: list[object] = []

    async def look() -> None:
        while not kept:
            await trio.sleep(0.1)
            stage.clock.now += timedelta(seconds=0.1)
            kept.extend(
                await stage.rows(
                    "select 1 from proof_parts where leased_by = 'another' and done_at is null and leased_until > %s",
                    START + 2 * ROUND - timedelta(seconds=59.2),  # the first lease ends before
                )
            )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await stage.worker.step()
    assert kept
    assert await stage.rows("select sum(timeouts) > 0 from proof_sums") == [(True,)]


async def test_a_repeated_challenge_ends_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second coordinator that comes too late with the same endings writes nothing."""
    monkeypatch.setattr("fsn.coord.auditing.rounds.is_suspicious", lambda *_: False)
    slow = stage.network.nodes[2]
    _silence(slow, times=CHUNKS)
    await stage.whole_round()
    ids = [UUID(str(row[0])) for row in await stage.rows("select challenge_id from proof_retries order by 1")]
    assert slow.node is not None
    number = int(stage.clock.now.timestamp() // ROUND.total_seconds())
    written = Written({slow.node: Sums(asked=CHUNKS, passed=CHUNKS)})
    before = await stage.sums(slow)
    assert await proofs.add_endings(stage.db, number, ids, written, at=stage.clock.now)
    after = await stage.sums(slow)
    assert not await proofs.add_endings(stage.db, number, ids, written, at=stage.clock.now)
    assert await stage.sums(slow) == after != before


async def test_a_suspicious_round_stays_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that answer in its second half take nothing back: what was silent in the first is not asked again."""
    for member in stage.network.nodes[:2]:
        _silence(member)
    stage.clock.now += ROUND - timedelta(minutes=30)
    await stage.work()
    await stage.tries()
    assert await stage.rows("select count(*) from proof_rounds where suspicion is not null") == [(1,)]
    monkeypatch.setattr("fsn.coord.auditing.rounds.is_suspicious", lambda *_: False)
    await stage.whole_round()
    assert await stage.lost() == {}
    suspicious = await stage.rows("select round from proof_rounds where suspicion is not null")
    assert await stage.rows("select count(*) from proof_retries where round = %s", suspicious[0][0]) == [(0,)]


async def test_what_is_deleted_while_it_is_asked_for_is_no_failure(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's deletion reached the node before the challenge did."""
    honest, ask = stage.network.nodes[0], Asking.ask

    async def late(asking: Asking, replica: AskedReplica, challenge: Challenge) -> Asked:
        if replica.node == honest.node:
            await stage.rows("update files set status = 'deleted', deleted_at = %s returning 1", stage.clock.now)
            await honest.store.delete([replica.replica])
        return await ask(asking, replica, challenge)

    monkeypatch.setattr(Asking, "ask", late)
    await stage.whole_round()
    assert (await stage.sums(honest))[2:] == (0, 0, 0, 0)
    assert await stage.rows("select * from proof_failures") == []
    assert await stage.rows("select * from reputation_events") == []


def _break(member: Member) -> Callable[[], None]:
    """Its disk cannot be read; what mends it."""
    sound = member.store.retrieve

    async def fail(replica: ReplicaId, offset: int = 0, length: int = 0) -> tuple[bytes, int]:
        raise OSError("the disk is on fire")

    def mend() -> None:
        member.store.retrieve = sound  # type: ignore[method-assign]

    member.store.retrieve = fail  # type: ignore[method-assign]
    return mend


async def test_who_refuses_four_times_is_repaired(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its replicas are lost, in the first round; it counts on the track that leads to suspension, with its words as evidence."""
    monkeypatch.setattr("fsn.coord.auditing.rounds.is_suspicious", lambda *_: False)
    broken = stage.network.nodes[1]
    _break(broken)
    await stage.whole_round()
    assert await stage.lost() == {}
    await stage.tries()
    assert await stage.sums(broken) == (CHUNKS, 0, 0, 0, CHUNKS, 0)
    assert await stage.lost() == {broken.node: "proof: error"}
    assert await stage.rows("select distinct outcome, tries from proof_failures") == [("error", 4)]
    assert await stage.rows("select count(*) from repairs") == [(CHUNKS,)]
    await stage.whole_round()
    tracks = await stage.rows("select beta, answer_beta > 0 from node_reputations where node_id = %s", broken.node)
    assert tracks == [(0.0, True)]


async def test_who_refuses_for_a_while_is_not_blamed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is checked, a node that was too busy: asked again with the same seed, it answers."""
    monkeypatch.setattr("fsn.coord.auditing.rounds.is_suspicious", lambda *_: False)
    broken = stage.network.nodes[1]
    mend = _break(broken)
    await stage.whole_round()
    mend()
    await stage.tries()
    asked, passed, *others = await stage.sums(broken)
    assert (asked, others) == (passed, [0, 0, 0, 0])
    assert await stage.lost() == {}
    assert await stage.rows("select * from proof_failures") == []


async def test_what_is_old_is_deleted(stage: Stage) -> None:
    """Parts after a week, all else of a round after keep_days; rounds that are not judged stay."""
    cheat = stage.network.nodes[0]
    await cheat.store.delete(await cheat.replicas())
    for _ in range(3):
        await stage.whole_round()
    now = stage.clock.now
    while await proof_outcomes.forget_rounds(stage.db, now - timedelta(days=400), now + timedelta(seconds=1), 3):
        pass
    assert await stage.rows("select count(distinct round) from proof_parts") == [(1,)]  # the one under way
    assert await stage.rows("select count(*) from proof_failures") == [(CHUNKS,)]
    later = now + timedelta(seconds=1)
    while await proof_outcomes.forget_rounds(stage.db, later, later, 3):
        pass
    assert await stage.rows("select count(*) from proof_failures") == [(0,)]
    assert await stage.rows("select count(*), count(judged_at) from proof_rounds") == [(1, 0)]


async def test_a_silent_node_has_few_repeated_challenges_in_a_step(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the others come in the same step, however many it has."""
    monkeypatch.setattr("fsn.coord.auditing.rounds.is_suspicious", lambda *_: False)
    silent, slow = stage.network.nodes[:2]
    for member in (silent, slow):
        _silence(member, times=CHUNKS)
    await stage.whole_round()
    now = stage.clock.now + timedelta(minutes=5)
    nodes = [member.node for member in (silent, slow) if member.node is not None]
    for _ in range(2):
        due = await proofs.claim_retries(stage.db, nodes, now=now, lease=timedelta(minutes=3), limit=100, of_node=3)
        assert sorted(each.asked.node for each in due) == sorted(3 * nodes)
    limited = await proofs.claim_retries(stage.db, nodes, now=now, lease=timedelta(minutes=3), limit=3, of_node=2)
    assert len(limited) == 3
