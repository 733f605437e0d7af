"""Coordinator and nodes agree on what is where: losses are repaired, garbage goes, and neither is ever taken for the other."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import LiteralString
from uuid import UUID

import attrs
import pytest
import trio

from fsn.coord.accounts import Account
from fsn.coord.catalog import PlacedReplica
from fsn.coord.config import ReconciliationConfig
from fsn.coord.database import reconciliations as table
from fsn.coord.database.chunks import queue_deletions
from fsn.coord.database.pool import Pool
from fsn.coord.losses import LossReports
from fsn.coord.upkeep.reconciling import Reconciling
from fsn.core.ids import NodeId, PeerId, ReplicaId
from fsn.core.merkle import merkle_root
from fsn.core.reconciliation import PrefixSum, replica_digest
from fsn.p2p.client import Requester, open_requester
from fsn.p2p.wire.messages import LossesReported, Refusal, ReportLosses
from fsn.runtime.identity import Identity
from fsn.runtime.supervise import Bell, Rest
from tests.coord.network import CONFIG, Hand, Member, Network, open_network, wait_until

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
SETTINGS = ReconciliationConfig(garbage_at_once=5)


@attrs.define(eq=False)
class Stage:
    """A network with three nodes, a user, and a worker that is stepped by the test."""

    network: Network
    db: Pool
    clock: Hand
    user: Account
    requester: Requester
    worker: Reconciling = attrs.field(init=False)

    def another_worker(self, config: ReconciliationConfig = SETTINGS) -> Reconciling:
        """As another coordinator over the same database would have it."""
        services = self.network.services
        return Reconciling(
            self.db, services.membership, self.requester, self.clock, Random(1), config, PeerId("another"), Bell(),
            services.metrics,
        )  # fmt: skip

    async def round(self, *, hours: float = 27) -> None:
        """Every node is compared once, so long after the last time."""
        self.clock.now += timedelta(hours=hours)
        while not isinstance(await self.worker.step(), Rest):
            pass

    async def put(self, size_bytes: int = 3 * 262_144) -> None:
        """Upload a file: three chunks with three replicas each."""

        async def body() -> AsyncIterator[bytes]:
            yield bytes(size_bytes)

        await self.network.services.uploads.store_stream(self.user.user.id, "f", size_bytes, 3, body())

    async def rows(self, sql: LiteralString, *values: object) -> list[tuple[object, ...]]:
        """Look into the catalogue."""
        return list(await self.db.fetch_all(sql, list(values)))

    async def lost(self) -> set[object]:
        """Replicas that are lost, as the catalogue says."""
        return {row[0] for row in await self.rows("select id from replicas where state = 'lost'")}

    async def garbage(self) -> dict[object, bool]:
        """What is queued for deletion, and whether through the trash."""
        return dict(await self.rows("select replica_id, to_trash from replica_deletions"))  # type: ignore[arg-type]


@pytest.fixture
async def stage(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Nobody but the test lets a worker of reconciliation step, and what is queued for deletion stays queued."""
    monkeypatch.setattr("fsn.coord.upkeep.reconciling.LOOK_SECONDS", 3600.0)

    async def none_due(*_: object) -> tuple[()]:
        return ()

    monkeypatch.setattr("fsn.coord.deleting.due_deletions", none_due)
    clock = Hand(START)
    with trio.fail_after(60):
        async with (
            open_network(pool, CONFIG, nodes=3, clock=clock) as network,
            open_requester(network.services.transport) as requester,
        ):
            stage = Stage(network, pool, clock, await network.user(), requester)
            stage.worker = stage.another_worker()
            await stage.worker.step()
            yield stage


async def stray(member: Member, number: int) -> ReplicaId:
    """Bytes on a node that no catalogue knows."""
    replica, data = ReplicaId(UUID(int=number << 100 | number)), number.to_bytes(4, "big") * 10
    await member.store.store(replica, merkle_root(data), data)
    return replica


