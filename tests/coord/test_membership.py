"""Who is in the network: heard, silent, suspect, judged; and what the database learns of it."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from fsn.coord.catalog import NodeRecord, NodeStatus
from fsn.coord.config import MembershipConfig, PlacementConfig
from fsn.coord.database.base import Connect, Connection
from fsn.coord.database.node_states import transitions_of
from fsn.coord.database.nodes import node_by_id
from fsn.coord.database.pool import Pool, PoolConfig
from fsn.coord.handlers import NodeHandlers
from fsn.coord.liveness.sightings import SightingRecording
from fsn.coord.membership import REFRESH_SECONDS, Member, Membership
from fsn.coord.registration import SIGNED_PREFIX, NodeApplication, Registrar
from fsn.core.errors import Invalid, TooFewNodes, Unavailable
from fsn.core.ids import NodeId, PeerId
from fsn.p2p.client import open_requester
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.memory import MemoryNetwork
from fsn.p2p.wire.messages import Heartbeat, HeartbeatAnswer, Refusal, RefusalCode
from fsn.runtime.clock import virtual_clock
from fsn.runtime.identity import Identity

START = datetime(2030, 1, 1, tzinfo=UTC)
SILENT_SECONDS = 30
STALL_SECONDS = 40
SUSPECT_SECONDS = 20
FREE = 10**9


class CountingPool(Pool):
    """A real pool that counts visits to the server, and is away when told to."""

    def __init__(self, dsn: str, connect: Connect) -> None:
        super().__init__(dsn, PoolConfig(size=4), connect)
        self.visits = 0
        self.is_away = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.visits += 1
        if self.is_away:
            raise Unavailable("the server is away")
        async with super().connection() as connection:
            yield connection


@attrs.define(eq=False)
class Network:
    """A coordinator's view, and the nodes it may hear of. Time is trio's, moved by hand."""

    db: CountingPool
    memory: MemoryNetwork
    transport: Transport
    membership: Membership
    recording: SightingRecording
    nursery: trio.Nursery
    wall_drift: timedelta = timedelta()
    nodes: list[Identity] = attrs.field(factory=list)

    def wall(self) -> datetime:
        """The time of day."""
        return virtual_clock(START)() + self.wall_drift

    async def join(self, *, region: str | None = None) -> Identity:
        """A registered node, connected."""
        identity = Identity.generate()
        registrar = Registrar(
            self.db, clock=self.wall, key=b"k" * 32, random_bytes=Random().randbytes, coordinator=PeerId("c")
        )
        nonce = registrar.challenge(identity.public_key).nonce
        signature = identity.sign(SIGNED_PREFIX + nonce + identity.public_key)
        await registrar.register(NodeApplication(identity.public_key, "n", 1 << 40, region, None, nonce, signature))
        await self.connect(identity)
        self.nodes.append(identity)
        return identity

    async def connect(self, identity: Identity) -> None:
        """Let it dial the coordinator."""
        await self.nursery.start(self._live, identity)

    async def _live(self, identity: Identity, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with self.memory.open_transport(identity.peer) as node:
            await node.connect(self.transport.peer, self.transport.addresses)
            task_status.started()
            await trio.sleep_forever()

    async def beat(self, identity: Identity, **facts: Any) -> Member:
        """A heartbeat of a registered node."""
        member = await self.membership.heard(identity.peer, heartbeat(**facts))
        assert member is not None
        return member

    async def members(self, count: int) -> list[Member]:
        """So many registered nodes, all heard of just now."""
        return [await self.beat(await self.join()) for _ in range(count)]

    async def flush(self) -> None:
        """One step of the worker that writes."""
        await self.recording.step()

    async def record(self, member: Member) -> NodeRecord:
        """What the database has."""
        found = await self.db.fetch_all(
            "select status::text, used_bytes, last_seen_at from nodes where id = %s", [member.node]
        )
        status, used_bytes, last_seen_at = found[0]
        return attrs.evolve(member.record, status=status, used_bytes=used_bytes, last_seen_at=last_seen_at)

    async def full_record(self, member: Member) -> NodeRecord:
        """Its whole row."""
        found = await node_by_id(self.db, member.node)
        assert found is not None
        return found

    async def judge(self, member: Member, status: str) -> None:
        """Change a node's status behind the back of this coordinator."""
        await self.db.execute("update nodes set status = %s where id = %s", [status, member.node])

    def chosen(self, copies: int, size_bytes: int = 1000, **options: Any) -> set[NodeId]:
        """Where a chunk would go now."""
        return set(self.membership.choose(copies, size_bytes, **options))


