"""The trash, damaged chunks and losses of a store on disk."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from fsn.core.errors import DiskFull, FsnError, NotFound
from fsn.node.chunkstore.base import Totals
from fsn.node.chunkstore.disk import DiskStore, open_disk_store
from fsn.node.chunkstore.layout import Layout
from fsn.node.chunkstore.recovery import RecoveryReport
from tests.node.broken_files import PowerCut, PowerCutFiles
from tests.node.store_contract import CAPACITY_BYTES, content, put, recomputed, replica


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[DiskStore]:
    async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES, reserve_bytes=0) as store:
        yield store


async def test_garbage_can_be_taken_back(tmp_path: Path) -> None:
    """In the trash a chunk is neither there nor counted; restored, it is as before, over restarts too."""
    async with opened(tmp_path) as store:
        for number in range(3):
            await put(store, number)
        before = await store.sums()
        assert await store.trash([replica(0), replica(2), replica(9)]) == {}
        assert (store.totals(), store.trash_totals()) == (Totals(1, 1000), Totals(2, 2000))
        assert await store.sums() == await recomputed(store, 8)
        with pytest.raises(NotFound):
            await store.retrieve(replica(0))
        assert store.free_bytes() == CAPACITY_BYTES - 1000
    async with opened(tmp_path) as store:
        assert store.recovery == RecoveryReport()
        assert store.trash_totals() == Totals(2, 2000)
        assert [each.chunk.replica for each in await store.list_trash()] == [replica(0), replica(2)]
        assert await store.restore([replica(0), replica(2), replica(7)]) == {replica(7): "it is not in the trash"}
        assert await store.retrieve(replica(0)) == (content(0), 1000)
        assert await store.sums() == before
        assert (store.totals(), store.trash_totals()) == (Totals(3, 3000), Totals(0, 0))
    async with opened(tmp_path) as store:
        assert store.recovery == RecoveryReport()
        assert store.totals() == Totals(3, 3000)


async def test_the_trash_is_emptied(tmp_path: Path) -> None:
    """What is older than asked goes for good, and nothing else."""
    async with opened(tmp_path) as store:
        await put(store, 1)
        await store.trash([replica(1)])
        assert await store.empty_trash(before=0) == Totals(0, 0)
        assert await store.empty_trash() == Totals(1, 1000)
        assert await store.empty_trash() == store.trash_totals() == Totals(0, 0)
        assert await store.restore([replica(1)]) == {replica(1): "it is not in the trash"}
    assert not [path for path in Layout(tmp_path).trashed.rglob("*") if path.is_file()]


async def test_the_trash_makes_room(tmp_path: Path) -> None:
    """It takes nobody's room: a chunk that needs it has it, the oldest garbage goes first, and as little as need be."""
    async with opened(tmp_path) as store:
        for number in range(3):
            await put(store, number, 300_000)
            await store.trash([replica(number)])
        assert store.free_bytes() == CAPACITY_BYTES
        async with trio.open_nursery() as nursery:
            for number in range(10, 14):
                nursery.start_soon(put, store, number, 100_000)
        assert store.totals() == Totals(4, 400_000)
        assert store.trash_totals().count in (1, 2)
        await put(store, 20, 600_000)
        assert store.trash_totals() == Totals(0, 0)
        with pytest.raises(DiskFull):
            await put(store, 21, 1000)


async def test_a_restored_chunk_needs_room(tmp_path: Path) -> None:
    """Restoring does not overshoot the allowance, and leaves the trash as it is."""
    async with opened(tmp_path) as store:
        await put(store, 1, 600_000)
        await store.trash([replica(1)])
        await put(store, 2, 400_000)
        await put(store, 3, 4)
        assert store.trash_totals() == Totals(0, 0), "it was in the way"
        await store.trash([replica(2)])
        await put(store, 4, 599_000)
        assert await store.restore([replica(2)]) == {}
        assert store.totals().size_bytes == 999_004


