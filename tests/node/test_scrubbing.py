"""Every chunk is read in time, damage is reported, the trash is emptied."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from fsn.core.errors import Unreachable
from fsn.core.ids import PeerId
from fsn.node.chunkstore.base import Totals
from fsn.node.chunkstore.disk import DiskStore, open_disk_store
from fsn.node.chunkstore.layout import Layout
from fsn.node.config import UpkeepConfig
from fsn.node.scrubbing import LOOK_SECONDS, LossReporting, Scrubbing, TrashEmptying
from fsn.p2p.wire.messages import LossesReported, Refusal, ReportLosses, Request, Response
from fsn.runtime.supervise import Bell, Rest
from tests.node.store_contract import CAPACITY_BYTES, put, replica


@attrs.define
class Hand:
    """A clock that is put forward by hand."""

    now: datetime = datetime(2026, 11, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskStore]:
    """With ten chunks, whose ids are spread over all there may be."""
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, reserve_bytes=0) as store:
        for number in range(10):
            await put(store, number * 0x190000 + 0x100000)
        yield store


def spread(number: int) -> int:
    """As in `store`."""
    return number * 0x190000 + 0x100000


async def steps(worker: Scrubbing) -> float:
    """Step until it rests because nothing is due; how long it read, in seconds of its own pace."""
    paced = 0.0
    while True:
        checked = worker.status.checked if worker.status else 0
        rest = await worker.step()
        assert worker.status is not None
        if worker.status.checked == checked:
            return paced
        assert rest is not None
        paced += rest.seconds


async def test_a_round_is_spread_over_its_time(store: DiskStore) -> None:
    """Half of the chunks after half of the time, all of them at the end, then the next round."""
    clock = Hand()
    worker = Scrubbing(store, UpkeepConfig(scrub_days=10), clock, Bell())
    await steps(worker)
    assert worker.status is not None
    assert worker.status.checked == 1
    clock.now += timedelta(days=5)
    await steps(worker)
    assert 4 <= worker.status.checked <= 6
    clock.now += timedelta(days=4)
    await steps(worker)
    assert worker.status.checked >= 9
    clock.now += timedelta(days=1, hours=1)
    await steps(worker)
    assert worker.status.ended_at is not None
    assert (worker.status.checked, worker.status.lost) in ((0, 0), (1, 0))


async def test_the_cursor_is_kept_over_restarts(store: DiskStore) -> None:
    """Another worker goes on where the first one was."""
    clock = Hand()
    first = Scrubbing(store, UpkeepConfig(scrub_days=10), clock, Bell())
    await steps(first)
    first._kept_at = -60.0
    clock.now += timedelta(days=5)
    await first.step()
    assert first.status is not None
    second = Scrubbing(store, UpkeepConfig(scrub_days=10), clock, Bell())
    await second.step()
    assert second.status is not None
    assert second.status.checked == first.status.checked + 1
    await store.remember("scrub", "no JSON")
    third = Scrubbing(store, UpkeepConfig(scrub_days=10), clock, Bell())
    await third.step()


async def test_a_round_now_is_bounded_in_speed(store: DiskStore) -> None:
    """Asked for, all chunks are read at once, no faster than the setting says; what is damaged rings the bell of reports."""
    lost = Bell()
    worker = Scrubbing(store, UpkeepConfig(scrub_bytes_per_second=1000), Hand(), lost)  # type: ignore[arg-type]
    await steps(worker)
    Layout(store._layout.data_dir).final(replica(spread(4))).write_bytes(b"x")
    worker.hurry()
    paced = 0.0
    while worker.status is not None and worker.status.hurries:
        rest = await worker.step()
        assert rest is not None
        paced += rest.seconds
    assert paced == pytest.approx(10.0 + LOOK_SECONDS)
    assert list(await store.losses(10)) == [replica(spread(4))]
    assert store.totals() == Totals(9, 9000)
    await lost.wait()


class Line:
    """Coordinators by name and what they answer."""

    def __init__(self, **answers: Response | Exception) -> None:
        self.answers, self.asked = answers, list[tuple[str, Request]]()

    async def request(self, peer: PeerId, message: Request, *, within_seconds: float) -> Response:
        self.asked.append((peer, message))
        answer = self.answers[peer]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_losses_are_reported_until_somebody_knows(store: DiskStore) -> None:
    """A coordinator that is away or refuses is passed over; the first acknowledgement ends it."""
    path = Layout(store._layout.data_dir).final(replica(spread(2)))
    path.unlink()
    assert await store.check(replica(spread(2))) == "missing"
    line = Line(away=Unreachable("away"), no=Refusal("BUSY", "later"))
    peers = [PeerId("away"), PeerId("no")]
    worker = LossReporting(store, line, lambda: peers, Bell())
    assert isinstance(await worker.step(), Rest)
    assert len(await store.losses(10)) == 1
    peers.append(PeerId("yes"))
    line.answers["yes"] = LossesReported()
    assert await worker.step() is None
    assert line.asked[-1] == ("yes", ReportLosses({replica(spread(2)): "missing"}))
    assert await store.losses(10) == {}
    assert isinstance(await worker.step(), Rest)


async def test_the_trash_is_emptied_in_time(store: DiskStore) -> None:
    """After the days that the setting says, by the clock on the wall."""
    clock = Hand(datetime.now(UTC))
    worker = TrashEmptying(store, UpkeepConfig(trash_days=7), clock)
    await store.trash([replica(spread(1))])
    clock.now += timedelta(days=6)
    assert isinstance(await worker.step(), Rest)
    assert store.trash_totals().count == 1
    clock.now += timedelta(days=1, hours=1)
    assert await worker.step() is None
    assert store.trash_totals().count == 0