async def test_equal_sides_agree_in_one_question(stage: Stage) -> None:
    """Nothing is lost and nothing is garbage; what both have is written down."""
    await stage.put()
    await stage.round()
    rows = await stage.rows("select agreed_count, agreed_bytes, lost_count, garbage_count, rounds from reconciliations")
    assert rows == [(3, 3 * 262_160, 0, 0, 1)] * 3
    assert (await stage.lost(), await stage.garbage()) == (set(), {})


async def test_both_sides_compute_the_same(stage: Stage) -> None:
    """PostgreSQL's sums, lists and digests are those of the node's index, at every level."""
    await stage.put()
    for member in stage.network.nodes:
        assert member.node is not None
        assert await table.sums_by_first_byte(stage.db, member.node) == await member.store.sums()
        assert await table.sums_by_two_bytes(stage.db, member.node, range(256)) == await member.store.sums(range(256))
        held = {chunk.replica: chunk for chunk in await member.store.list()}
        listed = await table.list_within(stage.db, member.node, [int.from_bytes(r.bytes[:2], "big") for r in held])
        assert {each.replica for each in listed} == held.keys()
        for each in listed:
            chunk = held[each.replica]
            assert each.digest == replica_digest(each.replica, chunk.root, chunk.size_bytes)


async def test_exact_losses_are_reported(stage: Stage) -> None:
    """What a node has no more, or holds with other bytes, is lost; nothing else is."""
    await stage.put()
    member = stage.network.nodes[0]
    gone, damaged, _ = await member.replicas()
    await member.store.delete([gone, damaged])
    await member.store.store(damaged, merkle_root(b"other"), b"other")
    await stage.round()
    assert await stage.lost() == {gone, damaged}
    reasons = await stage.rows("select lost_reason from replicas where state = 'lost' order by lost_reason")
    assert reasons == [("reconciliation: damaged",), ("reconciliation: missing",)]
    await stage.round(hours=100)
    assert await stage.garbage() == {}, "a lost replica that lies there is no garbage: it may be the last one"


async def test_garbage_goes_after_it_was_found_twice(stage: Stage) -> None:
    """Not in the first round, not in a second one soon after; then through the trash, and off the node."""
    await stage.put()
    member = stage.network.nodes[1]
    garbage = {await stray(member, number) for number in (1, 2, 3)}
    await stage.round(hours=27)
    await stage.round(hours=27)
    assert await stage.garbage() == {}
    await stage.round(hours=27)
    assert await stage.garbage() == dict.fromkeys(garbage, True)
    await stage.round(hours=100)
    assert await stage.rows("select * from garbage_candidates") == []


async def test_what_is_recorded_meanwhile_is_no_garbage(stage: Stage) -> None:
    """A replica that lay there before its chunk was recorded is forgotten as a candidate when it is."""
    await stage.put()
    ((replica,),) = await stage.rows("select id from replicas limit 1")
    (node,) = (await stage.rows("select node_id from replicas where id = %s", replica))[0]
    await stage.db.execute("create table aside as select * from replicas")
    await stage.db.execute("delete from replicas where id = %s", [replica])
    await stage.round()
    assert [row[0] for row in await stage.rows("select replica_id from garbage_candidates")] == [replica]
    columns: LiteralString = "id, file_id, chunk_index, number, node_id, state, root, sealed_bytes, slot, stored_at"
    await stage.db.execute(f"insert into replicas ({columns}) select {columns} from aside where id = %s", [replica])
    await stage.round()
    await stage.round()
    await stage.round()
    assert (await stage.garbage(), await stage.rows("select * from garbage_candidates")) == ({}, [])
    assert isinstance(node, UUID)


