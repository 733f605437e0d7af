"""Both chunk stores keep the contract; the one on disk also batches, survives faults and cancellation."""

import errno
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

from fsn.core.errors import Corrupt, DiskFull, FsnError, StorageError, Unavailable
from fsn.core.merkle import merkle_root
from fsn.node.chunkstore.base import ChunkStore, Totals
from fsn.node.chunkstore.disk import open_disk_store
from fsn.node.chunkstore.files import Files
from fsn.node.chunkstore.layout import Layout
from fsn.node.chunkstore.memory import MemoryStore
from tests.node.broken_files import CountingFiles, FailingFiles
from tests.node.store_contract import CAPACITY_BYTES, ChunkStoreContract, content, put, replica


class TestMemoryStore(ChunkStoreContract):
    """In memory."""

    @pytest.fixture
    def store(self) -> ChunkStore:
        """An empty one."""
        return MemoryStore(capacity_bytes=CAPACITY_BYTES)


class TestDiskStore(ChunkStoreContract):
    """On disk."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[ChunkStore]:
        """An empty one."""
        async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, reserve_bytes=0) as store:
            yield store


class GatedFiles(CountingFiles):
    """Lets the first write wait until the gate opens, so that a test decides what happens during a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.started = threading.Event()

    def write(self, path: Path, data: bytes | memoryview) -> None:
        self.started.set()
        assert self.gate.wait(5)
        super().write(path, data)


async def started(files: GatedFiles) -> None:
    """Wait until the writer is inside its first batch."""
    await trio.to_thread.run_sync(files.started.wait, 5)


async def test_chunks_survive_closing(tmp_path: Path) -> None:
    """Another opening finds what was stored, in the documented place, and nothing to recover."""
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, reserve_bytes=0) as store:
        data = await put(store, 0xABCDEF)
    name = replica(0xABCDEF).hex
    assert (tmp_path / "chunks" / name[:2] / name[2:4] / name).read_bytes() == data
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, reserve_bytes=0) as store:
        assert await store.retrieve(replica(0xABCDEF)) == (data, 1000)
        assert store.recovery.lost == store.recovery.adopted == store.recovery.temps_removed == 0


async def test_concurrent_stores_share_their_waits(tmp_path: Path) -> None:
    """64 chunks stored at once while a first one is being written take two index transactions, not 65."""
    files = GatedFiles()
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
        commits = 0
        add = store._index.add

        def counted(chunks: Sequence[object]) -> None:
            nonlocal commits
            commits += 1
            add(chunks)  # type: ignore[arg-type]

        store._index.add = counted  # type: ignore[method-assign,assignment]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, store, 1 << 16)
            await started(files)
            for number in range(64):  # replica() puts all of them into the folder 00/00 but for their last digits
                nursery.start_soon(put, store, number)
            await trio.testing.wait_all_tasks_blocked()
            files.gate.set()
    assert commits == 2
    assert files.calls["sync"] == 65
    assert store.totals().count == 65


async def test_a_cancelled_store_in_the_queue_stores_nothing(tmp_path: Path) -> None:
    """Cancelled before its batch began, a chunk is not stored and its room is free again."""
    files = GatedFiles()
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, store, 1)
            await started(files)
            with trio.move_on_after(0.01):
                await put(store, 2)
            files.gate.set()
        assert [chunk.replica for chunk in await store.list()] == [replica(1)]
        assert store.free_bytes() == CAPACITY_BYTES - 1000


@pytest.mark.parametrize("ticks", range(8))
async def test_a_store_cancelled_while_the_writer_wakes_ends_nothing(tmp_path: Path, ticks: int) -> None:
    """The only chunk in the queue may go in any moment between the writer's waking and its taking it: the store goes on."""
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, reserve_bytes=0) as store:
        for number in range(12):  # trio runs the two tasks in either order
            async with trio.open_nursery() as nursery:
                nursery.start_soon(put, store, number)
                for _ in range(ticks):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await put(store, 100)
        assert await store.retrieve(replica(100)) == (content(100), 1000)
        totals = store.totals()
        assert store.free_bytes() == CAPACITY_BYTES - totals.size_bytes


async def test_a_cancelled_store_in_its_batch_is_stored_whole(tmp_path: Path) -> None:
    """Cancelled while its batch is written, a chunk is stored, counted once, and its neighbours are not disturbed."""
    files = GatedFiles()
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(put, store, 1)
                await started(files)
                scope.cancel()
        files.gate.set()
        await put(store, 2)
        assert await store.retrieve(replica(1)) == (content(1), 1000)
        assert store.totals() == Totals(2, 2000)


async def test_closing_refuses_what_comes_later(tmp_path: Path) -> None:
    """A store that is closed refuses with Unavailable and frees what it had reserved."""
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, reserve_bytes=0) as store:
        await put(store, 1)
    with pytest.raises(Unavailable):
        await put(store, 2)
    assert store.free_bytes() == CAPACITY_BYTES - 1000