def heartbeat(**facts: Any) -> Heartbeat:
    """What a healthy node says."""
    return Heartbeat(**{"chunk_count": 1, "used_bytes": 5, "free_bytes": FREE, "version": "1", **facts})


@asynccontextmanager
async def open_view(db: CountingPool, memory: MemoryNetwork) -> AsyncIterator[Network]:
    """One coordinator over `db`."""
    async with (
        memory.open_transport(Identity.generate().peer) as transport,
        open_requester(transport) as requester,
        trio.open_nursery() as nursery,
    ):
        membership = Membership(
            db, transport, requester, clock=lambda: view.wall(), chance=Random(3),
            config=MembershipConfig(silent_after_seconds=SILENT_SECONDS, suspect_seconds=SUSPECT_SECONDS),
            placement=PlacementConfig(sample_nodes=10),
        )  # fmt: skip
        recording = SightingRecording(membership, db, transport.peer, stall_seconds=STALL_SECONDS)
        view = Network(db, memory, transport, membership, recording, nursery)
        yield view
        nursery.cancel_scope.cancel()


@pytest.fixture
async def network(database_dsn: str, connect: Connect) -> AsyncIterator[Network]:
    """A coordinator without nodes. Its tests move `mock_clock` by hand: PostgreSQL works in real time."""
    db = CountingPool(database_dsn, connect)
    async with open_view(db, MemoryNetwork()) as network:
        yield network
    db.close()


