"""The lab's hand on the wire: its process, and commands to it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import IO

import attrs

from scenarios.netlab.building import wire_ends
from scenarios.netlab.links import Link
from scenarios.netlab.machines import Machine
from scenarios.netlab.namespaces import Namespace

__all__ = ["Wire"]

_PROGRAM = Path(__file__).with_name("wire.py")


class Wire:
    """The process of wire.py in `namespace`; the methods block."""

    def __init__(self, namespace: Namespace, seed: int) -> None:
        self._seed = seed
        self._process = namespace.popen(
            [sys.executable, "-I", "-S", str(_PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def add(self, machine: Machine) -> None:
        """Begin to carry the packets of a machine's way up."""
        inner, outer = wire_ends(machine)
        self._command(do="add", name=machine.port, inner=inner, outer=outer, seed=self._seed, link=_figures(machine))

    def set(self, machine: Machine) -> None:
        """Behave as `machine.link` now says."""
        self._command(do="set", name=machine.port, link=_figures(machine))

    def close(self) -> None:
        """End it; harmless to repeat."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _command(self, **command: object) -> None:
        stdin, stdout = self._pipes()
        stdin.write(json.dumps(command).encode() + b"\n")
        stdin.flush()
        if not stdout.readline():
            raise RuntimeError(f"the wire ended with code {self._process.wait()} instead of obeying {command}")

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def _figures(machine: Machine) -> dict[str, float]:
    link: Link = machine.link
    return dict(attrs.asdict(link))
