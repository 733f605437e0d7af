"""A coordinator and its storage nodes as real processes on this machine, started in order and gone at the end."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

import attrs
import trio

from fsn.client import Client
from fsn.core.errors import PeerTimeout, Unavailable, Unreachable

__all__ = [
    "Daemon",
    "LocalNetwork",
    "Warden",
    "free_port",
    "make_folder",
    "open_daemon",
    "open_local_network",
    "open_warden",
]

_START_SECONDS = 90.0
"""A first start copies and initialises PostgreSQL, which takes some seconds on a slow disk."""
_JOIN_SECONDS = 60.0
_NODE_STOP_SECONDS = 15.0
_COORDINATOR_STOP_SECONDS = 40.0
"""Requests may end for up to 30 s; then PostgreSQL stops."""
_POLL_SECONDS = 0.1


@attrs.define(eq=False)
class Daemon:
    """One process of ours; `ports` are those it listens on, by the names of `ports.json`."""

    name: str
    folder: Path
    log: Path
    process: trio.Process
    ports: dict[str, int | None] = attrs.Factory(dict)

    def kill(self) -> None:
        """SIGKILL, to whatever it may have started as well; harmless when it has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def log_tail(self, lines: int = 20) -> str:
        """The end of its log, for a person."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def replicas(self) -> list[int]:
        """The sizes in bytes of the sealed replicas that lie on this node's disk, counted there."""
        return [path.stat().st_size for path in (self.folder / "chunks").glob("??/??/*") if len(path.name) == 32]

    async def stop(self, within_seconds: float) -> None:
        """Ask it to stop, and kill it when it has not after `within_seconds`."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        with trio.move_on_after(within_seconds):
            await self.process.wait()
        self.kill()
        await self.process.wait()


@attrs.define(eq=False)
class LocalNetwork:
    """What runs."""

    url: str
    coordinator: Daemon
    nodes: list[Daemon] = attrs.Factory(list)


def free_port(wanted: int) -> int:
    """`wanted` if nobody listens on it here, else 0 (= any)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def make_folder(folder: Path) -> None:
    """Make `folder` if need be. As root the embedded PostgreSQL runs as a system user, who must be able to pass through."""
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700)
        if os.geteuid() == 0:
            folder.chmod(0o711)


def _environment() -> dict[str, str]:
    """Ours, without settings that are meant for other daemons than these."""
    return {key: value for key, value in os.environ.items() if not key.startswith("FSN_")} | {"PYTHONUNBUFFERED": "1"}


def _fsn(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fsn.cli.main", *arguments]


class Warden:
    """The process that ends our daemons should we be killed; see `fsn.cli.orphans`."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._groups: set[int] = set()

    def tell(self, word: str) -> None:
        """Pass on one line; harmless when the warden is gone."""
        with suppress(BrokenPipeError):
            self._pipe.write(word.encode() + b"\n")
            self._pipe.flush()

    def began(self, group: int) -> None:
        """A process group to be ended, should we die."""
        self._groups.add(group)
        self.tell(f"+{group}")

    def ended(self, group: int) -> None:
        """That process group is gone."""
        self._groups.discard(group)
        self.tell(f"-{group}")

    def dismiss(self) -> None:
        """Nothing is left to do, unless daemons still run (a second Ctrl-C came while they were being stopped)."""
        if not self._groups:
            self.tell("done")
        with suppress(BrokenPipeError):
            self._pipe.close()


@contextmanager
def open_warden(remove: Path | None = None) -> Iterator[Warden]:
    """A warden for the length of the block; should we be killed in it, it also removes the folder `remove`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fsn.cli.orphans"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(),
        start_new_session=True,
    )
    assert process.stdin is not None
    warden = Warden(process.stdin)
    if remove is not None:
        warden.tell(f"remove {remove}")
    try:
        yield warden
    finally:
        warden.dismiss()
        process.wait(60)


@asynccontextmanager
async def open_daemon(
    warden: Warden, name: str, folder: Path, arguments: list[str], stop_seconds: float, settings: Mapping[str, str] = {}
) -> AsyncIterator[Daemon]:
    """A daemon that listens when the block begins and has ended when it is left."""
    ports_file, log = folder / "ports.json", folder.with_name(f"{name}.log")
    ports_file.unlink(missing_ok=True)
    with log.open("ab") as output:
        process = await trio.lowlevel.open_process(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**_environment(), **settings},
            start_new_session=True,
        )
    warden.began(process.pid)
    daemon = Daemon(name, folder, log, process)
    try:
        daemon.ports = await _wait_for_ports(daemon, ports_file)
        yield daemon
    finally:
        with trio.CancelScope(shield=True):
            await daemon.stop(stop_seconds)
        warden.ended(process.pid)


async def _wait_for_ports(daemon: Daemon, ports_file: Path) -> dict[str, int | None]:
    with trio.move_on_after(_START_SECONDS):
        while daemon.process.poll() is None:
            if ports_file.exists():  # noqa: ASYNC240 - one stat, ten times a second
                return dict(json.loads(ports_file.read_bytes()))  # noqa: ASYNC240 - some bytes
            await trio.sleep(_POLL_SECONDS)
        raise _failed(daemon, f"ended with code {daemon.process.returncode} instead of starting")
    raise _failed(daemon, f"did not start within {_START_SECONDS:.0f} s")


