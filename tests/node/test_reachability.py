"""What a node finds out of how it can be reached, and when it asks."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import attrs
import pytest
import trio
import trio.testing

from fsn.core.errors import PeerRefused, Unreachable
from fsn.core.ids import PeerId
from fsn.core.reachability import DialOutcome, DialResult, Reach
from fsn.node.reachability import RETRY_SECONDS, SETTLE_SECONDS, TEST_SECONDS, AddressWatching, Reachability
from fsn.node.reporting import Link
from fsn.p2p.wire.messages import Contact, DialBack, DialedBack, Request, Response
from fsn.runtime.interfaces import interface_addresses

HERE = "/ip4/192.0.2.7/tcp/4001"


@attrs.define
class Coordinators:
    """Connected coordinators, and what each says of a dial; an error is raised in its place."""

    links: tuple[Link, ...] = ()
    says: dict[PeerId, DialOutcome | Exception] = attrs.field(factory=dict)
    asked: list[tuple[float, PeerId]] = attrs.field(factory=list)
    _connected: trio.Event = attrs.field(factory=trio.Event)

    def connect(self, name: str, says: DialOutcome | Exception) -> None:
        """One more, connected now."""
        self.links = (*self.links, Link(Contact(PeerId(name), ()), lost_at=0.0, is_connected=True))
        self.says[PeerId(name)] = says
        connected, self._connected = self._connected, trio.Event()
        connected.set()

    async def wait_connected(self) -> None:
        while not any(link.is_connected for link in self.links):
            await self._connected.wait()

    async def wait_new_connection(self) -> None:
        await self._connected.wait()

    async def request(self, peer: PeerId, message: Request, *, within_seconds: float) -> Response:
        assert message == DialBack((HERE,))
        self.asked.append((trio.current_time(), peer))
        await trio.lowlevel.checkpoint()
        if isinstance(said := self.says[peer], Exception):
            raise said
        return DialedBack("192.0.2.7", (DialResult(HERE, said),))


@asynccontextmanager
async def running(coordinators: Coordinators, addresses: Sequence[str] = (HERE,)) -> AsyncIterator[Reachability]:
    """A running `Reachability`."""
    found = Reachability(coordinators, coordinators, lambda: addresses, rng=Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        yield found
        nursery.cancel_scope.cancel()


def reach_of(found: Reachability) -> Reach:
    """As it stands now."""
    return found.verdict.reach


@pytest.fixture
def coordinators() -> Coordinators:
    """None yet."""
    return Coordinators()


async def test_nothing_is_claimed_before_the_first_test(
    autojump_clock: trio.testing.MockClock, coordinators: Coordinators
) -> None:
    """Without a coordinator the node cannot be reached at all; the first connection has it tested."""
    async with running(coordinators) as found:
        await trio.sleep(100)
        assert reach_of(found) == Reach.NONE
        coordinators.connect("a", DialOutcome.REACHED)
        assert reach_of(found) == Reach.UNTESTED
        await trio.sleep(1)
        assert reach_of(found) == Reach.DIRECT
        assert found.verdict.addresses == (HERE,)
        assert [told.observed for told in found.told] == ["192.0.2.7"]
        coordinators.links[0].is_connected, coordinators.links[0].failure = False, "cut"
        assert (reach_of(found), found.verdict.reason) == (Reach.NONE, "cut")


async def test_it_is_tested_again_every_few_hours(
    autojump_clock: trio.testing.MockClock, coordinators: Coordinators
) -> None:
    """What was true in the morning need not be true at night."""
    coordinators.connect("a", DialOutcome.REACHED)
    async with running(coordinators) as found:
        await trio.sleep(1)
        coordinators.says[PeerId("a")] = DialOutcome.NO_ANSWER
        await trio.sleep(1.25 * TEST_SECONDS)
        assert reach_of(found) == Reach.OWN_CONNECTION
        assert len(coordinators.asked) == 2


async def test_a_new_connection_is_a_reason_to_test(
    autojump_clock: trio.testing.MockClock, coordinators: Coordinators
) -> None:
    """Within half a minute, by all coordinators that are there: one that gets through is enough."""
    coordinators.connect("a", DialOutcome.NO_ANSWER)
    async with running(coordinators) as found:
        await trio.sleep(100)
        assert reach_of(found) == Reach.OWN_CONNECTION
        coordinators.connect("b", DialOutcome.REACHED)
        await trio.sleep(SETTLE_SECONDS + 1)
        assert reach_of(found) == Reach.DIRECT
        assert sorted(peer for _, peer in coordinators.asked) == ["a", "a", "b"]


@pytest.mark.parametrize("failure", [Unreachable("gone"), PeerRefused("busy", refusal="BUSY")])
async def test_a_coordinator_that_does_not_say_is_asked_again(
    autojump_clock: trio.testing.MockClock, coordinators: Coordinators, failure: Exception
) -> None:
    """In a minute, and the reason is shown meanwhile."""
    coordinators.connect("a", failure)
    async with running(coordinators) as found:
        await trio.sleep(1)
        assert (reach_of(found), found.verdict.reason) == (Reach.UNTESTED, f"not tested: {failure}")
        coordinators.says[PeerId("a")] = DialOutcome.REFUSED
        await trio.sleep(RETRY_SECONDS)
        assert reach_of(found) == Reach.OWN_CONNECTION


async def test_other_addresses_of_this_machine_are_noticed_once() -> None:
    """What is there at the start is no change; what comes or goes later is, once."""
    now, told = {"192.0.2.1"}, []

    async def redial(addresses: frozenset[str]) -> None:
        await trio.lowlevel.checkpoint()
        told.append(sorted(addresses))

    watching = AddressWatching(lambda: frozenset(now), redial)
    await watching.step()
    await watching.step()
    now.add("192.0.2.2")
    await watching.step()
    await watching.step()
    now.remove("192.0.2.1")
    await watching.step()
    assert told == [["192.0.2.1", "192.0.2.2"], ["192.0.2.2"]]


def test_this_machine_has_addresses() -> None:
    """Loopback at the least, and no zones behind them."""
    found = interface_addresses()
    assert "127.0.0.1" in found
    assert not any("%" in address for address in found)
