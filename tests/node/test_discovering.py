"""A node finds coordinators that have moved: through another coordinator, through another node, and after a restart of its own."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import attrs
import pytest
import trio
import trio.testing

from fsn.core.ids import PeerId
from fsn.core.reachability import DialOutcome, Reach
from fsn.node.contacts import CONTACTS_NAME, FORGET_AFTER, Contacts, Peer, load_contacts, save_contacts
from fsn.node.discovering import Discovering, open_discovering
from fsn.node.reachability import Reachability
from fsn.node.reporting import Reporting
from fsn.p2p.client import Requester, open_requester
from fsn.p2p.discovery.records import record_key
from fsn.p2p.discovery.service import Discovery, DiscoveryPart
from fsn.p2p.server import RequestHandler, serve_requests
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.memory import MemoryNetwork
from fsn.p2p.wire.messages import Contact, DialBack, DialedBack, Heartbeat, HeartbeatAnswer, Request
from fsn.runtime.clock import virtual_clock
from fsn.runtime.identity import Identity
from fsn.runtime.supervise import supervise
from tests.p2p.discovery.test_discovery import START

NETWORK = "main"


@attrs.define(eq=False)
class Coordinator:
    """Answers heartbeats and dial-backs, and takes part in the DHT; everybody may store."""

    transport: Transport
    discovery: Discovery
    fellows: "list[Coordinator]" = attrs.field(factory=list)

    @property
    def contact(self) -> Contact:
        """Where it is now."""
        return Contact(self.transport.peer, tuple(self.transport.addresses))

    async def heartbeat(self, peer: PeerId, _: Heartbeat) -> HeartbeatAnswer:
        """Names the fellows."""
        return HeartbeatAnswer(coordinators=tuple(each.contact for each in self.fellows))

    async def dial_back(self, peer: PeerId, message: DialBack) -> DialedBack:
        """Every node is reached, and known in the DHT from then on."""
        results = [await self.transport.probe(peer, address) for address in message.addresses]
        if reached := [result.address for result in results if result.outcome == DialOutcome.REACHED]:
            self.discovery.learn(peer, reached)
        return DialedBack("127.0.0.1", tuple(results))


@attrs.define(eq=False)
class Node:
    """As much of a node as finds coordinators."""

    transport: Transport
    reporting: Reporting
    discovering: Discovering
    scope: trio.CancelScope

    def is_connected(self, coordinator: Coordinator) -> bool:
        """Whether it reports there."""
        links = {link.contact.peer: link for link in self.reporting.links}
        return coordinator.transport.peer in links and links[coordinator.transport.peer].is_connected


@attrs.define(eq=False)
class World:
    """Coordinators and nodes in a memory network."""

    memory: MemoryNetwork
    nursery: trio.Nursery

    async def coordinator(self, *known: Contact) -> Coordinator:
        """One that begins its lookups at `known`."""
        identity = Identity.generate()
        coordinator: Coordinator = await self.nursery.start(self._coordinate, identity, known)
        return coordinator

    async def _coordinate(
        self,
        identity: Identity,
        known: tuple[Contact, ...],
        task_status: trio.TaskStatus[Coordinator] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        async def may_store(peer: PeerId) -> bool:
            return True

        async with self.memory.open_transport(identity.peer) as transport:
            part = DiscoveryPart("coordinator", lambda: known, lambda: transport.addresses, may_store, lambda _: True)
            discovery = Discovery(transport, identity, NETWORK, part, virtual_clock(START))
            made = Coordinator(transport, discovery)
            handlers: dict[type[Request], RequestHandler] = {Heartbeat: made.heartbeat, DialBack: made.dial_back}
            serve_requests(transport, handlers, may_ask=lambda _: True)
            task_status.started(made)
            await trio.sleep_forever()

    async def node(self, folder: Path, *pinned: Contact, identity: Identity | None = None) -> Node:
        """One that is told of `pinned` and of what its folder remembers."""
        node: Node = await self.nursery.start(self._run, folder, identity or Identity.generate(), pinned)
        return node

    async def _run(
        self,
        folder: Path,
        identity: Identity,
        pinned: tuple[Contact, ...],
        task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with trio.CancelScope() as scope:
            async with (
                self.memory.open_transport(identity.peer) as transport,
                open_requester(transport) as requester,
                trio.open_nursery() as nursery,
            ):
                node = self._open(transport, requester, identity, folder, pinned, scope)
                nursery.start_soon(node.reporting.run)
                nursery.start_soon(supervise, node.discovering, trio.Event())
                task_status.started(node)
                await trio.sleep_forever()

    def _open(
        self,
        transport: Transport,
        requester: Requester,
        identity: Identity,
        folder: Path,
        pinned: tuple[Contact, ...],
        scope: trio.CancelScope,
    ) -> Node:
        reporting = Reporting(transport, requester, describe=lambda: Heartbeat(0, 0, 1, "test"), rng=Random(1))
        for contact in pinned:
            reporting.add(contact)
        reachability = Reachability(reporting, requester, lambda: transport.addresses, rng=Random(1))
        self.nursery.start_soon(reachability.run)
        discovering = open_discovering(
            transport,
            identity,
            NETWORK,
            reporting=reporting,
            reachability=reachability,
            folder=folder,
            clock=virtual_clock(START),
        )
        return Node(transport, reporting, discovering, scope)

    def move(self, coordinator: Coordinator, address: str) -> None:
        """It listens somewhere else from now on, and nobody is told."""
        self.memory.readdress(coordinator.transport.peer, address)


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time would run on while a thread writes."""

    async def call(function: Callable[..., None], *arguments: object) -> None:
        await trio.lowlevel.checkpoint()
        function(*arguments)

    monkeypatch.setattr("fsn.node.discovering.run_in_thread", call)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Nobody yet."""
    async with trio.open_nursery() as nursery:
        yield World(MemoryNetwork(), nursery)
        nursery.cancel_scope.cancel()


async def until(is_so: Callable[[], bool], seconds: float = 600) -> None:
    """It has to become so, in virtual time."""
    with trio.fail_after(seconds):
        while not is_so():  # noqa: ASYNC110 - virtual time
            await trio.sleep(1)


async def test_a_coordinator_that_moved_is_found_through_another(
    world: World, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """It tells its fellow where it is; a node that was away meanwhile asks the fellow."""
    fellow = await world.coordinator()
    mover = await world.coordinator(fellow.contact)
    node = await world.node(tmp_path, mover.contact, fellow.contact)
    await until(lambda: node.is_connected(mover) and node.is_connected(fellow))
    pinned = mover.contact, fellow.contact
    node.scope.cancel()
    await trio.sleep(60)
    world.move(mover, "10.0.0.9")
    assert await mover.discovery.publish() == 1
    node = await world.node(tmp_path, *pinned, identity=node.discovering.discovery._identity)
    await until(lambda: node.is_connected(mover), seconds=60)
    assert node.discovering.found_at is not None


async def test_a_lonely_coordinator_that_moved_is_found_through_a_node(
    world: World, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """It tells a node that can be reached, which tells another one that was away; both remembered each other's addresses on disk."""
    lonely = await world.coordinator()
    old = lonely.contact
    for name in "ab":
        (tmp_path / name).mkdir()
    helper = await world.node(tmp_path / "a", old)
    await until(lambda: helper.transport.peer in lonely.discovery.table)
    seeker = await world.node(tmp_path / "b", old)
    await until(lambda: bool(load_contacts(tmp_path / "b", START).nodes))
    seeker.scope.cancel()
    await trio.sleep(60)
    world.move(lonely, "10.0.0.9")
    await until(lambda: not helper.is_connected(lonely))
    assert await lonely.discovery.publish() >= 1
    await until(lambda: helper.is_connected(lonely), seconds=10)
    seeker = await world.node(tmp_path / "b", old, identity=seeker.discovering.discovery._identity)
    await until(lambda: seeker.is_connected(lonely), seconds=120)