async def test_ordinary_deletions_are_no_garbage(stage: Stage) -> None:
    """What is queued for deletion already goes the ordinary way, past the trash."""
    member = stage.network.nodes[0]
    replica = await stray(member, 5)
    assert member.node is not None
    placed = PlacedReplica(replica, 0, member.node, bytes(32), 40)
    await queue_deletions(stage.db, [placed], stage.clock.now + timedelta(days=30))
    await stage.round()
    assert await stage.rows("select * from garbage_candidates") == []
    assert await stage.garbage() == {replica: False}


async def test_much_garbage_waits_for_an_administrator(stage: Stage) -> None:
    """As after an old backup was put back: nothing is deleted before somebody allows it, and then once."""
    member = stage.network.nodes[2]
    assert member.node is not None
    garbage = {await stray(member, number) for number in range(1, 7)}
    for _ in range(4):
        await stage.round()
    assert await stage.garbage() == {}
    (held,) = await table.garbage_held(stage.db)
    assert (held.node, held.garbage, held.is_allowed) == (member.node, 6, False)
    assert not await table.allow_garbage(stage.db, NodeId(UUID(int=1)), stage.clock.now)
    assert await table.allow_garbage(stage.db, member.node, stage.clock.now)
    await stage.round(hours=1)
    assert await stage.garbage() == dict.fromkeys(garbage, True)
    assert await table.garbage_held(stage.db) == []


async def test_one_coordinator_compares_a_node_at_a_time(stage: Stage) -> None:
    """A second one finds nothing to do meanwhile; when the first has died, it goes on after the lease."""
    node = stage.network.nodes[0].node
    assert node is not None
    await stage.worker.step()
    stage.clock.now += timedelta(hours=2)
    lease = timedelta(minutes=10)

    async def claim(by: str) -> table.Round | None:
        return await table.claim_round(stage.db, [node], PeerId(by), stage.clock.now, lease, timedelta(days=2))

    first = await claim("first")
    assert first is not None
    assert await claim("second") is None
    stage.clock.now += timedelta(minutes=11)
    assert await claim("second") == first
    found = table.Found(PrefixSum(), 0, 0, 0)
    at = stage.clock.now
    assert not await table.end_round(stage.db, first, PeerId("first"), found, (), at=at, next_at=at)
    assert await table.end_round(stage.db, first, PeerId("second"), found, (), at=at, next_at=at)


async def test_agreed_bytes_are_written_day_by_day(stage: Stage) -> None:
    """From the second round on: bytes times seconds, on the days between."""
    await stage.put()
    await stage.round()
    await stage.round()
    rows = await stage.rows("select node_id, sum(byte_seconds), sum(seconds) from agreed_bytes group by node_id")
    assert len(rows) == 3
    for _, byte_seconds, seconds in rows:
        assert isinstance(seconds, int)
        assert seconds == 27 * 3600
        assert byte_seconds == 3 * 262_160 * seconds


