"""A whole node over real TCP: a coordinator's peer stores and reads through it; ports, admin API, one process a folder."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import attrs
import httpx
import pytest
import trio
from click.testing import CliRunner

from fsn.cli.main import fsn
from fsn.core.errors import ConfigError, Conflict, PeerRefused, StorageError
from fsn.core.ids import PeerId, ReplicaId
from fsn.core.merkle import merkle_root
from fsn.daemon.node import Node, open_node
from fsn.node.chunkstore.base import ChunkStore
from fsn.node.chunkstore.layout import Layout
from fsn.node.chunkstore.memory import MemoryStore
from fsn.node.config import AdminConfig, NodeConfig
from fsn.node.registration import Application, initialise
from fsn.node.services import open_services
from fsn.node.standing import NodeStanding, StandingFile
from fsn.p2p.client import Requester, open_requester
from fsn.p2p.config import P2pConfig
from fsn.p2p.server import serve_requests
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.p2p.wire.messages import (
    ChunkRetrieved,
    ChunksDeleted,
    ChunkStored,
    Declaration,
    Declared,
    DeleteChunks,
    Heartbeat,
    HeartbeatAnswer,
    LossesReported,
    ReportLosses,
    Response,
    RetrieveChunk,
    Standing,
    StoreChunk,
)
from fsn.runtime.identity import Identity, load_identity
from tests.node.fake_coordinator import FakeCoordinator, open_fake_coordinator
from tests.node.store_contract import content, replica
from tools.observability import exposed_names, metric_names

LOCAL = P2pConfig(listen_host="127.0.0.1", tcp_port=0)


class Coordinator:
    """A peer that takes heartbeats and can ask the node."""

    def __init__(self, transport: Transport, requester: Requester, registry: FakeCoordinator) -> None:
        self.transport, self.requester, self.registry = transport, requester, registry
        self.heartbeats: list[Heartbeat] = []
        self.heard = trio.Event()

    async def take(self, _: PeerId, heartbeat: Heartbeat) -> HeartbeatAnswer:
        """Note a heartbeat."""
        await trio.lowlevel.checkpoint()
        self.heartbeats.append(heartbeat)
        self.heard.set()
        return HeartbeatAnswer(earned_micro_credits=1_500_000)


class SlowStore(MemoryStore):
    """Stores when told to."""

    def __init__(self, *, capacity_bytes: int) -> None:
        super().__init__(capacity_bytes=capacity_bytes)
        self.begun, self.go_on = trio.Event(), trio.Event()

    async def store(self, replica: ReplicaId, root: bytes, data: bytes | memoryview) -> None:
        self.begun.set()
        await self.go_on.wait()
        await super().store(replica, root, data)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another task, fed by a real socket, will make true; the test's bound ends a vain wait."""
    while not is_so():  # noqa: ASYNC110 - the node has no event for it, and needs none but for tests
        await trio.sleep(0.005)


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    """One that listens, registers and takes heartbeats."""
    async with (
        open_fake_coordinator() as registry,
        open_libp2p_transport(registry.identity, LOCAL) as transport,
        open_requester(transport) as requester,
    ):
        registry.addresses = list(transport.addresses)
        found = Coordinator(transport, requester, registry)
        serve_requests(transport, {Heartbeat: found.take}, may_ask=lambda peer: True)
        yield found


@pytest.fixture
async def config(coordinator: Coordinator, tmp_path: Path) -> NodeConfig:
    """A registered node's."""
    application = Application(
        data_dir=tmp_path / "node",
        name="attic",
        coordinator_url=coordinator.registry.url,
        capacity_bytes=10**7,
        p2p=LOCAL,
        admin=AdminConfig(port=0),
    )
    return (await initialise(application)).config


@pytest.fixture
async def node(config: NodeConfig, coordinator: Coordinator) -> AsyncIterator[Node]:
    """Running and connected."""
    async with open_node(config) as running:
        await coordinator.heard.wait()
        await until(lambda: running.health().status == "ok")  # its heartbeat was heard; the answer is on its way
        yield running


async def test_a_chunk_goes_in_and_comes_back(coordinator: Coordinator, node: Node) -> None:
    """Over the connection that the node made, its coordinator stores, reads and deletes."""
    ask, peer = coordinator.requester.request, node.peer
    data = content(1, 262_000)
    stored = await ask(peer, StoreChunk(replica(1), merkle_root(data), data), within_seconds=5)
    assert stored == ChunkStored(replica(1))
    assert await ask(peer, RetrieveChunk(replica(1)), within_seconds=5) == ChunkRetrieved(data, len(data))
    assert node.status().chunk_count == 1
    assert await ask(peer, DeleteChunks((replica(1),)), within_seconds=5) == ChunksDeleted({})
    with pytest.raises(PeerRefused) as caught:
        await ask(peer, RetrieveChunk(replica(1)), within_seconds=5)
    assert caught.value.refusal == "NOT_FOUND"


