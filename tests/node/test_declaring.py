"""A node tells its coordinators what it means to do, until each knows it; in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from fsn.core.errors import Conflict, Invalid, PeerRefused, PeerTimeout, Unreachable
from fsn.core.ids import PeerId
from fsn.node.chunkstore.base import Totals
from fsn.node.declaring import FAREWELL_SECONDS, Declaring
from fsn.node.reporting import Link
from fsn.node.standing import NodeStanding, StandingFile
from fsn.p2p.wire.messages import Contact, Declaration, Declared, Request, Response, Standing
from fsn.runtime.threads import working_inline

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATES = {Standing.ACTIVE: "online", Standing.DRAINING: "draining", Standing.MAINTENANCE: "maintenance"}


def clock() -> datetime:
    return BEGAN + timedelta(seconds=trio.current_time())


class Coordinator:
    """Keeps what it hears, with the time; answers as a coordinator would that agrees to everything, or as a test says."""

    def __init__(self, name: str = "c1") -> None:
        self.link = Link(Contact(PeerId(name), ()), lost_at=0.0)
        self.heard: list[tuple[float, Declaration]] = []
        self.failure: Exception | None = None
        self.answer: Declared | None = None
        self.is_silent = False

    def connect(self) -> None:
        self.link.is_connected, self.link.connected_at = True, trio.current_time()

    def lose(self) -> None:
        self.link.is_connected = False

    async def take(self, message: Declaration, within_seconds: float) -> Response:
        self.heard.append((trio.current_time(), message))
        await trio.lowlevel.checkpoint()
        if self.is_silent:
            await trio.sleep(within_seconds)
            raise PeerTimeout("silence")
        if self.failure is not None:
            raise self.failure
        return self.answer or Declared(STATES[Standing(message.standing)], 5, message.reason, message.remaining_seconds)

    @property
    def standings(self) -> list[Standing | str]:
        return [declaration.standing for _, declaration in self.heard]


class Network:
    """Coordinators, and a way to ask them."""

    def __init__(self, *coordinators: Coordinator) -> None:
        self.coordinators = {each.link.contact.peer: each for each in coordinators}

    async def request(self, peer: PeerId, message: Request, *, within_seconds: float) -> Response:
        assert isinstance(message, Declaration)
        coordinator = self.coordinators[peer]
        if not coordinator.link.is_connected:
            raise Unreachable("no connection")
        return await coordinator.take(message, within_seconds)

    def links(self) -> tuple[Link, ...]:
        return tuple(each.link for each in self.coordinators.values())


@asynccontextmanager
async def declaring(folder: Path, *coordinators: Coordinator) -> AsyncIterator[Declaring]:
    """A running one; threads would not know of virtual time."""
    network = Network(*coordinators)
    found = Declaring(network, network.links, StandingFile(folder), clock=clock, totals=lambda: Totals(40, 4000))
    with working_inline():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.run)
            yield found
            nursery.cancel_scope.cancel()


def reconnect(found: Declaring, coordinator: Coordinator) -> None:
    coordinator.connect()
    found.wake()


@pytest.fixture
def coordinator() -> Coordinator:
    """One that agrees."""
    return Coordinator()


async def test_each_connection_is_told_once(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """A node that only stores and serves says so once a connection, and asks nothing after that."""
    async with declaring(tmp_path, coordinator) as found:
        reconnect(found, coordinator)
        await trio.sleep(80_000)
        coordinator.lose()
        await trio.sleep(5)
        reconnect(found, coordinator)
        await trio.sleep(80_000)
        assert found.counted.state == "online"
    assert coordinator.standings == [Standing.ACTIVE] * 2


async def test_a_drain_is_told_at_once_and_asked_about(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """The command returns when the coordinator knows; then the node asks every 10 s how far it is; a restart goes on with that."""
    coordinator.connect()
    coordinator.answer = Declared("draining", replicas_left=30, bytes_left=3000)
    async with declaring(tmp_path, coordinator) as found:
        await found.drain(48)
        assert (found.standing.kind, found.standing.takes_chunks) == ("draining", False)
        assert (found.standing.replicas, found.standing.size_bytes) == (40, 4000)
        assert coordinator.heard[-1][1] == Declaration(Standing.DRAINING, 48 * 3600)
        await trio.sleep(30.5)
        coordinator.answer = Declared("draining", replicas_left=20, bytes_left=2000)
        await trio.sleep(10)
        assert found.answer == coordinator.answer
        assert found.bytes_per_second == pytest.approx(1000 / 40)
    assert coordinator.heard[-1][1].remaining_seconds == pytest.approx(48 * 3600 - 40, abs=11)
    coordinator.heard.clear()
    async with declaring(tmp_path, coordinator) as again:
        await trio.sleep(1)
        assert again.standing == found.standing
    assert coordinator.standings == [Standing.DRAINING]


async def test_a_drain_without_a_coordinator_is_told_later(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """The node refuses chunks at once, whoever knows; the first coordinator to be there is told."""
    async with declaring(tmp_path, coordinator) as found:
        await found.drain(None)
        assert not found.standing.takes_chunks
        assert (found.answer, coordinator.heard) == (None, [])
        reconnect(found, coordinator)
        await trio.sleep(1)
        assert found.answer is not None
    assert coordinator.heard[0][1] == Declaration(Standing.DRAINING)


async def test_every_coordinator_is_told_and_none_is_waited_for_in_vain(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Of two, one that does not answer holds the command up for ten seconds at most, and is told again."""
    good, silent = Coordinator("good"), Coordinator("silent")
    good.connect()
    silent.connect()
    silent.is_silent = True
    async with declaring(tmp_path, good, silent) as found:
        with trio.fail_after(25):
            await found.drain(None)
        assert found.knows(good.link)
        assert not found.knows(silent.link)
        silent.is_silent = False
        await trio.sleep(60)
        assert found.knows(silent.link)


