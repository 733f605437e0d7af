"""Power cut after every call, disk by disk: what was acknowledged is whole, and nothing that is served is wrong."""

import errno
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from fsn.core.errors import FsnError, StorageError
from fsn.core.ids import ReplicaId
from fsn.core.merkle import merkle_root
from fsn.node.chunkstore.base import ChunkStore
from fsn.node.chunkstore.disk import DiskStore, open_disk_store
from fsn.node.chunkstore.files import Files
from fsn.node.chunkstore.layout import Layout
from fsn.runtime.groups import sole_error
from tests.faults.disk import KNOWN_CALLS, Disk, Fate, PaperFiles, Record, calls_of
from tests.node.store_contract import content, recomputed, replica

CAPACITY_BYTES = 10**9
CHUNKS = 8
WORST = (
    Disk(Fate.LOST, Fate.LOST),
    Disk(Fate.KEPT, Fate.LOST),
    Disk(Fate.KEPT, Fate.MIXED, seed=1),
    Disk(Fate.MIXED, Fate.MIXED, seed=2),
)
MIXTURES = tuple(Disk(Fate.MIXED, Fate.MIXED, seed) for seed in range(3, 15))


def chunk(number: int) -> ReplicaId:
    """An id; some share a folder, some have one of their own."""
    return replica(number % 4 * 0x010100 + number)


class Said(NamedTuple):
    """A word of the store: chunk `number` is (or is no more) there, and holds the bytes of `version`; None before the answer to a wish."""

    number: int
    version: int | None


def bytes_of(number: int, version: int) -> bytes:
    """What is stored under an id, for the first time, and again after it was deleted."""
    return content(number + 100 * version, 1000 + 100 * number)


class Story:
    """Stores and deletes, and notes what was wanted (which may or may not have happened from then on) and what was promised."""

    def __init__(self, store: ChunkStore, record: Record) -> None:
        self.store, self.record = store, record

    async def put(self, number: int, version: int = 0) -> None:
        """Store a chunk; a refusal promises nothing."""
        data = bytes_of(number, version)
        with suppress(StorageError):
            await self.store.store(chunk(number), merkle_root(data), data)
            self.record.note("said", to=Said(number, version))

    async def delete(self, *numbers: int) -> None:
        """Delete chunks; those that failed may be there or not."""
        for number in numbers:
            self.record.note("said", to=Said(number, None))
        with suppress(StorageError):
            failed = await self.store.delete([chunk(number) for number in numbers])
            for number in numbers:
                if chunk(number) not in failed:
                    self.record.note("said", to=Said(number, -1))

    async def together(self, numbers: Iterable[int]) -> None:
        """Store chunks at once."""
        async with trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(self.put, number)

    async def tell(self) -> None:
        """Chunks alone and in company, again, deleted, deleted again, and stored again under their ids with other bytes."""
        await self.put(0)
        await self.together(range(1, 5))
        await self.put(1)
        await self.delete(1, 3)
        await self.delete(1, 3)
        await self.together(range(5, CHUNKS))
        await self.delete(6)
        await self.delete(6)
        await self.put(3, version=1)


async def play(folder: Path, files: PaperFiles) -> None:
    """The story on a disk that keeps a record, in a store that is opened twice."""
    folder.mkdir()  # noqa: ASYNC240 - one folder of a test
    try:
        async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
            await Story(store, files.record).put(CHUNKS)
        async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
            await Story(store, files.record).tell()
    finally:
        files.close()


async def played(folder: Path, kind: type[PaperFiles] = PaperFiles) -> Record:
    """The record of the story in which nothing failed."""
    files = kind(Record(folder))
    await play(folder, files)
    assert len(set(files.record.said(len(files.record.events)))) > CHUNKS
    return files.record


def promised(record: Record, count: int) -> Mapping[int, int | None]:
    """What the store had said of each chunk: its version, -1 for deleted, None when a deletion was under way."""
    said: dict[int, int | None] = {}
    for word in record.said(count):
        assert isinstance(word, Said)
        said[word.number] = word.version
    return said


async def check_disk(folder: Path, said: Mapping[int, int | None]) -> None:
    """A start on this disk loses nothing that was promised, brings nothing back, serves nothing wrong, and works."""
    with sole_error():
        await _check_disk(folder, said)


async def _check_disk(folder: Path, said: Mapping[int, int | None]) -> None:
    async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES, reserve_bytes=0) as store:
        assert store.recovery.lost == 0
        await check_store(store, said)
        assert not list(Layout(folder).unfinished.iterdir())
        data = bytes_of(CHUNKS + 1, 0)
        await store.store(chunk(CHUNKS + 1), merkle_root(data), data)
        assert await store.retrieve(chunk(CHUNKS + 1)) == (data, len(data))