async def test_the_queue_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More chunks than the queue holds wait for room and are all stored in the end."""
    monkeypatch.setattr("fsn.node.chunkstore.committing.MAX_QUEUED_BYTES", 5000)
    files = GatedFiles()
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(put, store, number)
            await started(files)
            await trio.testing.wait_all_tasks_blocked()
            assert store._commit._window.taken_bytes <= 5000
            files.gate.set()
        assert store.totals().count == 30


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, StorageError)]
)
async def test_every_call_may_fail(tmp_path: Path, number: int, kind: type[FsnError]) -> None:
    """Whatever call fails, the store refuses with the right error, keeps its promises, and stores the chunk when asked again."""
    for at in range(1, 100):
        folder = tmp_path / str(at)
        folder.mkdir()
        files = FailingFiles(at + 3, number)  # the first three calls make the fixed folders
        async with open_disk_store(folder, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
            failed = []
            for chunk in range(3):
                try:
                    await put(store, chunk)
                except kind:
                    failed.append(chunk)
            if not failed:
                return
            assert store.totals().count == 3 - len(failed) == 2
            await put(store, failed[0])
            for chunk in range(3):
                assert await store.retrieve(replica(chunk)) == (content(chunk), 1000)
            assert not list(Layout(folder).unfinished.iterdir())
    raise AssertionError("the walk must end")


async def test_a_failing_disk_is_told_until_it_works_again(tmp_path: Path) -> None:
    """While stores fail for the disk's sake the store says why; the next one that succeeds clears it."""
    files = FailingFiles(5, errno.EROFS)
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
        told = [store.failure]
        with pytest.raises(StorageError):
            await put(store, 1)
        told.append(store.failure)
        await put(store, 1)
        told.append(store.failure)
    assert told[0] is told[2] is None
    assert "injected" in str(told[1])


async def test_a_disk_that_does_not_answer_refuses_alone(tmp_path: Path) -> None:
    """Whatever question the disk fails to answer, it is a StorageError for the one who asked, and the store goes on."""

    class Mute(Files):
        broken = False

        def size(self, path: Path) -> int | None:
            if self.broken:
                raise OSError(errno.EIO, "injected")
            return super().size(path)

        def free_bytes(self, path: Path) -> int:
            if self.broken:
                raise OSError(errno.EIO, "injected")
            return super().free_bytes(path)

    files = Mute()
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
        await put(store, 1)
        files.broken = True
        assert store.free_bytes() == 0
        for number in (1, 2):
            with pytest.raises(StorageError):
                await put(store, number)
        files.broken = False
        await put(store, 2)
        assert store.totals() == Totals(2, 2000)


async def test_a_chunk_folder_that_was_swept_away_is_made_again(tmp_path: Path) -> None:
    """An operator who deletes empty folders does not keep chunks out of them."""
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, reserve_bytes=0) as store:
        await put(store, 1)
        await store.delete([replica(1)])
        folder = Layout(tmp_path).final(replica(1)).parent
        folder.rmdir()
        folder.parent.rmdir()
        await put(store, 1)
        assert await store.retrieve(replica(1)) == (content(1), 1000)


async def test_one_bad_chunk_fails_alone(tmp_path: Path) -> None:
    """In a batch of 20 with one failing write, 19 are stored."""

    class OneBad(GatedFiles):
        def before(self, name: str, path: Path) -> None:
            super().before(name, path)
            if name == "write" and path.name == replica(7).hex:
                raise OSError(errno.EIO, "injected")

    files = OneBad()
    failed = []

    async def try_one(store: ChunkStore, number: int) -> None:
        try:
            await put(store, number)
        except StorageError:
            failed.append(number)

    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(try_one, store, number)
            await trio.testing.wait_all_tasks_blocked()
            files.gate.set()
        assert failed == [7]
        assert store.totals() == Totals(19, 19_000)
        assert store.free_bytes() == CAPACITY_BYTES - 19_000


async def test_a_disk_nearly_full_refuses(tmp_path: Path) -> None:
    """The reserve on the disk is not touched whatever the allowance says."""

    class Small(Files):
        def free_bytes(self, path: Path) -> int:
            return 10_000

    async with open_disk_store(tmp_path, capacity_bytes=10**12, files=Small(), reserve_bytes=9_500) as store:
        assert store.free_bytes() == 500
        with pytest.raises(DiskFull):
            await put(store, 1)


async def test_a_cut_or_missing_file_is_corrupt(tmp_path: Path) -> None:
    """A chunk whose file was cut or is gone is reported, and can be stored again."""
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, reserve_bytes=0) as store:
        await put(store, 1)
        await put(store, 2)
        Layout(tmp_path).final(replica(1)).unlink()
        Layout(tmp_path).final(replica(2)).write_bytes(b"short")
        for number in (1, 2):
            with pytest.raises(Corrupt):
                await store.retrieve(replica(number))
            await put(store, number)
            assert await store.retrieve(replica(number)) == (content(number), 1000)
        assert store.totals() == Totals(2, 2000)


async def test_a_failed_deletion_is_reported_and_can_be_repeated(tmp_path: Path) -> None:
    """A file that cannot be removed is among the failures; deleting again removes it."""

    class Sticky(Files):
        broken = True

        def remove(self, path: Path) -> bool:
            if self.broken and path.name == replica(1).hex:
                raise OSError(errno.EIO, "injected")
            return super().remove(path)

    files = Sticky()
    async with open_disk_store(tmp_path, capacity_bytes=CAPACITY_BYTES, files=files, reserve_bytes=0) as store:
        await put(store, 1)
        await put(store, 2)
        assert list(await store.delete([replica(1), replica(2)])) == [replica(1)]
        files.broken = False
        assert await store.delete([replica(1)]) == {}
        assert not Layout(tmp_path).final(replica(1)).exists()
        assert store.totals() == Totals(0, 0)


async def test_the_helper_spreads_ids() -> None:
    """The tests' ids lie in different folders and in the order of their numbers."""
    assert replica(1) < replica(2) < replica(300)
    assert len({Layout(Path()).final(replica(number)).parent for number in range(300)}) > 1
    assert merkle_root(content(1)) != merkle_root(content(2))
