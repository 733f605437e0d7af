"""Coordinators and nodes as processes that can be killed, stopped and started again on the same folders."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from fsn.cli.local_network import Warden, make_folder, open_warden
from fsn.core.ids import ReplicaId, parse_uuid

START_SECONDS = 90.0
SETTINGS = """
[upload]
store_seconds = 5
chunk_seconds = 40

[download]
retrieve_seconds = 5

[membership]
suspect_seconds = 3
"""


@attrs.define(eq=False)
class Process:
    """One daemon and its folder."""

    warden: Warden
    folder: Path
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start (again), and wait until it listens."""
        self.launch()
        self.wait_listening()

    def launch(self) -> None:
        """Start (again)."""
        (self.folder / "ports.json").unlink(missing_ok=True)
        with self.folder.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fsn.cli.main", *self.arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.warden.began(self.process.pid)

    def wait_listening(self) -> None:
        """Until it has said where it listens."""
        deadline = time.monotonic() + START_SECONDS
        while not (self.folder / "ports.json").exists():
            assert self.process is not None
            assert self.process.poll() is None, self.log()[-3000:]
            assert time.monotonic() < deadline, self.log()[-3000:]
            time.sleep(0.05)

    @property
    def ports(self) -> dict[str, int]:
        """Where it listens."""
        return dict(json.loads((self.folder / "ports.json").read_bytes()))

    def send(self, number: signal.Signals) -> None:
        """A signal to the process alone."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """kill -9, and nothing else of it runs."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.warden.ended(self.process.pid)
            self.process = None

    def log(self) -> str:
        """All it said so far."""
        return self.folder.with_suffix(".log").read_text(errors="replace")

    def replicas(self) -> dict[ReplicaId, Path]:
        """What lies on a node's disk."""
        found = (self.folder / "chunks").glob("??/??/*")
        return {ReplicaId(number): path for path in found if (number := parse_uuid(path.name)) is not None}


@attrs.define(eq=False)
class Processes:
    """A coordinator and its nodes."""

    coordinator: Process
    nodes: dict[str, Process]
    """By node id."""

    @property
    def url(self) -> str:
        """The coordinator's API."""
        return f"http://127.0.0.1:{self.coordinator.ports['http']}"


@contextmanager
def open_processes(folder: Path, dsn: str, nodes: int) -> Iterator[Processes]:
    """A network with little patience over a database that is there; all of it is gone when the block is left."""
    with open_warden() as warden:
        home = folder / "coordinator"
        make_folder(home)
        (home / "coordinator.toml").write_text(SETTINGS)
        flags = ["--data-dir", str(home), "--http-port", "0", "--p2p-port", "0", "--host", "127.0.0.1", "--dsn", dsn]
        network = Processes(Process(warden, home, ["coordinator", "start", *flags]), {})
        try:
            network.coordinator.start()
            _fix_ports(network.coordinator)
            _start_nodes(warden, network, folder, nodes)
            yield network
        finally:
            for process in (*network.nodes.values(), network.coordinator):
                process.kill()


def _fix_ports(coordinator: Process) -> None:
    """Started again, it must be where its nodes look for it."""
    for flag, name in (("--http-port", "http"), ("--p2p-port", "p2p_tcp")):
        coordinator.arguments[coordinator.arguments.index(flag) + 1] = str(coordinator.ports[name])


def _start_nodes(warden: Warden, network: Processes, folder: Path, count: int) -> None:
    homes = [folder / f"node-{number}" for number in range(count)]
    makers = [_init(network.url, home) for home in homes]
    for home, maker in zip(homes, makers, strict=True):
        said, _ = maker.communicate(timeout=START_SECONDS)
        process = Process(warden, home, ["node", "start", "--data-dir", str(home)])
        network.nodes[json.loads(said)["node_id"]] = process
        process.launch()
    for process in network.nodes.values():
        process.wait_listening()


def _init(url: str, home: Path) -> subprocess.Popen[bytes]:
    flags = [
        "--data-dir",
        str(home),
        "--name",
        home.name,
        "--coordinator-url",
        url,
        "--p2p-port",
        "0",
        "--admin-port",
        "0",
        "--json",
    ]
    return subprocess.Popen([sys.executable, "-m", "fsn.cli.main", "node", "init", *flags], stdout=subprocess.PIPE)
