"""Coordinators that come and go over one database: what they watch, what they leave behind, whom they name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import attrs
import pytest
import trio
import trio.testing

from fsn.coord.config import MembershipConfig
from fsn.coord.database.base import Connect
from fsn.coord.database.node_states import change_status, transitions_of
from fsn.coord.database.presence import silences, watches
from fsn.coord.liveness.watching import Watching
from fsn.core.errors import Unavailable
from fsn.core.ids import NodeId
from fsn.p2p.transport.memory import MemoryNetwork
from fsn.runtime.identity import Identity
from tests.coord.test_membership import START, CountingPool, Network, open_view

CHECKPOINT, SETTLE = 2.0, 15.0
CONFIG = MembershipConfig(checkpoint_seconds=CHECKPOINT, settle_seconds=SETTLE)


@attrs.define(eq=False)
class Watcher:
    """A coordinator with a view of nodes that keeps its watch. Its clock runs with trio's, and may be set."""

    view: Network
    watching: Watching
    clock: trio.testing.MockClock

    async def live(self, seconds: float, *others: "Watcher") -> None:
        """Let so much time pass, with a checkpoint each two seconds, of the others, too."""
        for _ in range(int(seconds / CHECKPOINT)):
            self.clock.jump(CHECKPOINT)
            for each in (self, *others):
                await each.step()

    async def step(self) -> None:
        """What the workers do."""
        for identity in self.view.nodes:
            if self.view.transport.is_connected(identity.peer):
                await self.view.beat(identity)
        await self.view.flush()
        await self.watching.step()

    async def restart(self) -> None:
        """After a kill: nothing is known but what the database knows."""
        self.watching = new_watching(self.view)
        self.view.membership._by_node.clear()
        self.view.membership._by_peer.clear()
        await self.watching.enter()


def new_watching(view: Network) -> Watching:
    """The worker under test."""
    return Watching(
        view.db, view.transport.peer, view.membership, clock=view.wall, config=CONFIG, addresses=lambda: ("/memory/x",)
    )


@asynccontextmanager
async def open_watcher(
    db: CountingPool, memory: MemoryNetwork, clock: trio.testing.MockClock
) -> AsyncIterator[Watcher]:
    """A coordinator over `db` that has just started."""
    async with open_view(db, memory) as view:
        watcher = Watcher(view, new_watching(view), clock)
        await watcher.watching.enter()
        yield watcher


@pytest.fixture
async def one(database_dsn: str, connect: Connect, mock_clock: trio.testing.MockClock) -> AsyncIterator[Watcher]:
    """A coordinator."""
    db = CountingPool(database_dsn, connect)
    async with open_watcher(db, MemoryNetwork(), mock_clock) as watcher:
        yield watcher
    db.close()


async def spans(watcher: Watcher) -> list[tuple[float, float]]:
    """What is watched, in seconds after the start."""
    begin = START.timestamp()
    found = [(first - begin, last - begin) for first, last in await watches(watcher.view.db, START - timedelta(days=1))]
    return sorted((first, last) for first, last in found if first < last)


async def silent_seconds(watcher: Watcher, node: NodeId) -> float | None:
    """For how long a node is silent."""
    found = {each.node: each.watched_seconds for each in await silences(watcher.view.db, watcher.view.wall())}
    return found.get(node)


async def join(watcher: Watcher, *others: Watcher) -> tuple[Identity, NodeId]:
    """A node that all of them hear."""
    identity = await watcher.view.join()
    for other in others:
        await watcher.view.memory.transport(identity.peer).connect(
            other.view.transport.peer, other.view.transport.addresses
        )
        other.view.nodes.append(identity)
    member = await watcher.view.beat(identity)
    return identity, member.node


def lose(watcher: Watcher, identity: Identity) -> None:
    """The connection between them ends."""
    watcher.view.memory.cut(identity.peer, watcher.view.transport.peer)


async def status(watcher: Watcher, node: NodeId) -> tuple[str, str]:
    """A node's state and the reason."""
    newest = (await transitions_of(watcher.view.db, node, None, 1))[0]
    return newest.end, newest.reason