async def check_store(store: DiskStore, said: Mapping[int, int | None]) -> None:
    """What is there is right, and what must be there is."""
    listed = await store.list()
    assert store.totals().count == len(listed)
    assert store.totals().size_bytes == sum(row.size_bytes for row in listed)
    assert not store.recovery.sums_corrected
    assert await store.sums(range(256)) == await recomputed(store, 0)
    here = {}
    for row in listed:
        data, size_bytes = await store.retrieve(row.replica)
        assert (merkle_root(data), len(data)) == (row.root, size_bytes)
        here[row.replica] = data
    for number in range(CHUNKS + 1):
        found = here.pop(chunk(number), None)
        assert found in (None, bytes_of(number, 0), bytes_of(number, 1))
        version = said.get(number)
        if version == -1:
            assert found in (None, bytes_of(number, 1)), f"chunk {number} was deleted for good, and is back"
        elif version is not None:
            assert found == bytes_of(number, version), f"chunk {number} was acknowledged, and is lost"
    assert here == {}


def disks(record: Record, count: int, kinds: Iterable[Disk]) -> Iterator[Disk]:
    """Every disk there may be after `count` events: of each kind, and with every share of what the index was writing."""
    yield from kinds
    for share in record.log_shares(count):
        yield Disk(Fate.LOST, Fate.LOST, log_share=share)
        yield Disk(Fate.KEPT, Fate.MIXED, seed=count, log_share=share)


async def walk(record: Record, counts: Iterable[int], kinds: Iterable[Disk], folder: Path) -> int:
    """Check every disk after each number of events; how many there were."""
    checked = 0
    for count in counts:
        for disk in disks(record, count, kinds):
            target = folder / "cut"
            target.mkdir()
            record.disk_after(count, disk, target)
            try:
                await check_disk(target, promised(record, count))
            except (AssertionError, FsnError) as error:
                raise AssertionError(f"after event {count} of {len(record.events)}, {disk}: {error!r}") from error
            shutil.rmtree(target)
            checked += 1
    return checked


async def test_the_power_may_go_at_any_moment(quick_folder: Path) -> None:
    """After every call, on the worst of disks, and with every part of an index transaction on its way."""
    record = await played(quick_folder / "live")
    assert await walk(record, range(len(record.events) + 1), WORST, quick_folder) > 4 * len(record.events)


@pytest.mark.slow
async def test_the_power_may_go_at_any_moment_on_any_disk(quick_folder: Path) -> None:
    """The same, with many more mixtures of what was lost and what was kept."""
    record = await played(quick_folder / "live")
    await walk(record, range(len(record.events) + 1), MIXTURES, quick_folder)


@pytest.mark.parametrize(
    ("number", "fails_on"),
    [
        pytest.param(errno.EIO, False, id="EIO-once"),
        pytest.param(errno.ENOSPC, False, id="ENOSPC-once", marks=pytest.mark.slow),
        pytest.param(errno.EIO, True, id="EIO-from-then-on", marks=pytest.mark.slow),
        pytest.param(errno.ENOSPC, True, id="ENOSPC-from-then-on", marks=pytest.mark.slow),
    ],
)
async def test_a_call_fails_and_then_the_power_goes(quick_folder: Path, number: int, *, fails_on: bool) -> None:
    """Whatever call fails, alone or with all after it: what was acknowledged before and after is still there after the cut."""
    for at in range(4, 1000):  # the first three calls belong to the start, which a failure ends
        live = quick_folder / "live"
        files = PaperFiles(Record(live), fail_at=at, number=number, fails_on=fails_on)
        with suppress(StorageError), sole_error():  # it was the second start
            await play(live, files)
        shutil.rmtree(live)
        await walk(files.record, [len(files.record.events)], WORST[:2], quick_folder)
        if files.changes < at:
            assert at > 40
            return
    raise AssertionError("the walk must end")


class ForgetsContents(PaperFiles):
    """As a store that does not sync what it writes."""

    def sync(self, path: Path) -> None:
        pass


class ForgetsNames(PaperFiles):
    """As a store that does not sync the folders of chunks."""

    def sync_folder(self, path: Path) -> None:
        if path == self.record.folder:
            super().sync_folder(path)


@pytest.mark.parametrize("kind", [ForgetsContents, ForgetsNames])
async def test_the_walk_sees_what_was_forgotten(quick_folder: Path, kind: type[PaperFiles]) -> None:
    """A store that leaves out one kind of sync does not pass."""
    record = await played(quick_folder / "live", kind)
    with pytest.raises(AssertionError, match="after event"):
        await walk(record, range(len(record.events) + 1), WORST, quick_folder)


async def test_the_record_knows_every_call_of_the_seam() -> None:
    """A new way to make bytes durable must be told to the disk on paper, or the walk would judge by an old one."""
    assert set(calls_of(Files)) == KNOWN_CALLS