async def test_a_stranger_is_refused(node: Node) -> None:
    """A peer that is no coordinator of ours gets NOT_AUTHORISED."""
    async with open_libp2p_transport(Identity.generate(), LOCAL) as transport, open_requester(transport) as requester:
        await transport.connect(node.peer, [f"/ip4/127.0.0.1/tcp/{node.p2p_port}"])
        with pytest.raises(PeerRefused) as caught:
            await requester.request(node.peer, RetrieveChunk(replica(1)), within_seconds=5)
    assert caught.value.refusal == "NOT_AUTHORISED"


async def test_where_tcp_does_not_get_through_quic_does(coordinator: Coordinator, config: NodeConfig) -> None:
    """A node whose coordinator answers on UDP only works like any other; its status and metrics say what it goes over."""
    udp = next(address for address in coordinator.transport.addresses if "/quic-v1" in address)
    by_udp = attrs.evolve(config.coordinator, addresses=("/ip4/127.0.0.1/tcp/9", udp))
    data = content(1, 262_000)
    async with open_node(attrs.evolve(config, coordinator=by_udp)) as running:
        await until(lambda: running.health().status == "ok")
        assert running.status().coordinators[0].transport == "quic-v1"
        ask = coordinator.requester.request
        stored = await ask(running.peer, StoreChunk(replica(1), merkle_root(data), data), within_seconds=20)
        assert stored == ChunkStored(replica(1))
        assert await ask(running.peer, RetrieveChunk(replica(1)), within_seconds=20) == ChunkRetrieved(data, len(data))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.admin_port}", trust_env=False) as client:
            assert 'fsn_node_connections{transport="quic-v1"} 1.0' in (await client.get("/metrics")).text


async def test_the_heartbeat_tells_how_the_node_is(coordinator: Coordinator, node: Node) -> None:
    """Counts, sizes, version and addresses are in it."""
    (heartbeat,) = coordinator.heartbeats
    assert heartbeat.chunk_count == 0
    assert heartbeat.free_bytes == 10**7
    assert heartbeat.addresses == (
        f"/ip4/127.0.0.1/tcp/{node.p2p_port}",
        f"/ip4/127.0.0.1/udp/{node.quic_port}/quic-v1",
    )


async def test_ports_are_published_while_it_runs(config: NodeConfig) -> None:
    """`ports.json` holds the ports in force from when they listen until the node stops."""
    file = config.data_dir / "ports.json"
    async with open_node(config) as running:
        ports = json.loads(file.read_text())
        assert ports == {"admin": running.admin_port, "p2p_tcp": running.p2p_port, "p2p_quic": running.quic_port}
        assert all(ports.values())
    assert not file.exists()


async def test_ports_of_a_killed_node_are_forgotten(config: NodeConfig) -> None:
    """Stale ports are gone before the next start listens, also when that start fails."""
    file = config.data_dir / "ports.json"
    file.write_text('{"admin": 1}')
    (config.data_dir / "index.sqlite3").mkdir()
    with pytest.raises(StorageError):
        async with open_node(config):
            raise AssertionError("must not open")
    assert not file.exists()


async def test_the_admin_api_answers(coordinator: Coordinator, node: Node) -> None:
    """Health, status, pages of chunks, metrics; mistakes are problem documents."""
    for number in range(3):
        await node.store.store(replica(number), merkle_root(content(number)), content(number))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{node.admin_port}", trust_env=False) as client:
        assert (await client.get("/health")).json() == {"status": "ok", "reasons": {}}
        status = (await client.get("/status")).json()
        assert status["chunk_count"] == 3
        assert status["coordinators"][0]["connected"] is True
        assert status["coordinators"][0]["transport"] == "tcp"
        assert status["coordinators"][0]["earned_micro_credits"] == 1_500_000
        first = (await client.get("/chunks", params={"limit": 2})).json()
        rest = (await client.get("/chunks", params={"cursor": first["next_cursor"]})).json()
        assert [chunk["id"] for chunk in first["chunks"] + rest["chunks"]] == [replica(n).hex for n in range(3)]
        assert rest["next_cursor"] is None
        assert "fsn_node_chunks 3.0" in (await client.get("/metrics")).text
        assert 'fsn_node_connections{transport="tcp"} 1.0' in (await client.get("/metrics")).text
        page = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
        assert exposed_names((await client.get("/metrics")).text) == metric_names(page, "Storage node")
        bad = await client.get("/chunks", params={"cursor": "?"})
        assert (bad.status_code, bad.json()["code"]) == (400, "invalid")
        assert (await client.get("/chunks", params={"limit": "0"})).status_code == 400


