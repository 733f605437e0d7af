"""What every chunk store does: one suite for memory and disk."""

from uuid import UUID

import pytest
import trio

from fsn.core.errors import Conflict, DiskFull, Invalid, NotFound, TooLarge
from fsn.core.ids import ReplicaId
from fsn.core.merkle import merkle_root
from fsn.core.reconciliation import HeldReplica, PrefixSum, replica_digest, sum_up
from fsn.node.chunkstore.base import MAX_CHUNK_BYTES, ChunkStore, Totals

CAPACITY_BYTES = 1_000_000
SPREAD = tuple(
    ReplicaId(UUID(int=start << 112 | number)) for number, start in enumerate((0, 0, 1, 0x0100, 0x01FF, 0xFFFF))
)
"""Ids at the borders of prefixes, in order."""


def replica(number: int) -> ReplicaId:
    """An id whose order is that of `number` and whose folders are spread."""
    return ReplicaId(UUID(int=(number << 104) | number))


def content(number: int, size_bytes: int = 1000) -> bytes:
    """Bytes that differ for every number."""
    return number.to_bytes(4, "big") * (size_bytes // 4)


async def put(store: ChunkStore, number: int, size_bytes: int = 1000) -> bytes:
    """Store chunk `number` and return its bytes."""
    data = content(number, size_bytes)
    await store.store(replica(number), merkle_root(data), data)
    return data


class ChunkStoreContract:
    """Subclasses give the fixture `store`: an empty store of `CAPACITY_BYTES`."""

    async def test_what_was_stored_comes_back(self, store: ChunkStore) -> None:
        """A stored chunk is returned whole, with its size."""
        data = await put(store, 1)
        assert await store.retrieve(replica(1)) == (data, 1000)

    async def test_a_range_comes_back(self, store: ChunkStore) -> None:
        """A range returns its bytes, fewer at the end, and the size of the whole."""
        data = await put(store, 1)
        assert await store.retrieve(replica(1), 10, 20) == (data[10:30], 1000)
        assert await store.retrieve(replica(1), 990, 20) == (data[990:], 1000)
        assert await store.retrieve(replica(1), 990) == (data[990:], 1000)

    @pytest.mark.parametrize(("offset", "length"), [(1000, 0), (-1, 5), (0, -1)])
    async def test_a_range_outside_is_invalid(self, store: ChunkStore, offset: int, length: int) -> None:
        """A range that begins outside the replica is refused."""
        await put(store, 1)
        with pytest.raises(Invalid):
            await store.retrieve(replica(1), offset, length)

    async def test_an_unknown_replica_is_not_found(self, store: ChunkStore) -> None:
        """What was never stored is not found."""
        with pytest.raises(NotFound):
            await store.retrieve(replica(1))

    async def test_storing_again_is_harmless(self, store: ChunkStore) -> None:
        """The same id with the same root again succeeds and takes no more room."""
        await put(store, 1)
        await put(store, 1)
        assert store.totals() == Totals(1, 1000)

    async def test_storing_again_is_harmless_when_full(self, store: ChunkStore) -> None:
        """A repeated store succeeds although there would be no room for it."""
        await put(store, 1, 600_000)
        await put(store, 1, 600_000)
        assert store.totals() == Totals(1, 600_000)

    async def test_other_bytes_under_the_same_id_conflict(self, store: ChunkStore) -> None:
        """The same id with another root is refused and the first bytes stay."""
        data = await put(store, 1)
        with pytest.raises(Conflict):
            await store.store(replica(1), merkle_root(content(2)), content(2))
        assert await store.retrieve(replica(1)) == (data, 1000)
        assert store.totals() == Totals(1, 1000)

    async def test_bytes_that_do_not_match_the_root_are_refused(self, store: ChunkStore) -> None:
        """Nothing is stored whose Merkle root is not the one announced."""
        with pytest.raises(Invalid):
            await store.store(replica(1), merkle_root(content(1)), content(2))
        assert store.totals() == Totals(0, 0)

    async def test_sizes_are_limited(self, store: ChunkStore) -> None:
        """No byte and more than 1 MiB are refused."""
        with pytest.raises(Invalid):
            await store.store(replica(1), merkle_root(b""), b"")
        with pytest.raises(TooLarge):
            await put(store, 1, MAX_CHUNK_BYTES + 4)

    async def test_a_memoryview_is_stored(self, store: ChunkStore) -> None:
        """A view of a larger buffer is as good as bytes."""
        view = memoryview(b"x" + content(1) + b"x")[1:-1]
        await store.store(replica(1), merkle_root(content(1)), view)
        assert await store.retrieve(replica(1)) == (content(1), 1000)

    async def test_deleting_frees_room(self, store: ChunkStore) -> None:
        """A deleted chunk is not found any more and its bytes can be used again."""
        await put(store, 1, 900_000)
        assert await store.delete([replica(1)]) == {}
        with pytest.raises(NotFound):
            await store.retrieve(replica(1))
        assert store.totals() == Totals(0, 0)
        await put(store, 2, 900_000)

    async def test_deleting_what_is_not_there_succeeds(self, store: ChunkStore) -> None:
        """Deletion is idempotent, and an id may be named twice."""
        await put(store, 1)
        assert await store.delete([replica(1), replica(1), replica(2)]) == {}
        assert await store.delete([replica(1)]) == {}
        assert await store.delete([]) == {}
        assert store.totals() == Totals(0, 0)

    async def test_a_deleted_chunk_can_be_stored_again(self, store: ChunkStore) -> None:
        """An id is free again after its deletion, also for other bytes."""
        await put(store, 1)
        await store.delete([replica(1)])
        await store.store(replica(1), merkle_root(content(2)), content(2))
        assert await store.retrieve(replica(1)) == (content(2), 1000)

    async def test_a_full_store_refuses(self, store: ChunkStore) -> None:
        """A chunk beyond the allowance raises DiskFull, smaller ones still fit."""
        await put(store, 1, 900_000)
        with pytest.raises(DiskFull):
            await put(store, 2, 200_000)
        assert store.free_bytes() == 100_000
        await put(store, 3, 100_000)
        assert store.free_bytes() == 0

    async def test_concurrent_stores_do_not_overshoot(self, store: ChunkStore) -> None:
        """Of 20 chunks of a tenth of the allowance stored at once, exactly ten are taken."""
        refused = []

        async def try_one(number: int) -> None:
            try:
                await put(store, number, CAPACITY_BYTES // 10)
            except DiskFull:
                refused.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(try_one, number)
        assert len(refused) == 10
        assert store.totals() == Totals(10, CAPACITY_BYTES)

    async def test_lists_page_in_order(self, store: ChunkStore) -> None:
        """A list is ordered by id and goes on after the last id of the page before."""
        for number in (5, 1, 4, 2, 3):
            await put(store, number)
        first = await store.list(limit=2)
        rest = await store.list(after=first[-1].replica, limit=10)
        assert [chunk.replica for chunk in [*first, *rest]] == [replica(number) for number in range(1, 6)]
        assert first[0].root == merkle_root(content(1))
        assert first[0].size_bytes == 1000

    async def test_one_id_stored_many_times_at_once(self, store: ChunkStore) -> None:
        """The same chunk stored by ten tasks at once is stored once and all ten succeed."""
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(put, store, 7)
        assert store.totals() == Totals(1, 1000)

    async def test_sums_follow_stores_and_deletions(self, store: ChunkStore) -> None:
        """By the first byte and by the first two, sums are those of the chunks that are there, and of no others."""
        assert await store.sums() == await store.sums(range(256)) == {}
        await put_spread(store)
        assert await store.sums() == await recomputed(store, 8)
        assert await store.sums(range(256)) == await recomputed(store, 0)
        assert sorted(await store.sums([1])) == [0x0100, 0x01FF]
        await put_spread(store)
        assert [(prefix, one.count) for prefix, one in sorted((await store.sums()).items())] == [
            (0, 3),
            (1, 2),
            (255, 1),
        ]
        await store.delete([SPREAD[0], SPREAD[3], SPREAD[5], replica(77)])
        await store.delete([SPREAD[3]])
        assert await store.sums() == await recomputed(store, 8)
        assert sorted(await store.sums(range(256))) == [0, 1, 0x01FF]
        await store.delete(SPREAD)
        assert await store.sums() == {}

    async def test_lists_within_prefixes_page_in_order(self, store: ChunkStore) -> None:
        """A list of some prefixes names their chunks only, in order, and goes on after the last id of the page before."""
        await put_spread(store)
        wanted = [0xFFFF, 0, 0x0100, 0x0100, 7]
        first = await store.list_within(wanted, limit=1)
        second = await store.list_within(wanted, first[-1].replica, 2)
        rest = await store.list_within(wanted, second[-1].replica, 2)
        assert [chunk.replica for chunk in [*first, *second, *rest]] == [SPREAD[place] for place in (0, 1, 3, 5)]
        assert await store.list_within(wanted, SPREAD[5]) == await store.list_within([]) == []


async def put_spread(store: ChunkStore) -> None:
    """Store the chunks of `SPREAD`, with sizes and bytes of their own."""
    for number, each in enumerate(SPREAD):
        data = content(number, 100 + 4 * number)
        await store.store(each, merkle_root(data), data)


async def recomputed(store: ChunkStore, shift: int) -> dict[int, PrefixSum]:
    """What the sums must be, from the list."""
    found: dict[int, list[HeldReplica]] = {}
    for chunk in await store.list(limit=10_000):
        prefix = int.from_bytes(chunk.replica.bytes[:2], "big") >> shift
        held = HeldReplica(chunk.replica, replica_digest(chunk.replica, chunk.root, chunk.size_bytes), chunk.size_bytes)
        found.setdefault(prefix, []).append(held)
    return {prefix: sum_up(held) for prefix, held in found.items()}
