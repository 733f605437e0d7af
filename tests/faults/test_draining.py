"""`fsn node drain` and `fsn node maintenance` on real processes: a node leaves, another is away, and a file stays whole."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.faults.processes import Process, Processes, open_processes

pytestmark = pytest.mark.slow

NODES = 5
CONTENT = bytes(range(256)) * 1024 * 20
"""Twenty chunks."""
PATIENCE_SECONDS = 300


@pytest.fixture
def dsn(postgres_dsn: str) -> Iterator[str]:
    """A database of its own."""
    name = "fsn_draining"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"drop database if exists {name} with (force)")
        connection.execute(f"create database {name}")
    yield psycopg.conninfo.make_conninfo(postgres_dsn, dbname=name)


@pytest.fixture
def network(dsn: str, tmp_path: Path) -> Iterator[Processes]:
    """A coordinator and five nodes."""
    with open_processes(tmp_path, dsn, NODES) as network:
        yield network


def run(node: Process, *words: str) -> subprocess.CompletedProcess[str]:
    """`fsn node ...` for the folder of that node."""
    command = [sys.executable, "-m", "fsn.cli.main", "node", *words, "--data-dir", str(node.folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


def upload(url: str) -> httpx.Client:
    """A user with a file of three replicas; a client that is logged in."""
    client = httpx.Client(base_url=url, timeout=60, trust_env=False)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while client.get("/health").json()["nodes_online"] < NODES:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    body = {"email": "ann@example.com", "password": "secret1"}
    client.post("/api/v1/auth/register", json=body).raise_for_status()
    client.headers["Authorization"] = f"Bearer {client.post('/api/v1/auth/login', json=body).json()['token']}"
    client.put("/api/v1/files", params={"filename": "f"}, content=CONTENT).raise_for_status()
    return client


def test_a_node_leaves_and_another_is_away(network: Processes, dsn: str) -> None:
    """Drained with progress, the node ends as left and empty; the file has three replicas elsewhere; what has left does not start again."""
    with closing(upload(network.url)) as client:
        name, node = max(network.nodes.items(), key=lambda item: len(item[1].replicas()))
        held = len(node.replicas())
        assert held
        drained = run(node, "drain", "--deadline", "48h", "--json")
        assert drained.returncode == 0, drained.stderr
        assert "draining" in drained.stderr
        told = json.loads(drained.stdout)
        assert (told["standing"], told["may_be_stopped"], told["replicas_total"]) == ("left", True, held)
        assert node.replicas() == {}
        assert client.get(f"/api/v1/nodes/{name}").json()["status"] == "left"
        assert "left since" in run(node, "status").stdout
        assert run(node, "drain").returncode == 0  # again is harmless
        assert run(node, "drain", "--cancel").returncode == 5
        check_whole(client, dsn, without=name)

        node.send(signal.SIGTERM)
        assert node.process is not None
        assert node.process.wait(60) == 0
        again = run(node, "start")
        assert (again.returncode, "has left the network" in again.stderr) == (5, True)

        away = next(other for key, other in network.nodes.items() if key != name)
        assert run(away, "maintenance", "start", "--hours", "73").returncode == 2
        started = run(away, "maintenance", "start", "--hours", "4", "--reason", "a new disk")
        assert started.returncode == 0, started.stderr
        assert "in maintenance until" in started.stdout
        assert "maintenance since" in run(away, "status").stdout
        assert "(a new disk)" in run(away, "maintenance", "status").stdout
        assert run(away, "maintenance", "end").returncode == 0
        away.send(signal.SIGTERM)
        assert away.process is not None
        assert away.process.wait(60) == 0
        for words in (("maintenance", "start", "--hours", "4"), ("drain",)):
            ended = run(away, *words)
            assert (ended.returncode, "does not run" in ended.stderr) == (7, True)
        check_whole(client, dsn, without=name)


def check_whole(client: httpx.Client, dsn: str, without: str) -> None:
    """The file comes back, and each chunk has three replicas, none of them on that node."""
    (file,) = client.get("/api/v1/files").json()["files"]
    assert client.get(f"/api/v1/files/{file['id']}/download").content == CONTENT
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select chunk_index, node_id::text from replicas where state = 'live'").fetchall()
    assert without not in {node for _, node in rows}
    assert Counter(index for index, _ in rows) == dict.fromkeys(range(20), 3)
