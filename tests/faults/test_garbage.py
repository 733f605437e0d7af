"""Garbage thrown at every port of running daemons: it is logged, and they go on serving."""

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import structlog.testing
import trio

import fsn
from fsn.daemon.coordinator import Coordinator
from fsn.daemon.node import Node
from fsn.node.config import AdminConfig
from tests.faults.network import content, get, put

LOCAL = fsn.P2pConfig(listen_host="127.0.0.1", tcp_port=0)
GREETING = b"\x13/multistream/1.0.0\n"
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))
GARBAGE = (
    b"",
    b"\0" * 5000,
    b"\xff" * 100_000,
    b"\r\n" * 1000,
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000,
    b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{",
    b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"PUT /api/v1/files?filename=%00%ff HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nContent-Length: 5\r\n\r\nhello",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    TLS_HELLO,
    TLS_HELLO[:20],
    GREETING,
    GREETING[:7],
    GREETING + b"\x07/noise\n",
    GREETING + b"\x07/noise\n\0\x20" + bytes(32),
    GREETING + b"\x07/noise\n" + os.urandom(70_000),
    GREETING + b"\xff\xff\xff\xff\x0f" + bytes(1000),
    os.urandom(1000),
    os.urandom(300_000),
)


async def throw(port: int, data: bytes, *, slams: bool) -> None:
    """Connect, send, wait a moment for what comes; leave properly or not."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(1):
        await stream.send_all(data)
        if not slams:
            await stream.send_eof()
            while await stream.receive_some():
                pass
    await trio.aclose_forcefully(stream)


async def run_node(config: fsn.NodeConfig, task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED) -> None:
    """A node, until cancelled."""
    async with fsn.open_node(config) as node:
        task_status.started(node)
        await trio.sleep_forever()


async def initialised(folder: Path, url: str) -> fsn.NodeConfig:
    """The settings of a node that has registered; its ports are free ones."""
    application = fsn.Application(
        data_dir=folder, name=folder.name, coordinator_url=url, capacity_bytes=10**9, p2p=LOCAL,
        admin=AdminConfig(port=0),
    )  # fmt: skip
    return (await fsn.initialise(application)).config


@pytest.fixture
async def daemons(tmp_path: Path, database_dsn: str) -> AsyncIterator[tuple[Coordinator, list[Node]]]:
    """A coordinator and three nodes over real sockets, in this process."""
    config = fsn.CoordinatorConfig(
        data_dir=tmp_path / "coordinator", http=fsn.HttpConfig(port=0), p2p=LOCAL,
        database=fsn.DatabaseConfig(dsn=database_dsn),
    )  # fmt: skip
    async with fsn.open_coordinator(config) as coordinator, trio.open_nursery() as nursery:
        nodes: list[Node] = []
        for number in range(3):
            nodes.append(await nursery.start(run_node, await initialised(tmp_path / f"node{number}", coordinator.url)))
        while coordinator.nodes_online < 3:  # noqa: ASYNC110 - what a program would do as well
            await trio.sleep(0.05)
        yield coordinator, nodes
        nursery.cancel_scope.cancel()


async def test_garbage_at_every_port(
    daemons: tuple[Coordinator, list[Node]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything from noise to half a handshake, at the API, at nodes' admin APIs and at libp2p, while files go up and down."""
    coordinator, nodes = daemons
    ports = [coordinator.http_port, coordinator.p2p_port, nodes[0].admin_port, nodes[0].p2p_port]
    with structlog.testing.capture_logs() as logs:
        async with httpx.AsyncClient(base_url=coordinator.url, timeout=30) as user:
            body = {"email": "ann@example.com", "password": "secret1"}
            await user.post("/api/v1/auth/register", json=body)
            token = (await user.post("/api/v1/auth/login", json=body)).json()["token"]
            user.headers["Authorization"] = f"Bearer {token}"
            async with trio.open_nursery() as nursery:
                for port in ports:
                    assert port is not None
                    for number, data in enumerate(GARBAGE):
                        nursery.start_soon(throw_later, port, data, number)
                data = content(6)
                for _ in range(3):
                    assert await get(user, await put(user, data)) == (200, data, True)
            assert await get(user, await put(user, data)) == (200, data, True)
            assert (await user.get("/health")).json()["nodes_online"] == 3
    said = {entry["event"] for entry in logs}
    assert "http_request" in said
    assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")]
    assert "Traceback" not in capfd.readouterr().err
    assert all(node.health().status == "ok" for node in nodes)


async def throw_later(port: int, data: bytes, number: int) -> None:
    """One after the other begins, so that files go up and down among them."""
    await trio.sleep(number * 0.02)
    await throw(port, data, slams=number % 2 == 0)