def _failed(daemon: Daemon, what: str) -> Unavailable:
    print(f"--- end of {daemon.log}\n{daemon.log_tail()}\n---", file=sys.stderr)
    return Unavailable(f"{daemon.name} {what}; the end of its log is above")


@asynccontextmanager
async def open_local_network(
    folder: Path, *, nodes: int, http_port: int, say: Callable[[str], None], remove: Path | None = None,
    settings: Mapping[str, str] = {},
) -> AsyncIterator[LocalNetwork]:  # fmt: skip
    """A coordinator on `http_port` (0 = any) and `nodes` storage nodes that are all online when the block begins.

    `settings` are the coordinator's, by the names of their environment variables.

    Their folders and logs lie below `folder`. Raises Unavailable, with the end of the log on stderr, when one does not start, and
    PeerTimeout when the nodes do not join. When the block is left, by whatever way, no process is left; should this process be
    killed, another sees to that and removes the folder `remove`.
    """
    with open_warden(remove) as warden:
        async with _open_coordinator(warden, folder / "coordinator", http_port, settings) as coordinator:
            network = LocalNetwork(f"http://127.0.0.1:{coordinator.ports['http']}", coordinator)
            say(f"The coordinator answers at {network.url} (PostgreSQL included).")
            async with _open_nodes(warden, network, folder, nodes):
                await _wait_until_online(network, nodes)
                say(f"{nodes} storage nodes are online.")
                yield network


@asynccontextmanager
async def _open_coordinator(
    warden: Warden, folder: Path, http_port: int, settings: Mapping[str, str]
) -> AsyncIterator[Daemon]:
    make_folder(folder)
    flags = ["--data-dir", str(folder), "--http-port", str(http_port), "--p2p-port", "0"]
    try:
        async with open_daemon(
            warden, "coordinator", folder, _fsn("coordinator", "start", *flags), _COORDINATOR_STOP_SECONDS, settings
        ) as daemon:
            yield daemon
    finally:
        _end_postgres(folder)


def _end_postgres(folder: Path) -> None:
    """End an embedded PostgreSQL whose coordinator had to be killed: it lives in a session of its own."""
    for note in (*folder.glob("*/postmaster.pid"), *folder.glob("*/*/postmaster.pid")):
        with suppress(OSError, ValueError, IndexError):
            pid = int(note.read_text().split()[0])
            # the number may be another process's by now: a postmaster's working folder is its data folder
            if Path(f"/proc/{pid}/cwd").resolve() == note.parent.resolve():
                os.kill(pid, signal.SIGQUIT)


@asynccontextmanager
async def _open_nodes(warden: Warden, network: LocalNetwork, folder: Path, count: int) -> AsyncIterator[None]:
    """All nodes; they start together and stop together."""
    leave = trio.Event()
    async with trio.open_nursery() as nursery:
        try:
            await _start_nodes(nursery, warden, network, folder, count, leave)
            yield
        finally:
            leave.set()


async def _start_nodes(
    nursery: trio.Nursery, warden: Warden, network: LocalNetwork, folder: Path, count: int, leave: trio.Event
) -> None:
    """All at once: most of a start is one processor's work, importing."""

    async def start(number: int) -> None:
        name = f"node-{number}"
        network.nodes.append(await nursery.start(_run_node, warden, network.url, folder / name, leave, name=name))

    async with trio.open_nursery() as starting:
        for number in range(1, count + 1):
            starting.start_soon(start, number)
    network.nodes.sort(key=lambda node: int(node.name.removeprefix("node-")))


async def _run_node(
    warden: Warden,
    url: str,
    folder: Path,
    leave: trio.Event,
    *,
    task_status: trio.TaskStatus[Daemon] = trio.TASK_STATUS_IGNORED,
) -> None:
    await _init_node(url, folder)
    start = _fsn("node", "start", "--data-dir", str(folder))
    async with open_daemon(warden, folder.name, folder, start, _NODE_STOP_SECONDS) as daemon:
        task_status.started(daemon)
        await leave.wait()


async def _init_node(url: str, folder: Path) -> None:
    flags = ["--data-dir", str(folder), "--name", folder.name, "--coordinator-url", url]
    command = _fsn("node", "init", *flags, "--p2p-port", "0", "--admin-port", "0")
    run = partial(trio.run_process, command, env=_environment(), check=False, capture_stdout=True, capture_stderr=True)
    with trio.move_on_after(_START_SECONDS):
        result = await run()
        if result.returncode:
            said = result.stderr.decode(errors="replace").strip()
            raise Unavailable(f"`node init` for {folder.name} ended with code {result.returncode}: {said}")
        return
    raise PeerTimeout(f"`node init` for {folder.name} did not end within {_START_SECONDS:.0f} s")


async def _wait_until_online(network: LocalNetwork, wanted: int) -> None:
    online = 0
    async with Client(network.url) as client:
        with trio.move_on_after(_JOIN_SECONDS):
            while True:
                with suppress(Unreachable, Unavailable):
                    online = [node.status async for node in client.nodes()].count("online")
                if online >= wanted:
                    return
                await trio.sleep(_POLL_SECONDS)
    raise PeerTimeout(f"{wanted} nodes should be online; after {_JOIN_SECONDS:.0f} s {online} are")
