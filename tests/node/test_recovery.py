"""After any crash, index and disk agree again and every acknowledged chunk is whole."""

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from fsn.core.errors import NotFound, StorageError, Unavailable
from fsn.core.merkle import merkle_root
from fsn.node.chunkstore.base import StoredChunk, Totals
from fsn.node.chunkstore.batch import BatchWriter, NewChunk
from fsn.node.chunkstore.disk import DiskStore, open_disk_store
from fsn.node.chunkstore.files import Files
from fsn.node.chunkstore.index import INDEX_NAME, Index
from fsn.node.chunkstore.layout import Layout
from fsn.node.chunkstore.recovery import RecoveryReport
from fsn.runtime.clock import system_clock
from tests.node.broken_files import PowerCut, PowerCutFiles
from tests.node.store_contract import content, put, recomputed, replica

CAPACITY_BYTES = 10**9


async def reopened(folder: Path) -> RecoveryReport:
    """What a start finds; a second start must find nothing more."""
    async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES) as store:
        report = store.recovery
    async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES) as store:
        assert store.recovery == RecoveryReport(lost_total=report.lost_total, foreign=report.foreign)
    return report


async def filled(folder: Path, count: int) -> Layout:
    """A closed store with chunks 0..count-1."""
    async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES) as store:
        for number in range(count):
            await put(store, number)
    return Layout(folder)


async def test_temp_files_are_removed(tmp_path: Path) -> None:
    """What was being written is gone after the next start."""
    layout = await filled(tmp_path, 1)
    layout.temp(replica(9)).write_bytes(b"half")
    assert await reopened(tmp_path) == RecoveryReport(temps_removed=1)
    assert not list(layout.unfinished.iterdir())


async def test_whole_files_without_row_are_adopted(tmp_path: Path) -> None:
    """A lost index is rebuilt from the chunks."""
    await filled(tmp_path, 5)
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / (INDEX_NAME + suffix)).unlink(missing_ok=True)
    assert await reopened(tmp_path) == RecoveryReport(adopted=5)
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES) as store:
        await put(store, 3)  # the same root: a success
        assert [chunk.root for chunk in await store.list()] == [merkle_root(content(number)) for number in range(5)]


def damage(index: Path, how: str) -> None:
    """Make an index useless."""
    if how == "garbage":
        index.write_bytes(b"no database" * 1000)
    elif how == "cut":
        index.write_bytes(index.read_bytes()[:6000])
    else:
        pages = bytearray(index.read_bytes())
        pages[8192:] = b"\xa5" * (len(pages) - 8192)
        index.write_bytes(pages)


@pytest.mark.parametrize("how", ["garbage", "cut", "overwritten"])
async def test_a_damaged_index_is_made_anew(tmp_path: Path, how: str) -> None:
    """The damaged file is kept aside, the report says so once, and every chunk can be read and stored again."""
    await filled(tmp_path, 200)
    damage(tmp_path / INDEX_NAME, how)
    (tmp_path / f"{INDEX_NAME}-wal").write_bytes(b"of another database")
    assert await reopened(tmp_path) == RecoveryReport(adopted=200, index_rebuilt=True)
    assert (tmp_path / f"{INDEX_NAME}.damaged").exists()
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES) as store:
        assert await store.retrieve(replica(199)) == (content(199), 1000)
        await put(store, 7)


async def test_a_damaged_index_without_chunks_stops_the_start(tmp_path: Path) -> None:
    """When the chunk folder is missing as well there is nothing to make a new index from; the damaged one stays."""
    layout = await filled(tmp_path, 1)
    damage(tmp_path / INDEX_NAME, "garbage")
    layout.chunks.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(StorageError, match="not mounted"):
            async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES):
                raise AssertionError("must not open")


async def test_an_index_of_a_newer_fsn_is_left_alone(tmp_path: Path) -> None:
    """It is no damage: the start stops and says why."""
    await filled(tmp_path, 1)
    with contextlib.closing(sqlite3.connect(tmp_path / INDEX_NAME)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="newer"):
        async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES):
            raise AssertionError("must not open")
    assert not (tmp_path / f"{INDEX_NAME}.damaged").exists()


async def test_rows_without_file_are_lost(tmp_path: Path) -> None:
    """Missing and cut files are counted, and counted on over later starts."""
    layout = await filled(tmp_path, 6)
    for number in (0, 3, 5):
        layout.final(replica(number)).unlink()
    layout.final(replica(2)).write_bytes(b"cut")
    assert await reopened(tmp_path) == RecoveryReport(lost=4, lost_total=4)
    layout.final(replica(1)).unlink()
    assert await reopened(tmp_path) == RecoveryReport(lost=1, lost_total=5)
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES) as store:
        assert [chunk.replica for chunk in await store.list()] == [replica(4)]
        with pytest.raises(NotFound):
            await store.retrieve(replica(2))


async def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    """What is no chunk, or lies where no chunk belongs, stays and is counted."""
    layout = await filled(tmp_path, 1)
    folder = layout.final(replica(0)).parent
    strangers = [folder / "notes.txt", folder / replica(1 << 20).hex, folder / (replica(0).hex[:-1] + "f")]
    strangers[0].write_bytes(b"mine")
    strangers[1].write_bytes(b"wrong folder")
    strangers[2].write_bytes(b"")
    assert await reopened(tmp_path) == RecoveryReport(foreign=3)
    assert all(path.exists() for path in strangers)


