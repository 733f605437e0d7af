"""A network of real processes for a benchmark: one coordinator, its PostgreSQL, some nodes, one user."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
import httpx

from bench.processes import cpu_seconds, descendants

__all__ = ["BenchNetwork", "open_network"]

FSN = [sys.executable, "-m", "fsn.cli.main"]
START_SECONDS = 120.0


@attrs.define
class BenchNetwork:
    """The processes and the user's way in."""

    folder: Path
    coordinator: subprocess.Popen[bytes]
    nodes: list[subprocess.Popen[bytes]]
    url: str
    token: str = attrs.field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The user's credentials."""
        return {"Authorization": f"Bearer {self.token}"}

    def pids(self) -> dict[str, list[int]]:
        """All processes by part. PostgreSQL runs in a session of its own; it is found by its postmaster."""
        postmaster = int((self.folder / "coordinator/postgres/data/postmaster.pid").read_text().split()[0])
        return {
            "coordinator": [self.coordinator.pid],
            "nodes": [node.pid for node in self.nodes],
            "postgres": descendants(postmaster),
        }

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by part."""
        return {part: cpu_seconds(pids) for part, pids in self.pids().items()}


@contextmanager
def open_network(
    nodes: int = 5, *, wrap: list[str] | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[BenchNetwork]:
    """A fresh network in a temporary folder; `wrap` goes before the coordinator's command (a profiler, say), `settings` into its
    environment."""
    with tempfile.TemporaryDirectory(prefix="fsn-bench-", dir=os.environ.get("FSN_BENCH_DIR", "/var/tmp")) as name:
        folder = Path(name)
        folder.chmod(0o711)
        started: list[subprocess.Popen[bytes]] = []
        try:
            network = _start(folder, nodes, started, wrap or [], settings or {})
            yield network
        finally:
            for process in reversed(started):
                process.terminate()
            for process in reversed(started):
                _wait(process)


def _start(
    folder: Path, nodes: int, started: list[subprocess.Popen[bytes]], wrap: list[str], settings: Mapping[str, str]
) -> BenchNetwork:
    data = folder / "coordinator"
    flags = ["--data-dir", str(data), "--http-port", "0", "--p2p-port", "0", "--host", "127.0.0.1"]
    started.append(_spawn([*wrap, *FSN, "coordinator", "start", *flags], folder / "coordinator.log", settings))
    url = f"http://127.0.0.1:{_ports(data)['http']}"
    for number in range(nodes):
        node = folder / f"node{number}"
        init = ["--data-dir", str(node), "--name", node.name, "--coordinator-url", url, "--capacity", "20GB"]
        subprocess.run([*FSN, "node", "init", *init, "--admin-port", "0"], check=True, capture_output=True, timeout=60)
        started.append(_spawn([*FSN, "node", "start", "--data-dir", str(node)], folder / f"node{number}.log"))
    _wait_online(url, nodes)
    return BenchNetwork(folder, started[0], started[1:], url, _user(url))


def _spawn(command: list[str], log: Path, settings: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **(settings or {})}
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environment)


def _ports(data: Path) -> dict[str, int]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            found: dict[str, int] = json.loads((data / "ports.json").read_text())
        except (FileNotFoundError, ValueError):
            time.sleep(0.1)
        else:
            return found
    raise TimeoutError(f"{data} did not start within {START_SECONDS:g} s")


def _wait_online(url: str, nodes: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while httpx.get(f"{url}/health").json()["nodes_online"] < nodes:
        if time.monotonic() > deadline:
            raise TimeoutError(f"fewer than {nodes} nodes came online within {START_SECONDS:g} s")
        time.sleep(0.1)


def _user(url: str) -> str:
    body = {"email": "bench@example.com", "password": "bench-only"}
    httpx.post(f"{url}/api/v1/auth/register", json=body).raise_for_status()
    token: str = httpx.post(f"{url}/api/v1/auth/login", json=body).raise_for_status().json()["token"]
    return token


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
