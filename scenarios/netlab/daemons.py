"""A coordinator and storage nodes of fsn on hosts of the lab: real processes, started, asked, stopped and killed."""

import os
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import trio

from fsn.node.contacts import load_contacts
from fsn.runtime.data_folder import read_ports
from fsn.sim.cheating import How
from scenarios.netlab.asking import ask
from scenarios.netlab.hosts import Host
from scenarios.netlab.processes import Process

__all__ = ["Coordinator", "Daemon", "FsnFailed", "StorageNode", "environment", "run_fsn"]

START_SECONDS: Final = 180.0
"""A start takes 3 s alone on a machine."""
STOP_SECONDS: Final = 60.0
_HTTP_PORT: Final = 8080
_P2P_PORT: Final = 4001
_SETTINGS: Final = """
[accounts]
bcrypt_cost = 4
"""
# As root the embedded PostgreSQL runs as a user that is there already, rather than make one on this machine.
_AS_ROOT: Final = """
[database]
embedded_run_as = "nobody"
"""


class FsnFailed(Exception):
    """A command of fsn ended with a code other than 0; the text has the end of what it said."""

    def __init__(self, command: str, code: int, said: str) -> None:
        super().__init__(f"fsn {command} ended with code {code}: {said}")
        self.code = code


def fsn(*arguments: str) -> list[str]:
    """The command line of `fsn` as installed beside us."""
    return [sys.executable, "-m", "fsn.cli.main", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Ours, without settings of other daemons."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FSN_")} | more


async def run_fsn(host: Host, name: str, *arguments: str, **more: str) -> str:
    """Run a command of fsn on a host to its end, and return what it said. Raises FsnFailed."""
    process = await host.spawn(name, *fsn(*arguments), environment=environment(**more))
    if code := await process.wait():
        raise FsnFailed(" ".join(arguments), code, process.log_tail())
    return process.said()


class Daemon:
    """A long-running process of fsn and its folder, which a new start finds again."""

    def __init__(self, host: Host, *start: str) -> None:
        self.host = host
        self.folder: Path = host.folder / "data"
        self._start = start
        self._process: Process | None = None

    @property
    def name(self) -> str:
        """That of its host."""
        return self.host.name

    async def start(self) -> None:
        """Start (again), and wait until it listens."""
        (self.folder / "ports.json").unlink(missing_ok=True)
        self._process = await self.host.spawn("daemon", *self._command(), environment=environment())
        with trio.fail_after(START_SECONDS):
            while not self.ports:
                if not self._process.is_running:
                    raise FsnFailed(" ".join(self._start), await self._process.wait(), self.log_tail())
                await trio.sleep(0.05)

    def _command(self) -> list[str]:
        return fsn(*self._start, "--data-dir", str(self.folder))

    async def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        assert self._process is not None
        self._process.send(signal.SIGTERM)
        with trio.fail_after(STOP_SECONDS):
            return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """A signal to the process alone."""
        assert self._process is not None
        self._process.send(number)

    @property
    def ports(self) -> dict[str, int | None]:
        """Where it listens; empty until it does."""
        return dict(read_ports(self.folder))

    def log_tail(self, lines: int = 15) -> str:
        """The end of its log."""
        return "" if self._process is None else self._process.log_tail(lines)

    def log_count(self, word: str) -> int:
        """How often its log has `word`, from its first start on."""
        return 0 if self._process is None else self._process.log_count(word)