async def test_folders_where_files_belong_do_not_stop_the_start(tmp_path: Path) -> None:
    """A folder with a chunk's name, or among the temp files, is somebody else's: left alone, and the chunk it displaced is lost."""
    layout = await filled(tmp_path, 2)
    displaced = layout.final(replica(1))
    displaced.unlink()
    displaced.mkdir()
    layout.temp(replica(9)).mkdir()
    assert await reopened(tmp_path) == RecoveryReport(lost=1, lost_total=1, foreign=2)
    assert displaced.is_dir()
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES) as store:
        with pytest.raises(StorageError):
            await put(store, 1)
        await put(store, 2)


async def test_a_missing_chunk_folder_stops_the_start(tmp_path: Path) -> None:
    """A disk that is not mounted must not turn every chunk into a loss."""
    layout = await filled(tmp_path, 1)
    layout.chunks.rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="not mounted"):
        async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES):
            raise AssertionError("must not open")


async def story(store: DiskStore, acknowledged: dict[int, bool]) -> None:
    """Store eight chunks in concurrent fours, delete two; notes what was acknowledged (True: stored, False: deleted)."""

    async def one(number: int) -> None:
        await put(store, number)
        acknowledged[number] = True

    for start in (0, 4):
        async with trio.open_nursery() as nursery:
            for number in range(start, start + 4):
                nursery.start_soon(one, number)
    for number in (1, 6):
        acknowledged.pop(number)  # from here on it may be gone
        assert await store.delete([replica(number)]) == {}
        acknowledged[number] = False


async def cut_at(folder: Path, call: int, *, loses: bool) -> tuple[dict[int, bool], bool]:
    """Run the story with the power cut before `call`; what was acknowledged, and whether the cut came."""
    acknowledged: dict[int, bool] = {}
    files = PowerCutFiles(call)
    try:
        async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES, files=files) as store:
            await story(store, acknowledged)
    except* (PowerCut, Unavailable):  # those who wait are told that the store is closing
        if loses:
            files.lose()
    return acknowledged, files.calls.total() >= call


@pytest.mark.parametrize("loses", [True, False], ids=["unsynced-lost", "unsynced-kept"])
async def test_the_power_may_go_before_every_call(tmp_path: Path, *, loses: bool) -> None:
    """For every k, with the power cut before the k-th call: acknowledged chunks are whole, acknowledged deletions hold, no temp is left."""
    for call in range(1, 1000):
        folder = tmp_path / str(call)
        folder.mkdir()
        acknowledged, was_cut = await cut_at(folder, call, loses=loses)
        if not was_cut:
            assert call > 30
            return
        async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES) as store:
            assert store.recovery.lost == 0
            here = {chunk.replica for chunk in await store.list()}
            for number, is_stored in acknowledged.items():
                assert (replica(number) in here) == is_stored
            for number in range(8):
                if replica(number) in here:
                    assert await store.retrieve(replica(number)) == (content(number), 1000)
            assert not list(Layout(folder).unfinished.iterdir())
            assert store.totals().size_bytes == 1000 * len(here)
            await put(store, 7)
    raise AssertionError("the walk must end")


async def test_a_crash_before_the_commit_leaves_an_adopted_chunk(tmp_path: Path) -> None:
    """Named and synced but not yet in the index: the chunk is whole after the next start, and storing it again succeeds."""

    class Cut(Index):
        def add(self, chunks: Iterable[StoredChunk]) -> None:
            raise PowerCut

    layout, files, index = Layout(tmp_path), Files(), Cut(tmp_path / INDEX_NAME)
    layout.make(files)
    with contextlib.closing(index), pytest.raises(PowerCut):
        BatchWriter(layout, files, index, system_clock).store(
            [NewChunk(replica(1), merkle_root(content(1)), content(1))]
        )
    assert await reopened(tmp_path) == RecoveryReport(adopted=1)


async def test_recovery_of_many_chunks_opens_no_file(tmp_path: Path) -> None:
    """A clean store of 3,000 chunks starts in less than a second: one walk, one scan."""
    layout = Layout(tmp_path)
    index = Index(tmp_path / INDEX_NAME)
    rows = [StoredChunk(replica(number), merkle_root(b"x"), 1, 0) for number in range(3000)]
    for row in rows:
        path = layout.final(row.replica)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    index.add(rows)
    index.close()
    began = trio.current_time()
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES) as store:
        assert store.recovery == RecoveryReport()
        assert store.totals().count == 3000
    assert trio.current_time() - began < 5


async def test_wrong_sums_are_computed_anew(tmp_path: Path) -> None:
    """Sums that are not those of the chunks are noticed and corrected at the next start."""
    await filled(tmp_path, 3)
    for change in ("UPDATE prefixes SET word_3 = word_3 + 1", "DELETE FROM prefixes", "UPDATE prefixes SET count = 0"):
        with contextlib.closing(sqlite3.connect(tmp_path / INDEX_NAME)) as database:
            database.execute(change)
            database.commit()
        assert await reopened(tmp_path) == RecoveryReport(sums_corrected=True)
        async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES) as store:
            assert store.totals() == Totals(3, 3000)
            assert await store.sums() == await recomputed(store, 8)


async def test_an_index_without_sums_gets_them(tmp_path: Path) -> None:
    """An index of the first schema is brought up to date, with the sums of what it lists."""
    await filled(tmp_path, 3)
    with contextlib.closing(sqlite3.connect(tmp_path / INDEX_NAME)) as database:
        for table in ("prefixes", "trash", "losses"):
            database.execute(f"DROP TABLE {table}")
        for column in ("challenged_at", "challenge_ended"):
            database.execute(f"ALTER TABLE chunks DROP COLUMN {column}")
        database.execute("PRAGMA user_version = 1")
    assert await reopened(tmp_path) == RecoveryReport()
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES) as store:
        assert await store.sums(range(256)) == await recomputed(store, 0)
        assert store.totals() == Totals(3, 3000)
