"""A simulated disk keeps the contract of a chunk store as long as nothing is wrong with it, and breaks it as it is told to."""

from collections.abc import AsyncIterator
from random import Random

import pytest
import trio

from fsn.core.errors import Corrupt, DiskFull, NotFound, StorageError
from fsn.core.merkle import merkle_root
from fsn.node.chunkstore.base import ChunkStore
from fsn.runtime.clock import system_clock
from fsn.sim.clock import VirtualClock
from fsn.sim.disks import Disk
from tests.node.store_contract import CAPACITY_BYTES, ChunkStoreContract, content, put, replica


@pytest.fixture
def disk() -> Disk:
    """A good one."""
    return Disk(capacity_bytes=CAPACITY_BYTES, clock=system_clock, rng=Random(1))


@pytest.fixture
async def store(disk: Disk) -> AsyncIterator[ChunkStore]:
    """The node's view of it."""
    async with disk.open() as store:
        yield store


class TestDisk(ChunkStoreContract):
    """The contract, on a good disk."""


async def test_chunks_outlive_the_process(disk: Disk) -> None:
    """What was stored in one life is there in the next; a wiped disk is empty."""
    async with disk.open() as store:
        data = await put(store, 1)
    async with disk.open() as store:
        assert await store.retrieve(replica(1)) == (data, 1000)
    disk.wipe()
    async with disk.open() as store:
        assert store.totals().count == 0


async def test_a_full_disk_takes_nothing_and_gives_all(disk: Disk, store: ChunkStore) -> None:
    """It has no room, says so, and what lies there can be read."""
    await put(store, 1)
    disk.faults.is_full = True
    assert store.free_bytes() == 0
    with pytest.raises(DiskFull):
        await put(store, 2)
    await store.retrieve(replica(1))


async def test_a_failing_disk_neither_takes_nor_gives(disk: Disk, store: ChunkStore) -> None:
    """Every access is an error of the disk, deletions are told one by one."""
    await put(store, 1)
    disk.faults.is_failing = True
    assert not disk.holds(replica(1))
    with pytest.raises(StorageError):
        await put(store, 2)
    with pytest.raises(Corrupt):
        await store.retrieve(replica(1))
    assert list(await store.delete([replica(1)])) == [replica(1)]
    assert store.failure


async def test_rotten_chunks_have_other_bytes(disk: Disk, store: ChunkStore) -> None:
    """Bit rot changes what is read, not what is listed."""
    data = await put(store, 1)
    assert disk.rot(5) == 1
    found, size_bytes = await store.retrieve(replica(1))
    assert (len(found), size_bytes) == (1000, 1000)
    assert found != data
    assert not disk.holds(replica(1))
    assert store.totals().count == 1
    assert disk.rot(5) == 0


async def test_dropped_chunks_are_still_claimed(disk: Disk, store: ChunkStore) -> None:
    """A share of them; deleting what was dropped is like deleting what is there."""
    for number in range(40):
        await put(store, number)
    dropped = disk.drop(0.5)
    assert 10 < dropped < 30
    assert store.totals().count == 40
    assert sum(disk.holds(each) for each in disk.replicas()) == 40 - dropped
    assert await store.delete(disk.replicas()) == {}
    await put(store, 1)
    assert disk.holds(replica(1))


async def test_a_liar_keeps_nothing_new(disk: Disk, store: ChunkStore) -> None:
    """It acknowledges and lists."""
    await put(store, 1)
    disk.faults.drops_new = True
    await put(store, 2)
    assert [disk.holds(replica(number)) for number in (1, 2)] == [True, False]
    assert store.totals().count == 2


async def test_a_power_cut_takes_what_was_not_synced(disk: Disk, store: ChunkStore) -> None:
    """From a disk that lies about syncing only."""
    await put(store, 1)
    disk.faults.lies_about_sync = True
    await put(store, 2)
    disk.sync()
    await put(store, 3)
    await disk.lose_power()
    assert disk.replicas() == [replica(1), replica(2)]
    with pytest.raises(NotFound):
        await store.retrieve(replica(3))


async def test_a_slow_disk_takes_its_time(disk: Disk, store: ChunkStore, virtual_clock: VirtualClock) -> None:
    """In virtual time, that is."""
    disk.faults.delay_seconds = 7.0
    await put(store, 1)
    assert trio.current_time() == 7
    disk.faults.read_errors = 1.0
    with pytest.raises(Corrupt):
        await store.retrieve(replica(1))
    assert trio.current_time() == 14


async def test_reads_are_corrupted_on_the_way(disk: Disk, store: ChunkStore) -> None:
    """Only while the fault lasts."""
    data = content(1)
    await store.store(replica(1), merkle_root(data), data)
    disk.faults.corrupts = True
    assert (await store.retrieve(replica(1)))[0] != data
    disk.faults.corrupts = False
    assert (await store.retrieve(replica(1)))[0] == data