async def test_a_node_leaves_when_a_coordinator_says_so(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """It has left from then on, also after a restart, and nothing brings it back."""
    coordinator.connect()
    async with declaring(tmp_path, coordinator) as found:
        await found.drain(None)
        coordinator.answer = Declared("left", reason="drained")
        await trio.sleep(11)
        assert (found.standing.kind, found.standing.reason) == ("left", "drained")
        for change in (found.cancel_drain(), found.drain(1), found.begin_maintenance(1, "")):
            with pytest.raises(Conflict, match="left the network for good"):
                await change
    assert StandingFile(tmp_path).load().kind == "left"


async def test_a_cancelled_drain_is_told(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """Chunks are taken again at once; a coordinator that was away hears of it when it is back."""
    coordinator.connect()
    async with declaring(tmp_path, coordinator) as found:
        await found.drain(None)
        coordinator.lose()
        await found.cancel_drain()
        assert found.standing.takes_chunks
        await trio.sleep(60)
        reconnect(found, coordinator)
        await trio.sleep(1)
        await found.cancel_drain()
    assert coordinator.standings[-2:] == [Standing.DRAINING, Standing.ACTIVE]


async def test_a_late_word_of_leaving_does_not_undo_a_cancellation(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """What answers an older declaration changes nothing; the next answer tells the truth, and the node heeds it."""
    coordinator.connect()
    async with declaring(tmp_path, coordinator) as found:
        await found.drain(None)
        coordinator.answer = Declared("left")
        await found.cancel_drain()
        await trio.sleep(1)
        assert found.standing.kind == "left"  # too late: it had left before it changed its mind


async def test_maintenance_is_in_force_when_granted(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """It is told with its rest, survives a restart, and ends by itself."""
    coordinator.connect()
    async with declaring(tmp_path, coordinator) as found:
        await found.begin_maintenance(4, "a new disk")
        assert found.standing.takes_chunks
        assert coordinator.heard[-1][1] == Declaration(Standing.MAINTENANCE, 4 * 3600, "a new disk")
        assert found.counted.until == clock() + timedelta(hours=4)
    async with declaring(tmp_path, coordinator) as found:
        await trio.sleep(3600)
        assert coordinator.heard[-1][1].remaining_seconds == pytest.approx(4 * 3600, abs=2)
        await trio.sleep(3 * 3600 + 1)
        assert found.standing.kind == "active"
    assert coordinator.standings[-1] == Standing.ACTIVE


async def test_maintenance_ends_when_the_operator_says(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """Before its time; again is harmless."""
    coordinator.connect()
    async with declaring(tmp_path, coordinator) as found:
        await found.begin_maintenance(4, "")
        await found.end_maintenance()
        await found.end_maintenance()
        assert found.standing.kind == "active"
    assert coordinator.standings[-2:] == [Standing.MAINTENANCE, Standing.ACTIVE]


@pytest.mark.parametrize(
    ("failure", "error", "text"),
    [
        (PeerRefused("only 3 of 72 hours are left", refusal="INVALID"), Conflict, "only 3 of 72 hours"),
        (PeerTimeout("silence"), Unreachable, "no coordinator answers"),
    ],
)
async def test_a_refused_maintenance_is_not_in_force(
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
    coordinator: Coordinator,
    failure: Exception,
    error: type[Exception],
    text: str,
) -> None:
    """The command fails with the coordinator's reason, and the node is active again, on the disk, too."""
    coordinator.connect()
    async with declaring(tmp_path, coordinator) as found:
        coordinator.failure = failure
        with pytest.raises(error, match=text):
            await found.begin_maintenance(4, "")
        assert found.standing.kind == StandingFile(tmp_path).load().kind == "active"
        coordinator.failure = None
        await trio.sleep(100)
    assert coordinator.standings[-1] == Standing.ACTIVE


async def test_maintenance_without_a_coordinator(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """Nobody would know of it: it is refused."""
    async with declaring(tmp_path, coordinator) as found:
        with pytest.raises(Unreachable):
            await found.begin_maintenance(4, "")
        assert found.standing.kind == "active"


async def test_what_makes_no_sense_is_refused(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """Too long, a reason that cannot be sent, a maintenance while the node drains."""
    coordinator.connect()
    async with declaring(tmp_path, coordinator) as found:
        for hours, reason in ((0, ""), (73, ""), (1, "a\nb"), (1, "r" * 201)):
            with pytest.raises(Invalid):
                await found.begin_maintenance(hours, reason)
        await found.drain(None)
        with pytest.raises(Conflict, match="drains"):
            await found.begin_maintenance(1, "")
        assert found.standing.kind == "draining"


async def test_a_disqualified_node_hears_so(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """Its maintenance is not granted, and the state is there to be shown."""
    coordinator.connect()
    coordinator.answer = Declared("disqualified", 60, "failed its audits")
    async with declaring(tmp_path, coordinator) as found:
        with pytest.raises(Conflict, match="disqualified"):
            await found.begin_maintenance(1, "")
        assert (found.counted.state, found.counted.reason) == ("disqualified", "failed its audits")


async def test_a_farewell_is_short(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Every connected coordinator hears of the end; one that is silent delays it by two seconds."""
    good, silent, away = Coordinator("good"), Coordinator("silent"), Coordinator("away")
    good.connect()
    silent.connect()
    good.answer = Declared("online")
    async with declaring(tmp_path, good, silent, away) as found:
        await trio.sleep(1)
        silent.is_silent = True
        began = trio.current_time()
        await found.farewell()
        assert trio.current_time() - began <= FAREWELL_SECONDS
    assert good.standings[-1] == silent.standings[-1] == Standing.STOPPING
    assert away.heard == []


async def test_a_coordinator_that_speaks_no_declarations_is_left_in_peace(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, coordinator: Coordinator
) -> None:
    """An older one is asked rarely, and everything else goes on."""
    coordinator.connect()
    coordinator.failure = Unreachable("the peer does not serve declare")
    async with declaring(tmp_path, coordinator) as found:
        await trio.sleep(601)
        assert found.counted.state is None
    assert 2 <= len(coordinator.heard) <= 11


def test_a_standing_is_a_value() -> None:
    """Two of the same content are one."""
    assert NodeStanding("left", BEGAN) == NodeStanding("left", BEGAN)