async def test_health_is_degraded_without_coordinator(config: NodeConfig) -> None:
    """A node whose coordinator is away starts all the same, and says so."""
    away = attrs.evolve(config.coordinator, addresses=("/ip4/127.0.0.1/tcp/9",))
    async with open_node(attrs.evolve(config, coordinator=away)) as running:
        await until(lambda: running.status().coordinators[0].failure is not None)
        assert running.health().status == "degraded"
        assert "coordinator" in running.health().reasons


async def test_what_changes_the_node_wants_its_token(node: Node, config: NodeConfig) -> None:
    """Without, or with another one, nothing happens; with it, a drain begins, goes on over a restart, and is cancelled."""
    token = (config.data_dir / "admin.token").read_text().strip()
    assert (config.data_dir / "admin.token").stat().st_mode & 0o777 == 0o600
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{node.admin_port}", trust_env=False) as client:
        for headers in ({}, {"Authorization": "Bearer " + "0" * 64}, {"Authorization": "Basic " + token}):
            for method, path in (
                ("POST", "/drain"),
                ("DELETE", "/drain"),
                ("POST", "/maintenance"),
                ("DELETE", "/maintenance"),
            ):
                answer = await client.request(method, path, headers=headers)
                assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (await client.get("/drain")).json()["standing"] == "active"
        client.headers["Authorization"] = f"Bearer {token}"
        begun = (await client.post("/drain", json={"deadline_hours": 48})).json()
        assert (begun["standing"], begun["may_be_stopped"]) == ("draining", False)
        assert begun["deadline"] is not None
        assert (await client.post("/drain")).json()["deadline"] is None
        assert (await client.post("/drain", json={"deadline_hours": 0})).status_code == 400
        assert (await client.get("/status")).json()["standing"] == "draining"
        refused = await client.post("/maintenance", json={"hours": 4})
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert (await client.delete("/drain")).json()["standing"] == "active"
        assert (await client.post("/maintenance", json={"hours": 4})).json()[
            "code"
        ] == "unreachable"  # nobody grants it
        assert (await client.get("/maintenance")).json()["until"] is None


async def test_a_draining_node_refuses_chunks_and_serves_reads(
    coordinator: Coordinator, node: Node, config: NodeConfig
) -> None:
    """By a typed refusal, which is in its heartbeats, too."""
    ask, data = coordinator.requester.request, content(1, 5000)
    await ask(node.peer, StoreChunk(replica(1), merkle_root(data), data), within_seconds=5)
    token = (config.data_dir / "admin.token").read_text().strip()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{node.admin_port}", trust_env=False) as client:
        await client.post("/drain", headers={"Authorization": f"Bearer {token}"})
    with pytest.raises(PeerRefused) as caught:
        await ask(node.peer, StoreChunk(replica(2), merkle_root(data), data), within_seconds=5)
    assert caught.value.refusal == "DRAINING"
    assert await ask(node.peer, RetrieveChunk(replica(1)), within_seconds=5) == ChunkRetrieved(data, len(data))
    assert await ask(node.peer, DeleteChunks((replica(1),)), within_seconds=5) == ChunksDeleted({})


async def test_a_node_that_has_left_does_not_start(config: NodeConfig) -> None:
    """It says since when, and what to do; a standing that cannot be read ends the start, too."""
    StandingFile(config.data_dir).save(NodeStanding("left", datetime(2026, 3, 1, 12, tzinfo=UTC)))
    with pytest.raises(Conflict, match=r"has left the network on 2026-03-01 12:00 UTC .*`fsn node init`"):
        async with open_node(config):
            raise AssertionError("must not open")
    (config.data_dir / "standing.json").write_text("{")
    with pytest.raises(ConfigError, match=r"standing\.json"):
        async with open_node(config):
            raise AssertionError("must not open")