async def test_a_trashed_id_stored_again_stays(tmp_path: Path) -> None:
    """A restore never replaces a chunk that is there."""
    async with opened(tmp_path) as store:
        await put(store, 1)
        await store.trash([replica(1)])
        await put(store, 1)
        assert await store.restore([replica(1)]) == {replica(1): "it has been stored again"}
        assert store.totals() == Totals(1, 1000)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(content(8)), "other bytes than were stored"),
        (lambda path: path.write_bytes(b"cut"), "other bytes than were stored"),
        (lambda path: path.unlink(), "missing"),
    ],
    ids=["flipped", "cut", "gone"],
)
async def test_damage_is_found_and_put_aside(tmp_path: Path, damage: object, reason: str) -> None:
    """A damaged or missing chunk is a loss from then on, until it has been reported; its file lies aside, and what is right stays."""
    async with opened(tmp_path) as store:
        await put(store, 1)
        await put(store, 2)
        path = Layout(tmp_path).final(replica(1))
        damage(path)  # type: ignore[operator]
        left = path.read_bytes() if path.exists() else None
        assert await store.check(replica(2)) is None
        assert await store.check(replica(9)) is None
        assert await store.check(replica(1)) == reason
        assert await store.check(replica(1)) is None
        assert store.totals() == Totals(1, 1000)
        assert await store.sums() == await recomputed(store, 8)
        with pytest.raises(NotFound):
            await store.retrieve(replica(1))
    aside = Layout(tmp_path).damaged_file(replica(1))
    assert (aside.read_bytes() if aside.exists() else None) == left
    async with opened(tmp_path) as store:
        assert await store.losses(10) == {replica(1): reason}
        await put(store, 1)
        assert await store.losses(10) == {}, "it is there again"
        await store.delete([replica(1)])
        await store.forget_losses([replica(1)])
        assert await store.losses(10) == {}


async def test_losses_of_a_start_are_remembered(tmp_path: Path) -> None:
    """What recovery finds missing is a loss to report, too."""
    async with opened(tmp_path) as store:
        await put(store, 1)
    Layout(tmp_path).final(replica(1)).unlink()
    async with opened(tmp_path) as store:
        assert await store.losses(10) == {replica(1): "missing or cut short at a start"}


async def test_notes_are_kept(tmp_path: Path) -> None:
    """A small text under a key, over restarts."""
    async with opened(tmp_path) as store:
        assert await store.recall("scrub") is None
        await store.remember("scrub", "one")
        await store.remember("scrub", "two")
    async with opened(tmp_path) as store:
        assert await store.recall("scrub") == "two"


async def story(store: DiskStore, said: dict[str, bool]) -> None:
    """Three chunks into the trash, one back, the rest removed; what was acknowledged."""
    for number in range(4):
        await put(store, number)
    said["stored"] = True
    assert await store.trash([replica(0), replica(1), replica(2)]) == {}
    said["trashed"] = True
    assert await store.restore([replica(1)]) == {}
    said["restored"] = True
    await store.empty_trash()
    said["emptied"] = True


async def test_the_power_may_go_before_every_call(tmp_path: Path) -> None:
    """Garbage does not come back by itself, what was taken back stays, what was emptied is gone, chunks beside it are whole."""
    for call in range(1, 1000):
        folder = tmp_path / str(call)
        folder.mkdir()
        files = PowerCutFiles(call)
        said: dict[str, bool] = {}
        try:
            async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
                await story(store, said)
        except* (PowerCut, FsnError):
            files.lose()
        if files.calls.total() < call:
            assert call > 40
            return
        await check(folder, said)
    raise AssertionError("the walk must end")


async def check(folder: Path, said: dict[str, bool]) -> None:
    async with opened(folder) as store:
        here = {chunk.replica for chunk in await store.list()}
        aside = {each.chunk.replica for each in await store.list_trash()}
        assert not here & aside
        assert not await store.losses(10)
        assert await store.sums() == await recomputed(store, 8)
        assert store.trash_totals().count == len(aside)
        for each in here:
            assert await store.check(each) is None
        if "stored" in said:
            assert replica(3) in here
        if "trashed" in said:
            assert not here & {replica(0), replica(2)}
            assert replica(1) in here | aside
        if "restored" in said:
            assert replica(1) in here
        if "emptied" in said:
            assert not aside
        assert await store.restore(sorted(aside)) == {}
        for each in aside:
            assert await store.check(each) is None
