"""Disks of simulated nodes: chunks that survive the process, faults of hardware, and lies of operators."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random

import attrs
import trio

from fsn.core.errors import Corrupt, DiskFull, StorageError
from fsn.core.ids import ReplicaId
from fsn.core.reconciliation import PrefixSum
from fsn.node.chunkstore.base import ChunkStore, Ended, StoredChunk, Totals
from fsn.node.chunkstore.memory import MemoryStore
from fsn.runtime.clock import Clock
from fsn.sim.cheating import How

__all__ = ["Disk", "Faults"]


@attrs.define(eq=False)
class Faults:
    """What is wrong with a disk or its owner; change it at any time. The defaults are a good disk of an honest node."""

    is_full: bool = False
    """Nothing more is taken."""
    delay_seconds: float = 0.0
    """Each read and write takes so long: a slow disk, or one that answers late on purpose."""
    read_errors: float = 0.0
    """The share of reads that fail."""
    is_failing: bool = False
    """Nothing can be read or written."""
    corrupts: bool = False
    """What is read has a flipped bit; what is stored has not."""
    refuses: bool = False
    """Neither gives nor takes chunks, and blames the disk."""
    drops_new: bool = False
    """Acknowledges new chunks and keeps nothing but the line in its index."""
    proofs: How = "honest"
    """How it answers challenges: see `fsn.sim.cheating.How`."""
    lies_about_sync: bool = False
    """What was stored since the last `sync` is gone after a power cut, though it was acknowledged."""


class Disk:
    """A node's disk. It outlives the process: `open` it for each life of the node."""

    def __init__(self, *, capacity_bytes: int, clock: Clock, rng: Random) -> None:
        self.capacity_bytes = capacity_bytes
        self.faults = Faults()
        self._clock = clock
        self._rng = rng
        self._hollow: dict[ReplicaId, None] = {}
        self._unsynced: dict[ReplicaId, None] = {}
        self.store = MemoryStore(capacity_bytes=capacity_bytes, clock=clock)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ChunkStore]:
        """The store, for one life of the node."""
        await trio.lowlevel.checkpoint()
        yield _FaultyStore(self)

    # --- what is really there

    def holds(self, replica: ReplicaId) -> bool:
        """Whether the replica's right bytes are here."""
        return replica in self.store and replica not in self._hollow and not self.faults.is_failing

    def replicas(self) -> list[ReplicaId]:
        """All that the index lists, in the order of their ids."""
        return self.store.ids()

    def is_hollow(self, replica: ReplicaId) -> bool:
        """Whether the index lists it and its right bytes are gone."""
        return replica in self._hollow

    # --- what can happen to it

    def drop(self, share: float) -> int:
        """The owner throws away a share of the chunks and goes on claiming to hold them. How many."""
        return self._hollow_out([each for each in self.replicas() if self._rng.random() < share])

    def rot(self, count: int) -> int:
        """Bits flip in up to `count` chunks. How many."""
        sound = [each for each in self.replicas() if each not in self._hollow]
        return self._hollow_out(self._rng.sample(sound, min(count, len(sound))))

    def wipe(self) -> None:
        """A new, empty disk."""
        self.store = MemoryStore(capacity_bytes=self.capacity_bytes, clock=self._clock)
        self._hollow.clear()
        self._unsynced.clear()

    def sync(self) -> None:
        """What lies in caches is on the disk now."""
        self._unsynced.clear()

    async def lose_power(self) -> None:
        """What was acknowledged is there; unless the disk lies."""
        if self.faults.lies_about_sync:
            await self.forget(list(self._unsynced))
        self._unsynced.clear()

    async def forget(self, replicas: Sequence[ReplicaId]) -> None:
        """They are gone, from the index, too."""
        for replica in replicas:
            self._hollow.pop(replica, None)
        await self.store.delete(replicas)

    def _hollow_out(self, replicas: Sequence[ReplicaId]) -> int:
        self._hollow |= dict.fromkeys(replicas)
        return len(replicas)

    def note_stored(self, replica: ReplicaId) -> None:
        """A new chunk."""
        if self.faults.drops_new:
            self._hollow[replica] = None
        if self.faults.lies_about_sync:
            self._unsynced[replica] = None

    def note_deleted(self, replicas: Iterable[ReplicaId]) -> None:
        """No longer claimed."""
        for replica in replicas:
            self._hollow.pop(replica, None)
            self._unsynced.pop(replica, None)

    def fails_to_read(self) -> bool:
        """Whether this read meets a bad sector."""
        return bool(self.faults.read_errors) and self._rng.random() < self.faults.read_errors


class _FaultyStore(ChunkStore):
    """A `ChunkStore` as a node sees its disk; keeps the contract as far as the faults let it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._store = disk.store

    async def store(self, replica: ReplicaId, root: bytes, data: bytes | memoryview) -> None:
        """See `ChunkStore.store`."""
        faults = self._disk.faults
        await self._take_time()
        if faults.is_full:
            raise DiskFull(f"the disk is full: {len(data)} bytes were to be stored")
        if faults.is_failing or faults.refuses:
            raise StorageError("the disk cannot be written")
        is_new = replica not in self._store
        await self._store.store(replica, root, data)
        if is_new:
            self._disk.note_stored(replica)

    async def retrieve(self, replica: ReplicaId, offset: int = 0, length: int = 0) -> tuple[bytes, int]:
        """See `ChunkStore.retrieve`."""
        faults = self._disk.faults
        await self._take_time()
        if faults.is_failing or faults.refuses or self._disk.fails_to_read():
            raise Corrupt(f"replica {replica.hex} cannot be read: input/output error")
        data, size_bytes = await self._store.retrieve(replica, offset, length)
        if faults.corrupts or self._disk.is_hollow(replica):
            data = bytes([data[0] ^ 1]) + data[1:]
        return data, size_bytes

    async def delete(self, replicas: Iterable[ReplicaId]) -> Mapping[ReplicaId, str]:
        """See `ChunkStore.delete`."""
        wanted = list(replicas)
        await self._take_time()
        if self._disk.faults.is_failing:
            return dict.fromkeys(wanted, "the disk cannot be written")
        failed = await self._store.delete(wanted)
        self._disk.note_deleted(replica for replica in wanted if replica not in failed)
        return failed

    async def list(self, after: ReplicaId | None = None, limit: int = 100) -> Sequence[StoredChunk]:
        """See `ChunkStore.list`."""
        return await self._store.list(after, limit)

    async def sums(self, within: Sequence[int] | None = None) -> Mapping[int, PrefixSum]:
        """See `ChunkStore.sums`."""
        return await self._store.sums(within)

    async def list_within(
        self, prefixes: Sequence[int], after: ReplicaId | None = None, limit: int = 100
    ) -> Sequence[StoredChunk]:
        """See `ChunkStore.list_within`."""
        return await self._store.list_within(prefixes, after, limit)

    async def note_challenges(self, ended: Mapping[ReplicaId, Ended]) -> None:
        """See `ChunkStore.note_challenges`."""
        await self._store.note_challenges(ended)

    def totals(self) -> Totals:
        """See `ChunkStore.totals`."""
        return self._store.totals()

    def free_bytes(self) -> int:
        """See `ChunkStore.free_bytes`."""
        return 0 if self._disk.faults.is_full else self._store.free_bytes()

    @property
    def failure(self) -> str | None:
        """See `ChunkStore.failure`."""
        return "the disk fails" if self._disk.faults.is_failing else None

    async def _take_time(self) -> None:
        if self._disk.faults.delay_seconds:
            await trio.sleep(self._disk.faults.delay_seconds)