async def test_a_stranger_is_no_member(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """A peer that never registered is not known, whatever it says, and is told to register."""
    stranger = Identity.generate()
    await network.connect(stranger)
    assert await network.membership.heard(stranger.peer, heartbeat()) is None
    assert network.membership.counts == {"known": 0, "online": 0}
    answer = await NodeHandlers(network.membership, lambda: ()).heartbeat(stranger.peer, heartbeat())
    assert isinstance(answer, Refusal)
    assert answer.code == RefusalCode.NOT_AUTHORISED


async def test_a_node_is_online_while_it_is_heard(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """Silent for half a minute, or cut off, it is not; one heartbeat brings it back. Each change is logged once."""
    identity = await network.join()
    with capture_logs() as logs:
        member = await network.beat(identity)
        for _ in range(5):
            mock_clock.jump(SILENT_SECONDS - 1)
            await network.beat(identity)
            assert network.membership.is_online(member)
        mock_clock.jump(SILENT_SECONDS)
        assert not network.membership.is_online(member)
        assert network.membership.is_connected(member)
        for _ in range(3):
            await network.flush()
        await network.beat(identity)
        assert network.membership.is_online(member)
        network.memory.cut(identity.peer, network.transport.peer)
        assert not network.membership.is_online(member)
        await network.flush()
    events = [entry["event"] for entry in logs if entry["event"].startswith("node_o")]
    assert events == ["node_online", "node_offline", "node_online", "node_offline"]


async def test_the_status_shown_is_what_is_known_best(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """What is judged stays; else what this coordinator sees; else what another one does; else nothing."""
    [member] = await network.members(1)
    status = network.membership.status
    judgements: list[NodeStatus] = ["maintenance", "draining", "left", "disqualified"]
    for judged in judgements:
        assert status(attrs.evolve(member.record, status=judged)) == judged
    assert status(member.record) == "online"
    elsewhere = attrs.evolve(member.record, id=NodeId(UUID(int=5)))
    now = network.wall()
    cases: list[tuple[NodeStatus, datetime | None, NodeStatus]] = [
        ("joining", now, "joining"),
        ("joining", None, "online"),
        ("online", None, "online"),
        ("online", now, "offline"),
        ("offline", now, "offline"),
        ("offline", None, "online"),
    ]
    for written, absent_since, shown in cases:
        seen = attrs.evolve(elsewhere, status=written, absent_since=absent_since)
        assert status(seen) == shown, (written, absent_since)


@pytest.mark.parametrize("status", ["maintenance", "draining", "left", "disqualified"])
async def test_a_judged_node_gets_no_chunks(network: Network, status: str, mock_clock: trio.testing.MockClock) -> None:
    """Judged before it came, or while it is here: then within a minute. Reinstated, it is taken again."""
    judged, good = await network.members(2)
    await network.judge(judged, status)
    mock_clock.jump(REFRESH_SECONDS)
    for identity in network.nodes:
        await network.beat(identity)
    assert network.chosen(2) == {good.node}
    await network.judge(judged, "offline")
    mock_clock.jump(REFRESH_SECONDS)
    for identity in network.nodes:
        await network.beat(identity)
    assert network.chosen(2) == {judged.node, good.node}


async def test_what_changes_in_the_catalogue_is_not_asked_at_each_heartbeat(
    network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """A thousand nodes every ten seconds are no hundred queries a second; and without a database the nodes stay."""
    identity = await network.join()
    member = await network.beat(identity)
    before = network.db.visits
    for _ in range(5):
        mock_clock.jump(10)
        await network.beat(identity)
    assert network.db.visits == before
    network.db.is_away = True
    mock_clock.jump(REFRESH_SECONDS)
    assert await network.beat(identity) is member
    assert network.membership.is_online(member)


async def test_a_node_that_drains_gets_no_chunks(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """From its own word on, until it takes it back."""
    draining, good = await network.members(2)
    await network.beat(network.nodes[0], draining=True)
    assert network.chosen(2) == {good.node}
    await network.beat(network.nodes[0], draining=False)
    assert network.chosen(2) == {draining.node, good.node}


async def test_a_suspect_is_passed_over_while_there_are_others(
    network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """It is taken when there are too few, beside all that are trusted, and forgiven after a while."""
    members = await network.members(6)
    suspects, trusted = members[:4], members[4:]
    for member in suspects:
        network.membership.suspect(member.node)
    for _ in range(20):
        assert network.chosen(2) == {member.node for member in trusted}
        three = network.chosen(3)
        assert len(three) == 3
        assert {member.node for member in trusted} < three
    mock_clock.jump(SUSPECT_SECONDS)
    found = {node for _ in range(50) for node in network.chosen(1)}
    assert found == {member.node for member in members}


async def test_of_many_nodes_some_are_looked_at_and_all_when_these_are_not_enough(
    network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """Everybody's turn comes; a suspect is not taken while anybody is trusted, looked at or not; who has room is found."""
    members = await network.members(25)
    for member in members[:20]:
        network.membership.suspect(member.node)
    trusted = {member.node for member in members[20:]}
    for _ in range(20):
        assert network.chosen(5) == trusted
    assert len(network.chosen(6) - trusted) == 1
    mock_clock.jump(SUSPECT_SECONDS)
    assert {node for _ in range(200) for node in network.chosen(3)} == {member.node for member in members}
    for member in members[1:]:
        network.membership.spend(member.node, FREE)
    assert network.chosen(1, 1000) == {members[0].node}


async def test_new_data_follows_reputation(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """Half as much for a score half-way to its threshold, a twentieth for a node that is not vetted, which still fills a shortage;
    nothing for a suspended one."""
    members = await network.members(4)
    proven, doubtful, new, suspended = (member.node for member in members)
    await network.db.execute("update nodes set vetted_at = now() where id <> %s", [new])
    await network.db.execute("update nodes set reputation = 0.98 where id = %s", [doubtful])
    await network.db.execute("update nodes set suspended_at = now() where id = %s", [suspended])
    mock_clock.jump(REFRESH_SECONDS)
    for identity in network.nodes:
        await network.beat(identity)
    drawn = Counter(node for _ in range(6000) for node in network.chosen(1))
    assert drawn[doubtful] / drawn[proven] == pytest.approx(0.5, rel=0.1)
    assert drawn[new] / drawn[proven] == pytest.approx(0.05, rel=0.3)
    assert suspended not in drawn
    assert network.chosen(3) == {proven, doubtful, new}


async def test_what_is_excluded_is_not_chosen(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """Neither nodes that were tried nor those that have a copy already, suspect or not."""
    one, two, three = await network.members(3)
    network.membership.suspect(three.node)
    assert network.chosen(3, without=frozenset({one.node}), beside=(two.node,)) == {three.node}


async def test_room_that_was_just_used_counts(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """Until the node's next heartbeat says itself what is free."""
    [member] = await network.members(1)
    network.membership.spend(member.node, FREE - 500)
    assert network.chosen(1, 1000) == set()
    assert network.chosen(1, 500) == {member.node}
    await network.beat(network.nodes[0])
    assert network.chosen(1, 1000) == {member.node}


async def test_too_few_nodes_are_told_with_both_numbers(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """Silent ones do not count."""
    await network.members(2)
    network.membership.require(2)
    with pytest.raises(TooFewNodes) as caught:
        network.membership.require(3)
    assert caught.value.facts == {"wanted": 3, "found": 2}
    mock_clock.jump(SILENT_SECONDS)
    with pytest.raises(TooFewNodes):
        network.membership.require(1)


async def test_many_sightings_are_one_visit(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """However many nodes were heard, and one more when any came; none when nothing was."""
    members = await network.members(20)
    before = network.db.visits
    await network.flush()
    assert network.db.visits == before + 2
    for identity in network.nodes:
        await network.beat(identity)
    before = network.db.visits
    await network.flush()
    assert network.db.visits == before + 1
    await network.flush()
    assert network.db.visits == before + 1
    for member in members:
        record = await network.record(member)
        assert (record.status, record.used_bytes, record.last_seen_at) == ("online", 5, network.wall())


async def test_what_could_not_be_written_is_written_later(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """An outage loses no sighting, and what was heard meanwhile wins."""
    one, two = await network.members(2)
    network.db.is_away = True
    with pytest.raises(Unavailable):
        await network.flush()
    await network.beat(network.nodes[1], used_bytes=7)
    network.db.is_away = False
    await network.flush()
    assert (await network.record(one)).used_bytes == 5
    assert (await network.record(two)).used_bytes == 7


async def test_an_older_sighting_never_replaces_a_newer(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """The node moved to another coordinator: that the first one misses it is no news."""
    async with open_view(network.db, network.memory) as other:
        await network.members(1)
        await network.flush()
        mock_clock.jump(10)
        identity = network.nodes[0]
        network.memory.cut(identity.peer, network.transport.peer)
        await network.memory.transport(identity.peer).connect(other.transport.peer, other.transport.addresses)
        there = await other.beat(identity, used_bytes=99)
        await other.flush()
        await network.flush()
        record = await other.record(there)
        assert (record.status, record.used_bytes) == ("online", 99)


async def test_a_clock_that_was_set_back_a_little_hides_no_absence(
    network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """That a node has gone is written though the clock was corrected between hearing and missing it."""
    [member] = await network.members(1)
    await network.flush()
    network.wall_drift = timedelta(milliseconds=-5)
    mock_clock.jump(SILENT_SECONDS)
    await network.flush()
    assert (await network.record(member)).status == "offline"


async def test_who_is_heard_by_any_coordinator_is_online(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """Whichever of two loses it first; lost by both, it is offline from when the last one heard it, on record once, with the reason."""
    async with open_view(network.db, network.memory) as other:
        [member] = await network.members(1)
        identity = network.nodes[0]
        await network.memory.transport(identity.peer).connect(other.transport.peer, other.transport.addresses)
        await other.beat(identity)
        for view in (network, other, network):
            await view.flush()
        mock_clock.jump(5)
        network.memory.cut(identity.peer, network.transport.peer)
        await network.flush()
        assert (await network.record(member)).status == "online"
        assert network.membership.status(await network.full_record(member)) == "online"
        mock_clock.jump(5)
        network.memory.cut(identity.peer, other.transport.peer)
        await other.flush()
        record = await network.full_record(member)
        assert (record.status, record.absent_since) == ("offline", START + timedelta(seconds=10))
        entries = await transitions_of(network.db, member.node, None, 10)
        assert [(entry.end, entry.reason, entry.coordinator) for entry in entries] == [
            ("offline", "the connection was lost", other.transport.peer),
            ("online", "first heartbeat", network.transport.peer),
            ("joining", "registered", "c"),
        ]


async def test_each_change_is_on_record_with_its_reason(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """First heard, silent, heard again, cut off."""
    [member] = await network.members(1)
    await network.flush()
    mock_clock.jump(10)
    await network.beat(network.nodes[0])
    await network.flush()
    mock_clock.jump(SILENT_SECONDS)
    await network.flush()
    record = await network.full_record(member)
    assert (record.status, record.absent_since) == ("offline", START + timedelta(seconds=10))
    mock_clock.jump(STALL_SECONDS - 1)
    await network.flush()
    await network.beat(network.nodes[0])
    await network.flush()
    network.memory.cut(network.nodes[0].peer, network.transport.peer)
    await network.flush()
    reasons = [(entry.end, entry.reason) for entry in await transitions_of(network.db, member.node, None, 10)]
    assert reasons[::-1] == [
        ("joining", "registered"),
        ("online", "first heartbeat"),
        ("offline", "nothing heard for 30 s"),
        ("online", "heard again after 1 min 9 s"),
        ("offline", "the connection was lost"),
    ]


async def test_a_stall_of_the_coordinator_blames_nobody(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """Stopped for longer than a node may be silent, it does not judge before it has listened for so long again."""
    [member] = await network.members(1)
    await network.flush()
    mock_clock.jump(1000)
    await network.flush()
    assert network.membership.is_online(member)
    assert (await network.record(member)).status == "online"
    mock_clock.jump(SILENT_SECONDS)
    await network.flush()
    assert (await network.record(member)).status == "offline"


async def test_a_change_that_may_not_have_been_written_is_written_again(
    network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """The database was away when a node went, and it came back before that: no trace of it; or it stays away, and that is written."""
    [member] = await network.members(1)
    await network.flush()
    for comes_back in (True, False):
        mock_clock.jump(1)
        network.memory.cut(network.nodes[0].peer, network.transport.peer)
        network.db.is_away = True
        with pytest.raises(Unavailable):
            await network.flush()
        network.db.is_away = False
        if comes_back:
            await network.memory.transport(network.nodes[0].peer).connect(
                network.transport.peer, network.transport.addresses
            )
            await network.beat(network.nodes[0])
        await network.flush()
        assert (await network.record(member)).status == ("online" if comes_back else "offline")


async def test_a_judgement_is_not_overwritten_by_a_sighting(
    network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """A disqualified node that is here stays disqualified."""
    [member] = await network.members(1)
    await network.judge(member, "disqualified")
    await network.flush()
    assert (await network.record(member)).status == "disqualified"


@pytest.mark.parametrize(
    "facts",
    [{"version": "1\0"}, {"version": "\x1b[31m"}, {"addresses": ("/ip4/\0",)}, {"addresses": ("/ip4/a /ip4/b",)}],
    ids=ascii,
)
async def test_a_hostile_heartbeat_is_refused(
    network: Network, facts: dict[str, Any], mock_clock: trio.testing.MockClock
) -> None:
    """Text that the database cannot take, or that would be two addresses, stops neither the worker nor the coordinator."""
    identity = await network.join()
    handlers = NodeHandlers(network.membership, lambda: ())
    with pytest.raises(Invalid):
        await handlers.heartbeat(identity.peer, heartbeat(**facts))
    good = await handlers.heartbeat(identity.peer, heartbeat(addresses=("/ip4/192.0.2.1/tcp/4001",)))
    assert isinstance(good, HeartbeatAnswer)
    await network.flush()
    assert await network.db.fetch_one("select version, addresses from nodes") == ("1", ["/ip4/192.0.2.1/tcp/4001"])


async def test_reads_are_counted_while_they_last(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """Also when they fail."""
    [member] = await network.members(1)
    with pytest.raises(OSError, match="x"), network.membership.reading(member):
        assert member.reads == 1
        raise OSError("x")
    assert member.reads == 0
