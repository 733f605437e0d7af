"""Real processes: kill -9, SIGSTOP, and files changed on real disks. One network for all tests of this module."""

import gc
import hashlib
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import httpx
import psycopg
import pytest
import trio

from fsn.core.chunking import CHUNK_BYTES
from fsn.core.ids import FileId, ReplicaId
from tests.faults.network import content, flipped, get, put
from tests.faults.processes import Process, Processes, open_processes

pytestmark = [
    pytest.mark.slow,
    # httpx leaves the generator of a body to the garbage collector when the connection breaks
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
]
NODES = 5
CHUNKS = 80
PATIENCE = httpx.Timeout(60)


@pytest.fixture(scope="module")
def dsn(postgres_dsn: str) -> Iterator[str]:
    """A database for the module, made by the coordinator's own migration. Its commits outlive a coordinator, which is all that dies."""
    name = "fsn_processes"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"drop database if exists {name} with (force)")
        connection.execute(f"create database {name}")
    yield psycopg.conninfo.make_conninfo(postgres_dsn, dbname=name)


@pytest.fixture(scope="module")
def network(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A coordinator and five nodes."""
    with open_processes(tmp_path_factory.mktemp("faults"), dsn, NODES) as network:
        yield network


@pytest.fixture
async def user(network: Processes, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """A user of the network, whose nodes are all there."""
    for process in (network.coordinator, *network.nodes.values()):
        if process.process is None:
            await trio.to_thread.run_sync(process.start)
    async with httpx.AsyncClient(base_url=network.url, timeout=PATIENCE) as client:
        await wait_online(client, NODES)
        body = {"email": f"{abs(hash(request.node.name))}@example.com", "password": "secret1"}
        await client.post("/api/v1/auth/register", json=body)
        token = (await client.post("/api/v1/auth/login", json=body)).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client
    gc.collect()  # while the filter of warnings is this module's


async def wait_online(client: httpx.AsyncClient, wanted: int) -> None:
    """Until so many nodes are connected to this coordinator; the test's deadline bounds it. (The list of nodes shows those online, too,
    that the coordinator before a restart had heard of lately.)"""
    while True:
        try:
            online = (await client.get("/health")).json()["nodes_online"]
        except httpx.TransportError:
            online = 0
        if online == wanted:
            return
        await trio.sleep(0.1)


async def replicas_of(dsn: str, file: object = None) -> dict[ReplicaId, str]:
    """What the catalogue counts on, of one file or all, and the nodes where it should lie."""
    sql = "select id, node_id::text from replicas where file_id = coalesce(%s::uuid, file_id)"

    def fetch() -> dict[ReplicaId, str]:
        with psycopg.connect(dsn) as connection:
            return {
                ReplicaId(replica): str(node)
                for replica, node in connection.execute(sql, [str(file) if file else None])
            }

    return await trio.to_thread.run_sync(fetch)


async def missing(network: Processes, dsn: str) -> list[ReplicaId]:
    """Replicas that the catalogue counts on and that do not lie, whole, on the disk of their node."""
    disks = {node: process.replicas() for node, process in network.nodes.items()}
    return [
        replica
        for replica, node in (await replicas_of(dsn)).items()
        if replica not in disks[node] or not disks[node][replica].stat().st_size
    ]


def fullest(network: Processes) -> Process:
    """The node that holds most."""
    return max(
        (p for p in network.nodes.values() if p.process is not None), key=lambda process: len(process.replicas())
    )


async def put_with(
    network: Processes, user: httpx.AsyncClient, data: bytes, signal_number: signal.Signals
) -> tuple[FileId, Process]:
    """An upload in whose middle a node that takes part gets a signal."""
    before = {id(process): len(process.replicas()) for process in network.nodes.values()}
    hit: list[Process] = []

    async def body() -> AsyncIterator[bytes]:
        for index in range(CHUNKS):
            if index == CHUNKS // 2:
                busy = await _busiest(network, before)
                busy.send(signal_number)
                hit.append(busy)
            yield data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]

    response = await user.put("/api/v1/files", params={"filename": "f"}, content=body())
    assert response.status_code == 201, response.text
    return FileId(response.json()["id"]), hit[0]


async def _busiest(network: Processes, before: dict[int, int]) -> Process:
    """The node that has stored most since then, once there is one: the client may be a window ahead of the disks."""
    while True:
        grown = {len(process.replicas()) - before[id(process)]: process for process in network.nodes.values()}
        if max(grown) > 0:
            return grown[max(grown)]
        await trio.sleep(0.01)


async def test_a_node_is_killed_in_the_middle_of_an_upload(
    network: Processes, user: httpx.AsyncClient, dsn: str
) -> None:
    """The upload succeeds on another node; every replica counted lies on its node's disk, also on that of the dead one."""
    data = content(CHUNKS)
    file, dead = await put_with(network, user, data, signal.SIGKILL)
    dead.kill()
    assert await missing(network, dsn) == []
    counts = [list((await replicas_of(dsn, file)).values()).count(node) for node in network.nodes]
    assert sum(counts) == 3 * CHUNKS
    assert sorted(counts)[1] > 0  # four nodes took part: one in the place of the dead one
    assert await get(user, file) == (200, data, True)
    await trio.to_thread.run_sync(dead.start)
    await wait_online(user, NODES)
    assert await missing(network, dsn) == []
    assert "chunk_lost" not in dead.log()


