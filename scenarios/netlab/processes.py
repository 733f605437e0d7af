"""A process on a host of the lab: started in its namespace, its words in a file, waited for without polling."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from scenarios.netlab.namespaces import Namespace

__all__ = ["Process"]

_REAP_SECONDS: Final = 1.0


class Process:
    """One process and its log; what it writes to its standard output and error goes there."""

    def __init__(
        self, namespace: Namespace, command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path
    ) -> None:
        """Starts it; blocks for a fork."""
        self.log = log
        self.output = log.with_suffix(".out")
        with log.open("ab") as errors, self.output.open("wb") as output:
            self._popen = namespace.popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, cwd=folder, env=environment,
                start_new_session=True,
            )  # fmt: skip
        self._pidfd = os.pidfd_open(self._popen.pid)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        while (code := self._popen.poll()) is None:
            await trio.lowlevel.wait_readable(self._pidfd)
        return code

    def send(self, number: signal.Signals) -> None:
        """A signal to this process alone; harmless when it has ended."""
        if self.is_running:
            signal.pidfd_send_signal(self._pidfd, number)

    def log_tail(self, lines: int = 15) -> str:
        """The end of what it wrote to its standard error."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def log_count(self, word: str) -> int:
        """How often it wrote `word` to its standard error."""
        return self.log.read_text(errors="replace").count(word)

    def said(self) -> str:
        """All it wrote to its standard output."""
        return self.output.read_text(errors="replace")

    def close(self) -> None:
        """Let go of a process that has ended, or is about to: a killed one leaves its namespace first. Harmless to repeat."""
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_REAP_SECONDS)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