async def test_watching_begins_when_nodes_had_the_time_to_come_back(
    one: Watcher, mock_clock: trio.testing.MockClock
) -> None:
    """The first seconds after a start count for nobody; then each checkpoint lengthens the watch."""
    await one.live(SETTLE - 1)
    assert await spans(one) == []
    await one.live(20)
    assert await spans(one) == [(2 + SETTLE, 34)]


@pytest.mark.parametrize("away_seconds", [8, 12, 3600])
async def test_a_gap_is_no_watch(one: Watcher, away_seconds: float, mock_clock: trio.testing.MockClock) -> None:
    """Stopped, stalled or without a database for longer than ten seconds, it watched nothing meanwhile."""
    await one.live(30)
    one.clock.jump(away_seconds)
    await one.step()
    await one.live(30)
    if away_seconds < CONFIG.stall_seconds:
        assert await spans(one) == [(17, 60 + away_seconds)]
    else:
        assert await spans(one) == [(17, 30), (30 + away_seconds + SETTLE, 60 + away_seconds)]


async def test_without_a_database_there_is_no_watch(one: Watcher, mock_clock: trio.testing.MockClock) -> None:
    """What could not be written was not watched; a node that stayed is still there, and one that went is silent from afterwards on."""
    (_, stays), (goes, gone) = await join(one), await join(one)
    await one.live(30)
    one.view.db.is_away = True
    lose(one, goes)
    for _ in range(20):
        one.clock.jump(5)
        with pytest.raises(Unavailable):
            await one.watching.step()
    one.view.db.is_away = False
    await one.live(40)
    assert await spans(one) == [(17, 30), (147, 170)]
    assert await silent_seconds(one, stays) is None
    assert await silent_seconds(one, gone) == pytest.approx(23)


@pytest.mark.parametrize("set_seconds", [3600, -3600])
async def test_a_clock_that_was_set_is_no_time(
    one: Watcher, set_seconds: float, mock_clock: trio.testing.MockClock
) -> None:
    """Neither is anybody blamed for the hour that never was, nor credited; who is there stays there."""
    (_, stays), (goes, gone) = await join(one), await join(one)
    await one.live(30)
    lose(one, goes)
    await one.live(10)
    one.view.wall_drift = timedelta(seconds=set_seconds)
    await one.live(40)
    assert await silent_seconds(one, stays) is None
    silent = await silent_seconds(one, gone)
    assert silent is not None
    assert silent <= 10 + 40
    assert await status(one, stays) == ("online", "first heartbeat")


async def test_after_a_restart_nobody_is_there_who_has_not_come_back(
    one: Watcher, mock_clock: trio.testing.MockClock
) -> None:
    """What was heard before ended then: the list shows it at once; the state, and blame, come when all had the time to come back."""
    (back, stays), (_, gone) = await join(one), await join(one)
    await one.live(30)
    one.clock.jump(100)
    one.view.nodes[:] = [back]
    await one.restart()
    for node in (stays, gone):
        record = await one.view.db.fetch_one("select status::text, absent_since from nodes where id = %s", [node])
        assert record == ("online", START + timedelta(seconds=30))
    await one.live(4)
    assert await status(one, gone) == ("online", "first heartbeat")
    assert await silent_seconds(one, gone) == 0
    assert await silent_seconds(one, stays) is None
    await one.live(20)
    assert await status(one, gone) == ("offline", "the coordinator that heard it is gone, and no other one does")
    assert await status(one, stays) == ("online", "first heartbeat")
    assert await silent_seconds(one, gone) == pytest.approx(154 - 132 - SETTLE)


async def test_maintenance_ends_by_itself(one: Watcher, mock_clock: trio.testing.MockClock) -> None:
    """Who is back then is online, who is not is offline, and silent from then on."""
    (_, back), (goes, away) = await join(one), await join(one)
    await one.live(30)
    for node in (back, away):
        until = one.view.wall() + timedelta(seconds=60)
        assert await change_status(one.view.db, node, "maintenance", reason="declared", at=one.view.wall(), until=until)
    await one.live(2)
    assert (
        one.view.membership.status(await one.view.full_record(await one.view.beat(one.view.nodes[0]))) == "maintenance"
    )
    lose(one, goes)
    await one.live(80)
    assert (await status(one, back))[0] == "online"
    assert (await status(one, away))[0] == "offline"
    assert await silent_seconds(one, away) == pytest.approx(20, abs=2 * CHECKPOINT)


