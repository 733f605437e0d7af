"""A node stays in touch with its coordinators, in virtual time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random

import pytest
import trio

from fsn.core.errors import PeerRefused, PeerTimeout, Unreachable
from fsn.core.ids import PeerId
from fsn.core.reachability import DialResult
from fsn.node.reporting import FORGET_SECONDS, MAX_COORDINATORS, Reporting, redial_pause
from fsn.p2p.transport.base import Stream, StreamHandler, Transport
from fsn.p2p.wire.messages import Contact, Heartbeat, HeartbeatAnswer, Request, Response

US, THEM, OTHER = PeerId("us"), PeerId("them"), PeerId("other")
CONTACT = Contact(THEM, ("/ip4/127.0.0.1/tcp/1",))


class SwitchedTransport(Transport):
    """Connections that a test makes possible or impossible; dials are noted with their time."""

    def __init__(self) -> None:
        self.is_up = True
        self.gone: set[PeerId] = set()
        """Who cannot be reached though all is up."""
        self.hangs = False
        """Dials get no answer at all."""
        self.dials: list[float] = []
        self.goes_out_from = "192.0.2.1"
        self._gone: dict[PeerId, trio.Event] = {}

    peer = US
    addresses = ("/ip4/127.0.0.1/tcp/2",)

    def cut(self) -> None:
        """End all connections; new ones are refused."""
        self.is_up = False
        for gone in self._gone.values():
            gone.set()
        self._gone.clear()

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        raise NotImplementedError

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        self.dials.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if not self.is_up or peer in self.gone:
            raise Unreachable(f"{peer} is not there")
        self._gone.setdefault(peer, trio.Event())

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        raise NotImplementedError

    def is_connected(self, peer: PeerId) -> bool:
        return peer in self._gone

    def connected_address(self, peer: PeerId) -> str | None:
        return None

    def local_address(self, peer: PeerId) -> str | None:
        return self.goes_out_from if peer in self._gone else None

    async def probe(self, peer: PeerId, address: str) -> DialResult:
        raise NotImplementedError

    async def wait_disconnected(self, peer: PeerId) -> None:
        if (gone := self._gone.get(peer)) is not None:
            await gone.wait()

    async def disconnect(self, peer: PeerId) -> None:
        await trio.lowlevel.checkpoint()
        if (gone := self._gone.pop(peer, None)) is not None:
            gone.set()


class Coordinator:
    """Answers heartbeats as told; notes when they came and from whom they were wanted."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, PeerId]] = []
        self.answer = HeartbeatAnswer(earned_micro_credits=7)
        self.is_silent = False
        self.refuses = False

    async def request(self, peer: PeerId, message: Request, *, within_seconds: float) -> Response:
        assert isinstance(message, Heartbeat)
        self.heard.append((trio.current_time(), peer))
        if self.is_silent:
            await trio.sleep(within_seconds)
            raise PeerTimeout("silence")
        if self.refuses:
            raise PeerRefused("unknown node", refusal="NOT_AUTHORISED")
        return self.answer


