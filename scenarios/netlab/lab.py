"""A lab: declare hosts and routers, bring them up, partition them; when the block is left nothing of it is left."""

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import trio

from scenarios.netlab.building import PUBLIC, build, descendants
from scenarios.netlab.hosts import Host
from scenarios.netlab.links import CABLE, Link
from scenarios.netlab.machines import Core, Machine, Parent
from scenarios.netlab.names import Names
from scenarios.netlab.namespaces import Namespace
from scenarios.netlab.nat import NatKind
from scenarios.netlab.routers import Memory, Router
from scenarios.netlab.wiring import Wire

__all__ = ["Lab", "open_lab"]

_END_SECONDS = 30.0


@asynccontextmanager
async def open_lab(seed: int = 1) -> AsyncIterator["Lab"]:
    """An empty lab; must run inside the wrapper (entering.py).

    On leaving, also by an exception or when cancelled, every process in it is killed, and its namespaces and files are gone.
    """
    folder = _make_folder()
    lab = Lab(seed, folder)
    try:
        yield lab
    finally:
        with trio.CancelScope(shield=True):  # _END_SECONDS at most
            await lab.aclose()
        lab.names.forget_all()
        shutil.rmtree(folder, ignore_errors=True)


def _make_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="netlab-"))
    folder.chmod(0o711)  # PostgreSQL runs as another user when we are root, and must pass through
    return folder


class Lab:
    """Made by `open_lab`. First declare, then `up`, then break and mend."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.core = Core()
        self.hosts: list[Host] = []
        self.names = Names(f"{folder.name.replace('_', '-')}.lab".lower())
        self._numbers = itertools.count(1)
        self._namespaces: list[Namespace] = []
        self._wire: Wire | None = None

    # --- declaring

    def host(self, name: str, link: Link = CABLE, *, behind: Router | None = None) -> Host:
        """A host behind a router, or with an address of its own on the internet."""
        host = Host(name, next(self._numbers), self._parent(behind), link, self.folder / name)
        self.hosts.append(host)
        return host

    def router(
        self,
        name: str,
        kind: NatKind,
        link: Link = CABLE,
        *,
        behind: Router | None = None,
        lan: str | None = None,
        memory: Memory | None = None,
    ) -> Router:
        """A router on the internet, or behind another one (as at providers who translate, too).

        `lan` begins the addresses inside, 192.168.1 as a rule (10.0.0 behind another router); routers that do not translate get a part of
        the internet.
        """
        number = next(self._numbers)
        if kind in ("firewall", "open"):
            lan = f"{PUBLIC}.{128 + number}"
        usual = "192.168.1" if behind is None else "10.0.0"
        return Router(
            name, number, self._parent(behind), link, kind, lan or usual, memory or Memory(), self.seed + number
        )

    def _parent(self, behind: Router | None) -> Parent:
        return behind if behind is not None else self.core

    # --- life

    async def up(self) -> None:
        """Make it; some hundredths of a second for each machine. Raises CommandFailed."""
        await trio.to_thread.run_sync(self._build)

    def _build(self) -> None:
        machines = descendants(self.core)
        wire, self.core.namespace = self._new_namespace(), self._new_namespace()
        for machine in machines:
            machine.namespace = self._new_namespace()
        build(self.core, machines, wire)
        if wired := [machine for machine in machines if machine.link.is_wired]:
            self._wire = Wire(wire, self.seed)
            for machine in wired:
                self._wire.add(machine)

    def _new_namespace(self) -> Namespace:
        namespace = Namespace()
        self._namespaces.append(namespace)
        return namespace

    async def aclose(self) -> None:
        """End everything; harmless to repeat."""
        if self._wire is not None:
            await trio.to_thread.run_sync(self._wire.close)
            self._wire = None
        with trio.move_on_after(_END_SECONDS):
            while await trio.to_thread.run_sync(self._kill_all):  # noqa: ASYNC110 - the kernel tells nobody
                await trio.sleep(0.01)
        for process in itertools.chain.from_iterable(host.processes for host in self.hosts):
            process.close()
        while self._namespaces:
            self._namespaces.pop().close()

    def _kill_all(self) -> int:
        for process in itertools.chain.from_iterable(host.processes for host in self.hosts):
            process.is_running  # noqa: B018 - reaps those that have ended
        pids = [pid for namespace in self._namespaces for pid in namespace.pids()]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    # --- what goes wrong between machines

    async def change_link(self, machine: Machine, **figures: float) -> None:
        """Another delay, jitter, loss or rate from now on, for a link that had one of them from the beginning."""
        if self._wire is None or not machine.link.is_wired:
            raise ValueError(f"{machine.name} has a plain cable: give it a figure where it is declared")
        machine.link = attrs.evolve(machine.link, **figures)
        await trio.to_thread.run_sync(self._wire.set, machine)

    async def partition(self, *groups: Iterable[Machine]) -> None:
        """No packets between machines of different groups, until `mend`; it replaces the partition before.

        The line runs through the core: a router counts with all that is behind it. Raises ValueError for groups that share one.
        """
        ports = [{self._edge(machine).port for machine in group} for group in groups]
        if len(set().union(*ports)) != sum(map(len, ports)):
            raise ValueError("a partition cannot run through the network behind one router")
        pairs = [
            f'"{ours}" . "{theirs}"'
            for mine, others in itertools.permutations(ports, 2)
            for ours in mine
            for theirs in others
        ]
        rules = ["flush set inet partition cut", f"add element inet partition cut {{ {', '.join(sorted(pairs))} }}", ""]
        await trio.to_thread.run_sync(self.core.namespace.nft, "\n".join(rules))

    async def mend(self) -> None:
        """End a partition; harmless without one."""
        await trio.to_thread.run_sync(self.core.namespace.nft, "flush set inet partition cut\n")

    def _edge(self, machine: Machine) -> Machine:
        while isinstance(machine.parent, Router):
            machine = machine.parent
        return machine
