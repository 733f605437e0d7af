"""Replicas go bad, nodes lie, freeze and fill up: the user gets right bytes or an error, never wrong bytes."""

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio

from fsn.core.chunking import CHUNK_BYTES
from fsn.core.errors import DiskFull
from fsn.core.ids import ReplicaId
from fsn.core.merkle import merkle_root
from fsn.node.chunkstore.base import Totals
from fsn.node.chunkstore.disk import DiskStore, open_disk_store
from fsn.node.chunkstore.memory import MemoryStore
from tests.coord.network import wait_until
from tests.faults.network import (
    Forgetful,
    Slow,
    content,
    damage,
    everything_recorded,
    everything_stored,
    flipped,
    get,
    put,
    replicas_of,
)
from tests.node import store_contract
from tests.web.api.conftest import Api

KINDS: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": flipped,
    "cut": lambda data: data[:-1],
    "empty": lambda data: b"",
    "gone": lambda data: None,
}


@pytest.mark.parametrize("kind", KINDS)
async def test_damage_in_the_middle_breaks_the_body_off(api: Api, kind: str) -> None:
    """With one good replica a download is whole; without any it breaks off, having sent right bytes only."""
    user, data = await api.user(), content(40.5)
    file = await put(user, data)
    bad = await replicas_of(api.network, file, 30, 30)
    for node in api.network.nodes:
        damage(node, bad[1:], KINDS[kind])
    assert await get(user, file) == (200, data, True)
    worse = await replicas_of(api.network, file, 31, 31)  # of another chunk: the first one is being repaired
    for node in api.network.nodes:
        damage(node, worse, KINDS[kind])
    status, received, is_whole = await get(user, file)
    assert (status, is_whole) == (200, False)
    assert received == data[: len(received)]
    assert len(received) <= 31 * CHUNK_BYTES
    assert (await user.get(f"/api/v1/files/{file}/download", headers={"Range": "bytes=0-99"})).content == data[:100]


async def test_damage_at_the_beginning_is_a_503(api: Api) -> None:
    """Before the first byte the answer can still say what is wrong."""
    user = await api.user()
    file = await put(user, content(3))
    for node in api.network.nodes:
        damage(node, await replicas_of(api.network, file, 0, 0), flipped)
    response = await user.get(f"/api/v1/files/{file}/download")
    assert (response.status_code, response.json()["code"]) == (503, "too_few_copies")


async def test_swapped_replicas_are_not_taken_for_each_other(api: Api) -> None:
    """A node that gives the bytes of one chunk for those of another, of the same file and size, gives nothing."""
    user, data = await api.user(), content(2)
    file = await put(user, data)
    first, second = [await replicas_of(api.network, file, index, index) for index in (0, 1)]
    for node in api.network.nodes:
        stored = node.store._chunks
        a, b = [next((r for r in replicas if r in stored), None) for replicas in (first, second)]
        if a and b:
            stored[a], stored[b] = (stored[a][0], stored[b][1]), (stored[b][0], stored[a][1])
    status, received, is_whole = await get(user, file)
    assert (status, is_whole) in [(200, False), (503, True)]
    assert status == 503 or data.startswith(received)


async def test_a_liar_is_found_out_at_the_download(api: Api) -> None:
    """A node that acknowledges and stores nothing costs a try; another replica is used."""
    network = api.network
    for node in network.nodes[:3]:
        node.kill()
    liar = await network.add_node(store=Forgetful(capacity_bytes=1 << 40))
    user, data = await api.user(), content(8)
    file = await put(user, data)
    counted = await network.services.db.fetch_one("select count(*) from replicas where node_id = %s", [liar.node])
    assert counted == (8,)
    assert await liar.replicas() == []
    assert await get(user, file) == (200, data, True)


@pytest.mark.parametrize("pause_seconds", [0.2, float("inf")], ids=["slow", "frozen"])
async def test_a_node_that_does_not_answer_in_time(api: Api, pause_seconds: float) -> None:
    """A slow node slows a transfer down, a frozen one costs its time, in the middle of an upload and of a download alike."""
    network, store = api.network, Slow(capacity_bytes=1 << 40)
    for node in network.nodes[:3]:
        node.kill()
    sluggish = await network.add_node(store=store)
    spare = await network.add_node(capacity_bytes=40 * CHUNK_BYTES)
    user, data = await api.user(), content(24)

    async def body() -> AsyncIterator[bytes]:
        for index in range(24):
            if index == 12:
                await wait_until(lambda: store.totals().count > 0)
                store.pause_seconds = pause_seconds
            yield data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]

    response = await user.put("/api/v1/files", params={"filename": "f"}, content=body())
    assert response.status_code == 201, response.text
    assert store.totals().count < 24 or pause_seconds < 1
    assert spare.store.totals().count > 0 or pause_seconds < 1
    assert await everything_recorded(network) <= await everything_stored(network)
    began = trio.current_time()
    assert await get(user, response.json()["id"]) == (200, data, True)
    assert trio.current_time() - began < 20
    assert sluggish.node is not None


# -- full disks


NO_RESERVE = -(1 << 40)
"""What the quota leaves free: so little that the file system has to say no by itself."""