async def test_a_node_that_can_be_reached_publishes_at_once(
    world: World, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """As soon as a coordinator has said so, and again only with other addresses, or with a look around."""
    coordinator = await world.coordinator()
    node = await world.node(tmp_path, coordinator.contact)
    reachability = node.discovering.reachability
    await until(lambda: reachability.verdict.reach == Reach.DIRECT)
    await trio.sleep(1)
    first = node.discovering.discovery.published
    assert first is not None
    assert first.addresses == reachability.verdict.addresses
    assert coordinator.discovery.store.get(record_key(node.transport.peer), START) is not None
    for _ in range(3):
        await reachability.test()
    await trio.sleep(20)
    assert node.discovering.discovery.published == first
    world.memory.readdress(node.transport.peer, "10.0.0.7")
    await until(lambda: reachability.verdict.addresses not in ((), first.addresses))
    await trio.sleep(1)
    second = node.discovering.discovery.published
    assert second is not None
    assert second.addresses == reachability.verdict.addresses


async def test_a_young_node_meets_neighbours_that_came_later(
    world: World, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """It came first, when nobody was known to be reachable: it looks around again after a minute, and ever less often."""
    coordinator = await world.coordinator()
    young, helper = tmp_path / "young", tmp_path / "helper"
    young.mkdir()
    helper.mkdir()
    seeker = await world.node(young, coordinator.contact)
    looks: list[float] = []
    refresh = seeker.discovering.discovery.refresh

    async def counted() -> int:
        looks.append(trio.current_time())
        return await refresh()

    seeker.discovering.discovery.refresh = counted  # type: ignore[method-assign]
    await until(lambda: seeker.is_connected(coordinator))
    await trio.sleep(5)
    other = await world.node(helper, coordinator.contact)
    await until(lambda: other.transport.peer in coordinator.discovery.table)
    assert other.transport.peer not in seeker.discovering.discovery.table
    await until(lambda: other.transport.peer in seeker.discovering.discovery.table, seconds=90)
    await trio.sleep(2.2 * 3600)
    pauses = [round((after - before) / 60) for before, after in pairwise(looks)]
    assert pauses[-3:] == [30, 30, 30]
    assert pauses[:5] in ([1, 2, 4, 8, 16], [2, 4, 8, 16, 30])


async def test_coordinators_of_an_earlier_life_are_dialled(
    world: World, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Those that a coordinator named and that were connected: the configured one may be gone for good."""
    named = await world.coordinator()
    first = await world.coordinator()
    first.fellows.append(named)
    node = await world.node(tmp_path, first.contact)
    await until(lambda: node.is_connected(named))
    await until(lambda: len(load_contacts(tmp_path, START).coordinators) == 2)
    node.scope.cancel()
    await trio.sleep(60)
    world.memory.kill(first.transport.peer)
    node = await world.node(tmp_path, first.contact)
    await until(lambda: node.is_connected(named), seconds=30)
    assert node.discovering.saved.coordinators


async def test_a_record_of_somebody_else_changes_nothing(
    world: World, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Only coordinators of ours may store here, so that a stranger's record never becomes a contact."""
    ours = await world.coordinator()
    node = await world.node(tmp_path, ours.contact)
    stranger = await world.coordinator(Contact(node.transport.peer, tuple(node.transport.addresses)))
    assert await stranger.discovery.publish() == 0
    assert [link.contact.peer for link in node.reporting.links] == [ours.transport.peer]


async def test_searches_become_rare(world: World, tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A coordinator that is gone for good is looked for every ten minutes in the end."""
    gone, fellow = await world.coordinator(), await world.coordinator()
    node = await world.node(tmp_path, gone.contact, fellow.contact)
    await until(lambda: node.is_connected(gone))
    world.memory.kill(gone.transport.peer)
    await trio.sleep(7200)
    assert node.discovering._searches[gone.transport.peer].pause_seconds == 600


def test_the_file_of_contacts(tmp_path: Path) -> None:
    """It keeps a bounded number, forgets after two months, is private, and a damaged one is as good as none."""
    assert load_contacts(tmp_path, START) == Contacts()
    peers = tuple(Peer(f"p{n}", ("/ip4/192.0.2.1/tcp/1",), START - timedelta(days=n)) for n in range(100))
    save_contacts(tmp_path, Contacts(peers, peers))
    assert (tmp_path / CONTACTS_NAME).stat().st_mode & 0o777 == 0o600
    found = load_contacts(tmp_path, START)
    assert (len(found.coordinators), len(found.nodes)) == (16, 32)
    assert load_contacts(tmp_path, START + FORGET_AFTER - timedelta(days=5, seconds=1)).coordinators == peers[:6]
    (tmp_path / CONTACTS_NAME).write_bytes(b'{"coordinators": 1')
    assert load_contacts(tmp_path, START) == Contacts()
