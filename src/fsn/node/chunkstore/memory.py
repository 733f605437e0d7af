"""A chunk store that keeps everything in memory: for simulations and for tests of what stands above the store."""

from collections.abc import Iterable, Mapping, Sequence

import attrs
import trio

from fsn.core.errors import Conflict, NotFound
from fsn.core.ids import ReplicaId
from fsn.core.reconciliation import PrefixSum, digest_words, replica_digest
from fsn.node.chunkstore.base import ChunkStore, Ended, StoredChunk, Totals, check_chunk, cut
from fsn.node.chunkstore.quota import Quota
from fsn.node.chunkstore.sums import prefix_of
from fsn.runtime.clock import Clock, system_clock

__all__ = ["MemoryStore"]


class MemoryStore(ChunkStore):
    """Keeps the contract but for durability."""

    def __init__(self, *, capacity_bytes: int, clock: Clock = system_clock) -> None:
        self._quota = Quota(capacity_bytes, 0, lambda: capacity_bytes, reserve_bytes=0)
        self._clock = clock
        self._chunks: dict[ReplicaId, tuple[StoredChunk, bytes]] = {}

    def __contains__(self, replica: ReplicaId) -> bool:
        return replica in self._chunks

    def ids(self) -> "list[ReplicaId]":
        """The ids of all chunks, in order."""
        return sorted(self._chunks)

    async def store(self, replica: ReplicaId, root: bytes, data: bytes | memoryview) -> None:
        """See `ChunkStore.store`."""
        await trio.lowlevel.checkpoint()
        check_chunk(root, data)
        if replica in self._chunks:
            if self._chunks[replica][0].root != root:
                raise Conflict(f"replica {replica.hex} is stored here with another Merkle root")
            return
        self._quota.reserve(len(data)).commit()
        self._chunks[replica] = StoredChunk(replica, root, len(data), int(self._clock().timestamp())), bytes(data)

    async def retrieve(self, replica: ReplicaId, offset: int = 0, length: int = 0) -> tuple[bytes, int]:
        """See `ChunkStore.retrieve`."""
        await trio.lowlevel.checkpoint()
        if replica not in self._chunks:
            raise NotFound(f"replica {replica.hex} is not stored here")
        chunk, data = self._chunks[replica]
        offset, length = cut(chunk.size_bytes, offset, length)
        return data[offset : offset + length], chunk.size_bytes

    async def delete(self, replicas: Iterable[ReplicaId]) -> Mapping[ReplicaId, str]:
        """See `ChunkStore.delete`; nothing ever fails."""
        await trio.lowlevel.checkpoint()
        for replica in replicas:
            if found := self._chunks.pop(replica, None):
                self._quota.give_back(found[0].size_bytes)
        return {}

    async def list(self, after: ReplicaId | None = None, limit: int = 100) -> Sequence[StoredChunk]:
        """See `ChunkStore.list`."""
        await trio.lowlevel.checkpoint()
        ids = sorted(replica for replica in self._chunks if after is None or replica > after)
        return [self._chunks[replica][0] for replica in ids[:limit]]

    async def sums(self, within: Sequence[int] | None = None) -> Mapping[int, PrefixSum]:
        """See `ChunkStore.sums`."""
        await trio.lowlevel.checkpoint()
        found: dict[int, PrefixSum] = {}
        for replica, (chunk, _) in self._chunks.items():
            first, both = replica.bytes[0], prefix_of(replica.bytes)
            if within is None or first in within:
                one = PrefixSum(
                    1, chunk.size_bytes, *digest_words(replica_digest(replica, chunk.root, chunk.size_bytes))
                )
                prefix = first if within is None else both
                found[prefix] = found.get(prefix, PrefixSum()).plus(one)
        return found

    async def list_within(
        self, prefixes: Sequence[int], after: ReplicaId | None = None, limit: int = 100
    ) -> Sequence[StoredChunk]:
        """See `ChunkStore.list_within`."""
        wanted = set(prefixes)
        return [
            chunk for chunk in await self.list(after, len(self._chunks)) if prefix_of(chunk.replica.bytes) in wanted
        ][:limit]

    async def note_challenges(self, ended: Mapping[ReplicaId, Ended]) -> None:
        """See `ChunkStore.note_challenges`."""
        await trio.lowlevel.checkpoint()
        for replica in ended.keys() & self._chunks.keys():
            chunk, data = self._chunks[replica]
            self._chunks[replica] = attrs.evolve(chunk, challenged=ended[replica]), data

    def totals(self) -> Totals:
        """See `ChunkStore.totals`."""
        return Totals(len(self._chunks), self._quota.used_bytes)

    def free_bytes(self) -> int:
        """See `ChunkStore.free_bytes`."""
        return self._quota.free_bytes()