@asynccontextmanager
async def reporting(transport: SwitchedTransport, coordinator: Coordinator) -> AsyncIterator[Reporting]:
    """A running `Reporting` that knows one coordinator."""
    found = Reporting(transport, coordinator, describe=lambda: Heartbeat(1, 2, 3, "test"), rng=Random(7))
    found.add(CONTACT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        yield found
        nursery.cancel_scope.cancel()


@pytest.fixture
def transport() -> SwitchedTransport:
    """One that lets us through."""
    return SwitchedTransport()


@pytest.fixture
def coordinator() -> Coordinator:
    """One that answers."""
    return Coordinator()


async def test_a_heartbeat_every_ten_seconds(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator
) -> None:
    """Connected, the node sends a heartbeat at once and then every 10 s, over one connection."""
    async with reporting(transport, coordinator) as found:
        await trio.sleep(35)
    assert [at for at, _ in coordinator.heard] == [0, 10, 20, 30]
    assert len(transport.dials) == 1
    (link,) = found.links
    assert link.is_connected
    assert link.earned_micro_credits == 7


async def test_a_lost_connection_is_redialled_at_once(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator
) -> None:
    """For five minutes after a loss the pause between dials is half a second to a second."""
    async with reporting(transport, coordinator) as found:
        await trio.sleep(5)
        transport.cut()
        await trio.sleep(290)
        dials = transport.dials[1:]
        assert not found.links[0].is_connected
        assert found.links[0].failure == "them is not there"
    assert all(0.5 <= later - earlier <= 1 for earlier, later in pairwise(dials))
    assert 290 <= len(dials) <= 580


async def test_a_connection_whose_own_address_is_gone_is_given_up_at_once(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator
) -> None:
    """One that goes out from an address that is still there is left alone; the other is dialled anew without waiting."""
    async with reporting(transport, coordinator) as found:
        await trio.sleep(5)
        await found.redial(frozenset({"192.0.2.1", "192.0.2.2"}))
        await trio.sleep(1)
        assert len(transport.dials) == 1
        transport.goes_out_from = "192.0.2.9"
        await found.redial(frozenset({"192.0.2.2"}))
        await trio.sleep(2)
        assert len(transport.dials) == 2
        assert found.links[0].is_connected


async def test_new_addresses_end_the_pause_before_a_dial(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator
) -> None:
    """After hours without a network the coordinator is dialled the moment that there is one."""
    transport.is_up = False
    async with reporting(transport, coordinator) as found:
        await trio.sleep(7200)
        transport.is_up = True
        now = trio.current_time()
        await found.redial(frozenset({"192.0.2.2"}))
        await trio.sleep(0.5)
        assert found.links[0].is_connected
        assert transport.dials[-1] == now


async def test_a_long_absence_is_dialled_once_a_minute_for_ever(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator
) -> None:
    """After hours the pause is half a minute to a minute, and a coordinator that is back is found within one."""
    transport.is_up = False
    async with reporting(transport, coordinator) as found:
        await trio.sleep(24 * 3600)
        late = transport.dials[-10:]
        assert all(30 <= after - before <= 60 for before, after in pairwise(late))
        transport.is_up = True
        await trio.sleep(61)
        assert found.links[0].is_connected
        assert found.links[0].failure is None


def is_connected(found: Reporting) -> bool:
    """Whether its only coordinator is."""
    return found.links[0].is_connected


async def test_a_silent_coordinator_is_given_up_and_redialled(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator
) -> None:
    """A heartbeat without answer ends the connection after 10 s; when answers come again all is well."""
    async with reporting(transport, coordinator) as found:
        await trio.sleep(5)
        coordinator.is_silent = True
        await trio.sleep(15.5)  # heartbeat at 10, given up at 20
        assert not is_connected(found)
        coordinator.is_silent = False
        await trio.sleep(15)
        assert is_connected(found)
    assert len(transport.dials) > 1


async def test_a_refusal_is_shown_and_tried_again(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator
) -> None:
    """A coordinator that does not know us is asked again over a new connection."""
    coordinator.refuses = True
    async with reporting(transport, coordinator) as found:
        await trio.sleep(5)
        assert found.links[0].failure == "unknown node"
        coordinator.refuses = False
        await trio.sleep(5)
        assert found.links[0].is_connected


async def test_coordinators_named_by_a_coordinator_are_met(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator
) -> None:
    """Others over the same database get heartbeats too, at most sixteen, and never ourselves."""
    named = [Contact(PeerId(f"c{number}"), ("/ip4/127.0.0.1/tcp/3",)) for number in range(40)]
    coordinator.answer = HeartbeatAnswer(coordinators=(Contact(US, ()), *named))
    async with reporting(transport, coordinator) as found:
        assert found.knows(THEM)
        assert not found.knows(named[0].peer)
        await trio.sleep(11)
        assert found.knows(named[0].peer)
        assert not found.knows(US)
    assert len({peer for _, peer in coordinator.heard}) == len(found.links) == MAX_COORDINATORS


async def test_a_dial_that_hangs_is_given_up(autojump_clock: trio.testing.MockClock, coordinator: Coordinator) -> None:
    """An address that never answers costs ten seconds, not for ever."""

    class Hanging(SwitchedTransport):
        async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
            self.dials.append(trio.current_time())
            await trio.sleep_forever()

    transport = Hanging()
    async with reporting(transport, coordinator) as found:
        await trio.sleep(29)
        assert found.links[0].failure is not None
    assert len(transport.dials) == 3


@pytest.mark.parametrize(("down", "longest"), [(0, 1), (299, 1), (360, 2), (420, 4), (660, 60), (10**9, 60)])
async def test_the_pause_grows(down: float, longest: float) -> None:
    """The pause lies between half of its bound and the bound."""
    rng = Random(1)
    pauses = [redial_pause(down, rng) for _ in range(200)]
    assert longest / 2 <= min(pauses) < max(pauses) <= longest


async def test_a_coordinator_that_is_gone_for_long_is_forgotten(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator
) -> None:
    """One that another named, an hour after its end and after it was named last; should it be named again, it is dialled again. The pinned
    one is never forgotten."""
    async with reporting(transport, coordinator) as found:
        coordinator.answer = HeartbeatAnswer(coordinators=(Contact(OTHER, ("/ip4/127.0.0.1/tcp/3",)),))
        await trio.sleep(30)
        coordinator.answer = HeartbeatAnswer()
        await trio.sleep(2 * FORGET_SECONDS)
        assert found.knows(OTHER)
        transport.gone.add(OTHER)
        await transport.disconnect(OTHER)
        await trio.sleep(FORGET_SECONDS - 100)
        assert found.knows(OTHER)
        await trio.sleep(200)
        assert [link.contact.peer for link in found.links] == [THEM]
        transport.gone.clear()
        coordinator.answer = HeartbeatAnswer(coordinators=(Contact(OTHER, ("/ip4/127.0.0.1/tcp/3",)),))
        await trio.sleep(200)
        assert found.knows(OTHER)
        assert all(link.is_connected for link in found.links)


async def test_nobody_is_forgotten_while_nobody_is_there(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator
) -> None:
    """After an outage of all coordinators, however long, the first one that is back is met within a minute, pinned or not; one that stays
    away is forgotten only when another has had the time to name it."""
    async with reporting(transport, coordinator) as found:
        coordinator.answer = HeartbeatAnswer(coordinators=(Contact(OTHER, ("/ip4/127.0.0.1/tcp/3",)),))
        await trio.sleep(30)
        coordinator.answer = HeartbeatAnswer()
        transport.cut()
        await trio.sleep(10 * FORGET_SECONDS)
        transport.is_up, transport.gone = True, {THEM}
        await trio.sleep(61)
        assert found.connected() == [OTHER]
        transport.cut()
        transport.is_up, transport.gone = True, {OTHER}
        await trio.sleep(2 * FORGET_SECONDS)
        assert [link.contact.peer for link in found.links] == [THEM]


@pytest.mark.parametrize("away_seconds", [20.0, 250.0, 3600.0, 86400.0])
async def test_a_way_that_is_open_again_is_found_soon(
    autojump_clock: trio.testing.MockClock, transport: SwitchedTransport, coordinator: Coordinator, away_seconds: float
) -> None:
    """Dials that hang do not add to the pauses between them: a dial begins every ten seconds at first, and once a minute for ever."""
    async with reporting(transport, coordinator) as found:
        await trio.sleep(30)
        transport.hangs = True
        transport.cut()
        await trio.sleep(away_seconds)
        before = [at for at in transport.dials[1:] if at > trio.current_time() - 300]
        transport.is_up, transport.hangs = True, False
        await trio.sleep(60)
        assert found.connected() == [THEM]
    longest = 10.0 if away_seconds < 300 else 60.0
    assert max(after - at for at, after in pairwise(before)) <= longest + 0.01