async def test_two_coordinators_name_each_other(one: Watcher, mock_clock: trio.testing.MockClock) -> None:
    """As long as both are alive; one that stands still is named no more, one that leaves at once."""
    async with open_watcher(one.view.db, one.view.memory, one.clock) as two:
        await one.live(6, two)
        assert [contact.peer for contact in one.watching.others.living()] == [two.view.transport.peer]
        assert one.watching.others.living()[0].addresses == ("/memory/x",)
        await one.live(CONFIG.dead_seconds + 2)
        assert one.watching.others.living() == ()
        await one.live(6, two)
        assert [contact.peer for contact in one.watching.others.living()] == [two.view.transport.peer]
        await two.watching.leave()
        await one.live(2)
        assert one.watching.others.living() == ()


async def test_what_a_dead_coordinator_heard_expires(one: Watcher, mock_clock: trio.testing.MockClock) -> None:
    """Its nodes that the living one hears stay online; the others are absent from its last checkpoint on."""
    async with open_watcher(one.view.db, one.view.memory, one.clock) as two:
        _, both = await join(one, two)
        only_two, lonely = await join(two)
        await one.live(30, two)
        await one.live(CONFIG.dead_seconds + 4)
        assert await status(one, both) == ("online", "first heartbeat")
        assert await status(one, lonely) == ("offline", "the coordinator that heard it is gone, and no other one does")
        assert await silent_seconds(one, lonely) == pytest.approx(CONFIG.dead_seconds + 4)
        # It was stopped, not dead: back, it says again what it hears.
        await two.step()
        await two.step()
        assert (await status(one, lonely))[0] == "online"
        assert await silent_seconds(one, lonely) is None
        lose(two, only_two)
        await one.live(4, two)
        assert (await status(one, lonely))[0] == "offline"


async def test_after_an_outage_of_the_database_nobody_buries_the_others(
    one: Watcher, mock_clock: trio.testing.MockClock
) -> None:
    """Both were away: that the other one's row did not change meanwhile means nothing."""
    async with open_watcher(one.view.db, one.view.memory, one.clock) as two:
        _, lonely = await join(two)
        await one.live(30, two)
        one.clock.jump(600)
        await one.step()
        assert await status(one, lonely) == ("online", "first heartbeat")
        await two.step()
        await one.live(30, two)
        assert await status(one, lonely) == ("online", "first heartbeat")
        assert await silent_seconds(one, lonely) is None


async def test_a_state_set_by_hand_is_put_right(one: Watcher, mock_clock: trio.testing.MockClock) -> None:
    """A node that is reinstated as offline and is heard is online seconds later; every coordinator knows of the change."""
    async with open_watcher(one.view.db, one.view.memory, one.clock) as two:
        identity, node = await join(one, two)
        await one.live(30, two)
        await change_status(one.view.db, node, "disqualified", reason="lies", at=one.view.wall())
        await one.live(2, two)
        member = await two.view.beat(identity)
        assert two.view.membership.status(member.record) == "disqualified"
        await change_status(one.view.db, node, "offline", reason="an error of ours", at=one.view.wall())
        await one.live(4, two)
        assert await status(one, node) == ("online", "is heard")
        assert two.view.membership.status(member.record) == "online"


async def test_the_rows_of_the_forgotten_go(one: Watcher, mock_clock: trio.testing.MockClock) -> None:
    """A coordinator that was not alive for a month has no row any more."""
    async with open_watcher(one.view.db, one.view.memory, one.clock) as two:
        await one.live(10, two)
    await one.live(CONFIG.dead_seconds + 2)
    one.clock.jump(31 * 86_400)
    await one.live(4)
    assert await one.view.db.fetch_all("select peer_id from coordinators") == [(one.view.transport.peer,)]
