"""A host: a machine on which processes run, and can be killed, stopped in their tracks, or left without power."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import trio

from scenarios.netlab.links import Link
from scenarios.netlab.machines import Machine, Parent
from scenarios.netlab.processes import Process

__all__ = ["Host"]

KILL_SECONDS = 30.0


class Host(Machine):
    """A machine with processes and a folder of its own."""

    def __init__(self, name: str, number: int, parent: Parent, link: Link, folder: Path) -> None:
        super().__init__(name, number, parent, link)
        self.folder = folder
        self.processes: list[Process] = []

    async def spawn(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a process here; `name.log` in the host's folder gets what it says on its standard error."""

        def start() -> Process:
            self.folder.mkdir(mode=0o711, exist_ok=True)
            given = os.environ if environment is None else environment
            return Process(self.namespace, command, self.folder / f"{name}.log", given, self.folder)

        process = await trio.to_thread.run_sync(start)
        self.processes.append(process)
        return process

    async def run(self, *command: str, check: bool = True) -> str:
        """Run a program of the system to its end, and return what it said. Raises CommandFailed unless `check` is off."""

        def run() -> str:
            return self.namespace.run(command, check=check)

        return await trio.to_thread.run_sync(run, abandon_on_cancel=True)

    async def kill(self) -> None:
        """kill -9 of every process here. The kernel still ends their connections with FIN or RST; see `power_off`."""
        with trio.fail_after(KILL_SECONDS):
            while self.send_all(signal.SIGKILL):  # noqa: ASYNC110 - the kernel tells nobody
                await trio.sleep(0.01)
            for process in self.processes:
                await process.wait()

    async def power_off(self) -> None:
        """Everything here ends, and nobody outside is told. `heal` puts the host back on the net."""
        await self.cut()
        await self.kill()

    def pause(self) -> None:
        """Stop every process where it is."""
        self.send_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        self.send_all(signal.SIGCONT)

    def send_all(self, number: signal.Signals) -> int:
        """A signal to every process here, whoever started it; how many there are."""
        for process in self.processes:
            process.is_running  # noqa: B018 - reaps those that have ended
        pids = self.namespace.pids()
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        return len(pids)