async def test_a_node_is_stopped_in_the_middle_of_transfers(
    network: Processes, user: httpx.AsyncClient, dsn: str
) -> None:
    """A frozen process is connected and silent: an upload and a download lose its time and nothing else; woken, it goes on."""
    data = content(CHUNKS)
    file, frozen = await put_with(network, user, data, signal.SIGSTOP)
    try:
        began = trio.current_time()
        assert await get(user, file) == (200, data, True)
        assert trio.current_time() - began < 30
    finally:
        frozen.send(signal.SIGCONT)
    await wait_online(user, NODES)
    assert await missing(network, dsn) == []
    assert await get(user, await put(user, data)) == (200, data, True)


async def test_files_are_damaged_on_the_disks(network: Processes, user: httpx.AsyncClient, dsn: str) -> None:
    """Flipped, cut and deleted: as long as one replica of each chunk is whole the file is; then the body breaks off, rightly so far."""
    data = content(20)
    file = await put(user, data)
    by_node: dict[str, list[Path]] = {}
    for replica, node in (await replicas_of(dsn, file)).items():
        by_node.setdefault(node, []).append(network.nodes[node].replicas()[replica])
    first, second, third = by_node.values()
    for number, path in enumerate(first):
        _damage(path, number)
    for number, path in enumerate(second):
        _damage(path, number + 1)
    assert await get(user, file) == (200, data, True)
    for number, path in enumerate(third):
        _damage(path, number + 2)
    status, received, is_whole = await get(user, file)
    assert status == 503 or (not is_whole and data.startswith(received))
    await user.delete(f"/api/v1/files/{file}")  # the other tests want all that is counted on to be there


def _damage(path: Path, number: int) -> None:
    if number % 3 == 0:
        path.write_bytes(flipped(path.read_bytes()))
    elif number % 3 == 1:
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()


async def test_the_coordinator_is_killed_in_the_middle_of_uploads(
    network: Processes, user: httpx.AsyncClient, dsn: str
) -> None:
    """After its restart a client sees which chunks are in, and finishes; of a streamed upload nothing is left, in the list or on disks."""
    data = content(12)
    initiated = {"filename": "steps", "size_bytes": len(data)}
    upload = (await user.post("/api/v1/files/upload/initiate", json=initiated)).json()
    path = f"/api/v1/files/upload/{upload['upload_id']}"
    acknowledged: set[int] = set()

    async def send(index: int) -> None:
        piece = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        try:
            if (await user.post(f"{path}/chunk?index={index}", content=piece)).status_code == 200:
                acknowledged.add(index)
        except httpx.TransportError:
            pass

    async def stream() -> None:
        async def body() -> AsyncGenerator[bytes, None]:
            for index in range(400):
                yield content(1)
                if index > 20:
                    await trio.sleep(0.05)

        async with aclosing(body()) as pieces:
            with pytest.raises(httpx.TransportError):
                await user.put("/api/v1/files", params={"filename": "streamed"}, content=pieces)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        for index in range(8):
            await send(index)
        for index in range(8, 12):
            nursery.start_soon(send, index)
        await trio.sleep(0.02)
        await trio.to_thread.run_sync(network.coordinator.kill)
    await trio.to_thread.run_sync(network.coordinator.start)
    await wait_online(user, NODES)

    assert (await user.get(f"/api/v1/files/{upload['file_id']}/download")).status_code == 409
    state = (await user.get(path)).json()
    received = {index for first, last in state["received"] for index in range(first, last + 1)}
    assert {*range(8)} <= acknowledged <= received
    assert await missing(network, dsn) == []
    for index in {*range(12)} - received:
        await send(index)
    assert (await user.post(f"{path}/complete")).status_code == 200
    status, whole, _ = await get(user, upload["file_id"])
    assert (status, hashlib.sha256(whole).digest()) == (200, hashlib.sha256(data).digest())
    while len((await user.get("/api/v1/files")).json()["files"]) > 1:  # noqa: ASYNC110 - a client has no event for it
        await trio.sleep(0.1)
    assert [file["filename"] for file in (await user.get("/api/v1/files")).json()["files"]] == ["steps"]
    assert await missing(network, dsn) == []