async def test_a_stopping_node_finishes_what_is_under_way(coordinator: Coordinator, config: NodeConfig) -> None:
    """A store that has begun is acknowledged, later requests get BUSY, coordinators hear of the end, and then the connection ends."""
    ask, data = coordinator.requester.request, content(1, 5000)
    farewells: list[Declaration] = []
    slow = SlowStore(capacity_bytes=10**7)

    @asynccontextmanager
    async def open_slow(*_: object) -> AsyncIterator[ChunkStore]:
        yield slow

    async def take(_: PeerId, declaration: Declaration) -> Declared:
        await trio.lowlevel.checkpoint()
        farewells.append(declaration)
        return Declared("online")

    serve_requests(coordinator.transport, {Declaration: take}, may_ask=lambda peer: True)
    outcomes: list[object] = []

    async def store(number: int) -> None:
        try:
            outcomes.append(await ask(peer, StoreChunk(replica(number), merkle_root(data), data), within_seconds=20))
        except PeerRefused as error:
            outcomes.append(error.refusal)

    async def stop() -> None:
        async with open_services(config, open_transport=open_libp2p_transport, open_store=open_slow) as services:
            await until(lambda: any(link.is_connected for link in services.reporting.links))
            started.set()
            await stopping.wait()

    stopping, started = trio.Event(), trio.Event()
    peer = load_identity(config.data_dir / "node.key").peer
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        await started.wait()
        nursery.start_soon(store, 1)
        await slow.begun.wait()
        stopping.set()
        await store(2)
        assert outcomes == ["BUSY"]
        slow.go_on.set()
    assert outcomes == ["BUSY", ChunkStored(replica(1))]
    assert [declaration.standing for declaration in farewells][-1] == Standing.STOPPING
    await until(lambda: not coordinator.transport.is_connected(peer))


async def test_one_process_a_folder(config: NodeConfig, node: Node) -> None:
    """A second start says who runs; the first goes on."""
    with pytest.raises(Conflict, match="in use by process"):
        async with open_node(config):
            raise AssertionError("must not open")
    assert node.health().status == "ok"


async def test_a_taken_admin_port_is_a_configuration_error(config: NodeConfig, node: Node, tmp_path: Path) -> None:
    """A port in use ends the start with the setting's name, and leaves no ports.json."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "node.key").write_bytes((config.data_dir / "node.key").read_bytes())
    (other / "node.key").chmod(0o600)
    taken = attrs.evolve(config, data_dir=other, admin=AdminConfig(port=node.admin_port))
    with pytest.raises(ConfigError, match="in use"):
        async with open_node(taken):
            raise AssertionError("must not open")
    assert not (other / "ports.json").exists()


async def test_errors_of_the_body_come_out_as_they_are(config: NodeConfig) -> None:
    """What is raised inside the block leaves it unwrapped."""
    with pytest.raises(KeyError):
        async with open_node(config):
            raise KeyError("mine")


async def test_garbage_is_listed_restored_and_removed(coordinator: Coordinator, node: Node, config: NodeConfig) -> None:
    """What a coordinator deletes as garbage shows in the status and by the commands, comes back, or goes for good."""
    for number in range(3):
        data = content(number)
        await coordinator.requester.request(
            node.peer, StoreChunk(replica(number), merkle_root(data), data), within_seconds=20
        )
    garbage = DeleteChunks((replica(0), replica(1)), to_trash=True)
    assert await coordinator.requester.request(node.peer, garbage, within_seconds=20) == ChunksDeleted({})
    assert (node.status().trash_count, node.status().trash_bytes, node.status().chunk_count) == (2, 2000, 1)

    async def run(*arguments: str) -> str:
        words = ["node", *arguments, "--data-dir", str(config.data_dir)]
        result = await trio.to_thread.run_sync(partial(CliRunner().invoke, fsn, words))
        assert result.exit_code == 0, result.output
        return str(result.output)

    assert replica(0).hex in await run("trash", "list")
    assert '"restored": 1' in await run("trash", "restore", replica(0).hex, "--json")
    assert await node.store.retrieve(replica(0)) == (content(0), 1000)
    assert "1 replicas removed" in await run("trash", "empty")
    assert node.status().trash_count == 0
    await run("scrub", "now")
    assert node.status().scrub.hurries
    assert "scrub:" in await run("status")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{node.admin_port}", trust_env=False) as client:
        for path in ("/trash/restore", "/trash/empty", "/scrub"):
            assert (await client.post(path, json={"ids": ["x"]})).status_code == 401
        assert (await client.get("/trash?cursor=x")).status_code == 400


async def test_a_loss_is_reported_to_the_coordinator(coordinator: Coordinator, node: Node, config: NodeConfig) -> None:
    """A chunk that is gone from the disk is found by reading all, and its coordinator is told, once."""
    told: list[ReportLosses] = []

    async def take(_: PeerId, message: ReportLosses) -> Response:
        told.append(message)
        return LossesReported()

    serve_requests(coordinator.transport, {ReportLosses: take}, may_ask=lambda peer: True)
    data = content(7)
    await coordinator.requester.request(node.peer, StoreChunk(replica(7), merkle_root(data), data), within_seconds=20)
    Layout(config.data_dir).final(replica(7)).unlink()
    node._services.scrubbing.hurry()
    await until(lambda: bool(told))
    assert told[0] == ReportLosses({replica(7): "missing"})
    while await node.store.losses(10):  # noqa: ASYNC110 - the answer is on its way
        await trio.sleep(0.01)