class SmallDisk(MemoryStore):
    """Keeps chunks on a real file system, and tells its coordinator that there is room without end."""

    def __init__(self, disk: DiskStore) -> None:
        super().__init__(capacity_bytes=1 << 40)
        self.disk = disk
        self.refusals = 0

    async def store(self, replica: ReplicaId, root: bytes, data: bytes | memoryview) -> None:
        try:
            await self.disk.store(replica, root, data)
        except DiskFull:
            self.refusals += 1
            raise

    async def retrieve(self, replica: ReplicaId, offset: int = 0, length: int = 0) -> tuple[bytes, int]:
        return await self.disk.retrieve(replica, offset, length)

    def totals(self) -> Totals:
        return self.disk.totals()

    async def replicas(self) -> list[ReplicaId]:
        """What lies on the disk."""
        return [chunk.replica for chunk in await self.disk.list(limit=1000)]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "fsn-test", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system of our own cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_node_whose_disk_is_full_is_replaced(api: Api, tiny_disk: Path) -> None:
    """The real ENOSPC of a real file system is the refusal FULL; the upload goes on, on another node."""
    network = api.network
    for node in network.nodes[:3]:
        node.kill()
    async with open_disk_store(tiny_disk, capacity_bytes=1 << 40, reserve_bytes=NO_RESERVE) as disk:
        small = SmallDisk(disk)
        node = await network.add_node(store=small)
        await network.add_node(capacity_bytes=1 << 20)  # has the least room: the small one is chosen before it
        spare = await network.add_node(capacity_bytes=1 << 26)
        user, data = await api.user(), content(40)
        file = await put(user, data)
        assert small.refusals > 0
        assert 0 < disk.totals().count < 40
        assert spare.store.totals().count > 0
        counted = await network.services.db.fetch_all("select id from replicas where node_id = %s", [node.node])
        assert {row[0] for row in counted} == set(await small.replicas())
        assert await get(user, file) == (200, data, True)


async def test_a_full_disk_keeps_what_it_took_and_takes_again(tiny_disk: Path) -> None:
    """On a disk without a byte left every acknowledged chunk is whole, deletions work, and make room for others."""
    async with open_disk_store(tiny_disk, capacity_bytes=1 << 40, reserve_bytes=NO_RESERVE) as store:
        stored: dict[int, bytes] = {}
        refused = 0

        async def try_one(number: int) -> None:
            nonlocal refused
            data = store_contract.content(number, 100_000)
            try:
                await store.store(store_contract.replica(number), merkle_root(data), data)
            except DiskFull:
                refused += 1
            else:
                stored[number] = data

        async with trio.open_nursery() as nursery:
            for number in range(80):
                nursery.start_soon(try_one, number)
        assert refused > 0
        assert 20 < len(stored) < 42
        assert {chunk.replica for chunk in await store.list(limit=1000)} == {*map(store_contract.replica, stored)}
        gone = [store_contract.replica(stored_number) for stored_number in list(stored)[:10]]
        assert await store.delete(gone) == {}
        for number in list(stored)[:10]:
            del stored[number]
        for number in range(80, 85):
            await try_one(number)
            assert number in stored
    async with open_disk_store(tiny_disk, capacity_bytes=1 << 40, reserve_bytes=NO_RESERVE) as store:
        assert store.recovery.lost == 0
        for number, data in stored.items():
            assert await store.retrieve(store_contract.replica(number)) == (data, len(data))


# -- too few nodes


async def test_too_few_nodes_are_a_503_with_both_numbers(api: Api) -> None:
    """Every way to begin or to go on with an upload says how many nodes there are and how many are needed; with a third one it goes on."""
    network = api.network
    user = await api.user()
    begun = (await user.post("/api/v1/files/upload/initiate", json={"filename": "f", "size_bytes": 5})).json()
    for node in network.nodes[:3]:
        node.kill()
    for response in (
        await user.put("/api/v1/files", params={"filename": "f"}, content=b"hello"),
        await user.post("/api/v1/files", files={"file": ("f", b"hello")}),
        await user.post("/api/v1/files/upload/initiate", json={"filename": "f", "size_bytes": 5}),
        await user.post(f"/api/v1/files/upload/{begun['upload_id']}/chunk?index=0", content=b"hello"),
    ):
        problem = response.json()
        assert (response.status_code, problem["code"]) == (503, "too_few_nodes")
        assert (problem["wanted"], problem["found"]) == (3, 2)
        assert "3" in problem["detail"]
        assert "2" in problem["detail"]
    assert await everything_stored(network) == set()
    await network.add_node()
    chunk = await user.post(f"/api/v1/files/upload/{begun['upload_id']}/chunk?index=0", content=b"hello")
    assert chunk.status_code == 200


async def test_nodes_that_leave_in_the_middle_leave_no_file(api: Api) -> None:
    """When only two are left half-way, the streamed upload fails with 503, and nothing of it stays anywhere."""
    network = api.network
    user, data = await api.user(), content(30)

    async def body() -> AsyncIterator[bytes]:
        for index in range(30):
            if index == 15:
                await wait_until(lambda: sum(node.store.totals().count for node in network.nodes) > 9)
                for node in network.nodes[:3]:
                    node.kill()
            yield data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]

    response = await user.put("/api/v1/files", params={"filename": "f"}, content=body())
    assert (response.status_code, response.json()["code"]) in [(503, "too_few_nodes"), (503, "too_few_copies")]
    assert (await user.get("/api/v1/files")).json()["files"] == []
    await wait_until(lambda: sum(node.store.totals().count for node in network.nodes[3:]) == 0)
