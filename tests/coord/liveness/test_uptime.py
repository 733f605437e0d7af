"""Uptime over a month of outages, beside a model that counts minutes and knows neither spans nor tables."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from random import Random

import attrs
import pytest
import trio
import trio.testing

from fsn.coord.config import MembershipConfig
from fsn.coord.database.base import Connect
from fsn.coord.database.node_states import change_status
from fsn.coord.liveness.uptime import EXACT_DAYS, UptimeFolding, uptimes
from fsn.coord.liveness.watching import Watching
from fsn.core.ids import NodeId
from fsn.p2p.transport.memory import MemoryNetwork
from fsn.runtime.identity import Identity
from tests.coord.test_membership import START, CountingPool, Network, open_view

MINUTES = 30 * 24 * 60
CHECKPOINT_MINUTES = 720
SETTLE_MINUTES = 1
CONFIG = MembershipConfig(checkpoint_seconds=CHECKPOINT_MINUTES * 60, settle_seconds=SETTLE_MINUTES * 60)


@attrs.define(eq=False)
class Coordinator:
    """A coordinator that is up at some minutes; what ends an up time is a kill, or that it leaves."""

    view: Network
    up: list[tuple[int, int]]
    watching: Watching | None = None

    def is_up(self, minute: int) -> bool:
        """Whether it runs."""
        return any(begin <= minute < end for begin, end in self.up)

    async def start(self) -> None:
        """It knows nothing but what the database knows."""
        view = self.view
        self.watching = Watching(
            view.db, view.transport.peer, view.membership, clock=view.wall, config=CONFIG, addresses=tuple
        )
        view.membership._by_node.clear()
        view.membership._by_peer.clear()
        await self.watching.enter()
        await self.watching.step()

    async def stop(self, *, is_killed: bool) -> None:
        """The last checkpoint before a kill is never older than seconds."""
        assert self.watching is not None
        await self.watching.step()
        if not is_killed:
            await self.watching.leave()
        self.watching = None


@attrs.define(eq=False)
class Node:
    """A node that is up at some minutes, and in maintenance at some."""

    identity: Identity
    node: NodeId
    up: list[tuple[int, int]]
    maintenance: tuple[int, int]

    def is_up(self, minute: int) -> bool:
        """Whether it runs."""
        return any(begin <= minute < end for begin, end in self.up)


def spells(chance: Random, mean_up: float, mean_down: float, first: int) -> Iterator[tuple[int, int]]:
    """Times of being up, in minutes."""
    at = first
    while at < MINUTES:
        end = at + 1 + int(chance.expovariate(1 / mean_up))
        yield at, min(end, MINUTES)
        at = end + 1 + int(chance.expovariate(1 / mean_down))


def model(node: Node, coordinators: list[Coordinator]) -> tuple[list[bool], list[bool]]:
    """For each minute: whether it counts, and whether the node was there then."""
    counted, present = [False] * MINUTES, [False] * MINUTES
    heard_first = next(m for m in range(MINUTES) if node.is_up(m) and any(each.is_up(m) for each in coordinators))
    watched = [False] * MINUTES
    for coordinator in coordinators:
        for begin, end in coordinator.up:
            for minute in range(begin + SETTLE_MINUTES, end):
                watched[minute] = True
    for minute in range(heard_first, MINUTES):
        counted[minute] = watched[minute] and not node.maintenance[0] <= minute < node.maintenance[1]
        present[minute] = counted[minute] and node.is_up(minute)
    return counted, present


KINDS = [(2000, 100), (1000, 500), (300, 300), (60, 30 * 24)]
"""Nodes by how long they are up and down, in minutes; the default run has the first two."""


@pytest.mark.parametrize(
    ("seed", "kinds"),
    [(1, 2), pytest.param(2, 4, marks=pytest.mark.slow), pytest.param(3, 4, marks=pytest.mark.slow)],
)
async def test_a_month_of_outages(
    database_dsn: str, connect: Connect, seed: int, kinds: int, mock_clock: trio.testing.MockClock
) -> None:
    """Nodes go and come back, two coordinators are killed, stopped and started, days are folded meanwhile: any window is right to 1 %."""
    chance, db, memory = Random(seed), CountingPool(database_dsn, connect), MemoryNetwork()
    async with open_view(db, memory) as first, open_view(db, memory) as second:
        coordinators = [
            Coordinator(first, list(spells(chance, 6000, 200, 0))),
            Coordinator(second, list(spells(chance, 4000, 900, 2000))),
        ]
        nodes = [await new_node(first, chance, *means) for means in KINDS[:kinds]]
        await live(mock_clock, coordinators, nodes, chance)
        begin, end = START, START + timedelta(minutes=MINUTES)
        assert first.wall() == end
        (folded,) = await db.fetch_all("select min(unfolded_from), max(unfolded_from) from nodes")
        assert folded == ((end - timedelta(days=EXACT_DAYS)).date(),) * 2
        assert await db.fetch_one(
            "select count(*) from node_presences where ended_at < %s", [end - timedelta(days=4)]
        ) == (0,)
        windows = [(MINUTES - minutes, MINUTES) for minutes in (60, 1440, 3 * 1440, 7 * 1440, MINUTES)]
        for _ in range(30):
            length = chance.randint(24 * 60, MINUTES)
            at = chance.randint(0, MINUTES - length)
            windows.append((at, at + length))
        models = {node.node: model(node, coordinators) for node in nodes}
        for a, b in windows:
            found = await uptimes(db, list(models), begin + timedelta(minutes=a), begin + timedelta(minutes=b))
            for node, (counted, present) in models.items():
                expected, share = sum(counted[a:b]), found[node].share
                assert found[node].counted_seconds / 60 == pytest.approx(expected, rel=0.01, abs=30)
                if expected >= 30:
                    assert share == pytest.approx(sum(present[a:b]) / expected, abs=0.01), (seed, a, b)
    db.close()


async def new_node(view: Network, chance: Random, mean_up: float, mean_down: float) -> Node:
    """Registered now."""
    identity = await view.join()
    view.memory.cut(identity.peer, view.transport.peer)
    row = await view.db.fetch_one("select id from nodes where peer_id = %s", [identity.peer])
    assert row is not None
    maintenance = chance.randint(10_000, 30_000)
    return Node(identity, NodeId(row[0]), list(spells(chance, mean_up, mean_down, 3)), (maintenance, maintenance + 600))


async def live(
    clock: trio.testing.MockClock, coordinators: list[Coordinator], nodes: list[Node], chance: Random
) -> None:
    """All events in the order of their minutes, with checkpoints between."""
    edges = {minute for each in coordinators for span in each.up for minute in span}
    edges |= {minute for each in nodes for span in each.up for minute in span}
    edges |= {minute for node in nodes for minute in node.maintenance}
    edges |= set(range(0, MINUTES, CHECKPOINT_MINUTES)) | {MINUTES}
    minutes = sorted(edges)
    folding = UptimeFolding(coordinators[0].view.db, coordinators[0].view.wall)
    for minute, following in pairwise([*minutes, MINUTES + 1]):
        clock.jump(minute * 60 - trio.current_time())
        await declare(minute, coordinators[0].view, nodes)
        for coordinator in coordinators:
            if coordinator.watching is not None and not coordinator.is_up(minute):
                await coordinator.stop(is_killed=chance.random() < 0.7)
        for coordinator in coordinators:
            if coordinator.watching is None and coordinator.is_up(minute):
                await coordinator.start()
        for coordinator in coordinators:
            for node in nodes:
                await put(coordinator, node, is_up=node.is_up(minute))
            if coordinator.watching is not None:
                await coordinator.view.flush()
                if minute % CHECKPOINT_MINUTES == 0:
                    await coordinator.watching.step()
        while minute % 1440 == 0 and await folding.step() is None:
            pass
        assert following > minute


async def declare(minute: int, view: Network, nodes: list[Node]) -> None:
    """Maintenance begins at the minute that the node chose; that it ends is the coordinators' to see."""
    for node in nodes:
        if minute == node.maintenance[0]:
            until = START + timedelta(minutes=node.maintenance[1])
            await change_status(view.db, node.node, "maintenance", reason="declared", at=view.wall(), until=until)
        if minute == node.maintenance[1]:
            await change_status(view.db, node.node, "online", reason="over", at=view.wall())


async def put(coordinator: Coordinator, node: Node, *, is_up: bool) -> None:
    """Connect or cut the two, and let a node that is there say so."""
    view, peer = coordinator.view, node.identity.peer
    if is_up and coordinator.watching is not None:
        if not view.transport.is_connected(peer):
            await view.memory.transport(peer).connect(view.transport.peer, view.transport.addresses)
        await view.beat(node.identity)
    elif view.transport.is_connected(peer):
        view.memory.cut(peer, view.transport.peer)