class Coordinator(Daemon):
    """A coordinator with an embedded PostgreSQL, on port 8080 for users and 4001 for nodes."""

    def __init__(self, host: Host, settings: str = "") -> None:
        """`settings` is TOML beside ours."""
        super().__init__(host, "coordinator", "start")
        self._settings = settings

    @property
    def url(self) -> str:
        """Its API, at the address that its host has now."""
        return f"http://{self.host.address}:{_HTTP_PORT}"

    async def start(self) -> None:
        """Start (again), and wait until it listens: on every address, so that it survives a change of it."""
        if not self.folder.exists():
            self._configure()
        await super().start()

    def _configure(self) -> None:
        for folder in (self.host.folder, self.folder):
            folder.mkdir(mode=0o711, exist_ok=True)
        places = f'[http]\nhost = "0.0.0.0"\nport = {_HTTP_PORT}\n[p2p]\ntcp_port = {_P2P_PORT}\n'
        as_root = _AS_ROOT if os.geteuid() == 0 else ""
        (self.folder / "coordinator.toml").write_text(places + _SETTINGS + as_root + self._settings)

    async def health(self) -> dict[str, Any] | None:
        """What it says of itself, asked on its own host; None while it does not answer."""
        return await ask(self.host, f"{self.url}/health")

    async def nodes_online(self) -> int:
        """How many nodes it counts as there; -1 while it does not answer."""
        health = await self.health()
        return -1 if health is None else int(health["nodes_online"])

    async def proofs_of(self, node: "StorageNode") -> dict[str, Any] | None:
        """What anybody may know of a node's proofs; None while it does not answer, or knows no such node."""
        listed = await ask(self.host, f"{self.url}/api/v1/nodes")
        ids = [each["id"] for each in (listed or {"nodes": []})["nodes"] if each["name"] == node.name]
        return await ask(self.host, f"{self.url}/api/v1/nodes/{ids[0]}/proofs") if ids else None

    async def status_of(self, node: "StorageNode") -> str | None:
        """How it counts a node: "online" and so on."""
        listed = await ask(self.host, f"{self.url}/api/v1/nodes")
        found = {each["name"]: str(each["status"]) for each in (listed or {"nodes": []})["nodes"]}
        return found.get(node.name)


class StorageNode(Daemon):
    """A storage node."""

    def __init__(self, host: Host, p2p_port: int = 0, cheats: How | None = None) -> None:
        """`cheats`: how its program cheats at proofs, see `cheater.py`."""
        super().__init__(host, "node", "start")
        self._p2p_port = p2p_port
        self._cheats = cheats

    def _command(self) -> list[str]:
        if self._cheats is None:
            return super()._command()
        return [sys.executable, "-P", str(Path(__file__).with_name("cheater.py")), self._cheats, str(self.folder)]

    async def init(self, coordinator_url: str, *flags: str) -> None:
        """Make its key and register it. Raises FsnFailed."""
        ports = ("--p2p-port", str(self._p2p_port), "--admin-port", "0")
        told = ("--data-dir", str(self.folder), "--name", self.name, "--coordinator-url", coordinator_url)
        await run_fsn(self.host, "init", "node", "init", *told, *ports, *flags)

    async def status(self) -> dict[str, Any] | None:
        """What its admin API says on its own host; None while it does not answer."""
        return await ask(self.host, f"http://127.0.0.1:{self.ports.get('admin')}/status")

    @property
    def connections(self) -> int:
        """How often it has got in touch with a coordinator."""
        return self.log_count("coordinator_connected")

    async def is_connected(self) -> bool:
        """Whether it says that it is in touch with a coordinator."""
        status = await self.status()
        return status is not None and any(link["connected"] for link in status["coordinators"])

    async def has_met_nodes(self) -> bool:
        """Whether its folder names other nodes, through which it would look for a coordinator that is lost."""
        await trio.lowlevel.checkpoint()
        return bool(load_contacts(self.folder, datetime.now(UTC)).nodes)

    def replicas(self) -> dict[str, int]:
        """What lies on its disk: sizes in bytes by replica id."""
        return {path.name: path.stat().st_size for path in self._files()}

    def delete_files(self) -> int:
        """Its owner deletes the files of all chunks behind its back. How many."""
        found = list(self._files())
        for path in found:
            path.unlink()
        return len(found)

    def _files(self) -> Iterator[Path]:
        return (path for path in self.folder.glob("chunks/??/??/*") if len(path.name) == 32)
