"""A whole node over real TCP: a coordinator's peer stores and reads through it; ports, admin API, one process a folder."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import httpx
import pytest
import trio

from fsn.core.errors import ConfigError, Conflict, PeerRefused, StorageError
from fsn.core.ids import PeerId
from fsn.core.merkle import merkle_root
from fsn.daemon.node import Node, open_node
from fsn.node.config import AdminConfig, NodeConfig
from fsn.node.registration import Application, initialise
from fsn.p2p.client import Requester, open_requester
from fsn.p2p.config import P2pConfig
from fsn.p2p.server import serve_requests
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.p2p.wire.messages import (
    ChunkRetrieved,
    ChunksDeleted,
    ChunkStored,
    DeleteChunks,
    Heartbeat,
    HeartbeatAnswer,
    RetrieveChunk,
    StoreChunk,
)
from fsn.runtime.identity import Identity
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


async def test_the_heartbeat_tells_how_the_node_is(coordinator: Coordinator, node: Node) -> None:
    """Counts, sizes, version and addresses are in it."""
    (heartbeat,) = coordinator.heartbeats
    assert heartbeat.chunk_count == 0
    assert heartbeat.free_bytes == 10**7
    assert heartbeat.addresses == (f"/ip4/127.0.0.1/tcp/{node.p2p_port}",)


async def test_ports_are_published_while_it_runs(config: NodeConfig) -> None:
    """`ports.json` holds the ports in force from when they listen until the node stops."""
    file = config.data_dir / "ports.json"
    async with open_node(config) as running:
        ports = json.loads(file.read_text())
        assert ports == {"admin": running.admin_port, "p2p_tcp": running.p2p_port, "p2p_quic": None}
        assert ports["admin"] and ports["p2p_tcp"]
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
        assert status["coordinators"][0]["earned_micro_credits"] == 1_500_000
        first = (await client.get("/chunks", params={"limit": 2})).json()
        rest = (await client.get("/chunks", params={"cursor": first["next_cursor"]})).json()
        assert [chunk["id"] for chunk in first["chunks"] + rest["chunks"]] == [replica(n).hex for n in range(3)]
        assert rest["next_cursor"] is None
        assert "fsn_node_chunks 3.0" in (await client.get("/metrics")).text
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