async def test_an_upload_under_way_earns_nothing(stage: Stage) -> None:
    """It costs nothing when it is dropped: who stored with himself would be paid for it. Complete, it earns as other files do."""
    sessions, user = stage.network.services.sessions, stage.user.user.id
    upload = await sessions.initiate(user, "f", 262_144, 3)
    await sessions.put_chunk(user, upload.id, 0, bytes(262_144))
    for _ in range(2):
        await stage.round()
    assert set(await stage.rows("select agreed_count, agreed_bytes from reconciliations")) == {(1, 0)}
    assert set(await stage.rows("select distinct byte_seconds from agreed_bytes")) == {(0,)}
    await sessions.complete(user, upload.id)
    await stage.round()
    assert set(await stage.rows("select agreed_count, agreed_bytes from reconciliations")) == {(1, 262_160)}
    (row,) = await stage.rows("select distinct sum(byte_seconds) from agreed_bytes group by node_id")
    assert row == (262_160 * 27 * 3600 // 2,)  # from nothing to all of it, in a straight line


async def test_a_node_that_lies_about_pages_ends_the_round(stage: Stage) -> None:
    """Sums of prefixes that were not asked for are a violation: the round is tried again later, nothing is lost."""
    await stage.put()
    member = stage.network.nodes[0]

    async def wrong(within: object = None) -> dict[int, PrefixSum]:
        return {300: PrefixSum(1, 1, 1, 1)}

    member.store.sums = wrong  # type: ignore[method-assign]
    await stage.round()
    rows = await stage.rows("select rounds, leased_by from reconciliations where node_id = %s", member.node)
    assert (rows, await stage.lost()) == ([(0, None)], set())


async def test_a_node_reports_its_own_losses_only(stage: Stage) -> None:
    """Those that are live on it are lost, with its reason; others' and unknown ones are passed over; again is harmless."""
    await stage.put()
    member, other = stage.network.nodes[:2]
    reports = LossReports(stage.db, stage.network.services.membership, stage.clock)
    own, another = (await member.replicas())[0], (await other.replicas())[0]
    message = ReportLosses({own: "other bytes\n", another: "mine", ReplicaId(UUID(int=5)): "never here"})
    for _ in range(2):
        assert await reports.report_losses(member.identity.peer, message) == LossesReported()
    rows = await stage.rows("select id, lost_reason from replicas where state = 'lost'")
    assert rows == [(own, "node: other bytes")]
    assert isinstance(await reports.report_losses(PeerId("stranger"), message), Refusal)


async def test_a_flood_of_reports_is_bounded(stage: Stage) -> None:
    """While one report of a node is written down, others of the same node are told to come again."""
    await stage.put()
    member = stage.network.nodes[0]
    reports = LossReports(stage.db, stage.network.services.membership, stage.clock)
    answers: list[object] = []

    async def report() -> None:
        answers.append(await reports.report_losses(member.identity.peer, ReportLosses({ReplicaId(UUID(int=5)): "x"})))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(report)
    assert LossesReported() in answers
    assert sum(isinstance(answer, Refusal) for answer in answers) >= 8


async def test_what_a_killed_coordinator_had_sent_is_collected(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas that were durable on nodes, and not recorded when their coordinator died, are off the nodes after some rounds."""
    monkeypatch.setattr("fsn.coord.upkeep.reconciling.LOOK_SECONDS", 3600.0)
    clock, identity, data = Hand(START), Identity.generate(), bytes(3 * 262_144)

    async def never(*_: object) -> None:
        await trio.sleep_forever()

    async def body() -> AsyncIterator[bytes]:
        yield data

    def held(network: Network) -> int:
        return sum(member.store.totals().count for member in network.nodes)

    with trio.fail_after(90):
        with monkeypatch.context() as dying:
            dying.setattr("fsn.coord.recording.Recorder._wait", never)
            dying.setattr("fsn.coord.recording.Recorder._queue_deletions", never)
            async with open_network(pool, CONFIG, nodes=3, clock=clock, identity=identity) as network:
                user = (await network.user()).user.id
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(network.services.uploads.store_stream, user, "f", len(data), 3, body())
                    await wait_until(lambda: held(network) == 9)
                    nursery.cancel_scope.cancel()
                before = network.nodes
        async with open_network(pool, CONFIG, nodes=0, clock=clock, identity=identity) as network:
            clock.now += timedelta(seconds=1)  # a challenge is as old as its second
            for member in before:
                await network.add_node(identity=member.identity, store=member.store)
            async with open_requester(network.services.transport) as requester:
                services, bell = network.services, network.services.files.deletions_due
                worker = Reconciling(
                    pool, services.membership, requester, clock, Random(1), ReconciliationConfig(), PeerId("another"), bell,
                    services.metrics,
                )  # fmt: skip
                assert held(network) == 9
                while held(network):
                    clock.now += timedelta(hours=27)
                    while not isinstance(await worker.step(), Rest):
                        pass
                    await trio.sleep(0.05)
        assert (clock.now - START) > timedelta(hours=48)
