"""Command lines of ours that we print, written so that they can be copied into the shell that called us."""

import shlex
import shutil
import sys
from pathlib import Path

import click

__all__ = ["program", "sibling"]


def sibling(command: str, *arguments: object) -> str:
    """The command line of `command`, a sibling of the one that runs: of `storage-node init` it is `storage-node start ...`."""
    name, *groups = click.get_current_context().command_path.split()[:-1]
    return shlex.join([program(name), *groups, command, *map(str, arguments)])


def program(name: str) -> str:
    """What to call for the program `name`: its path as we were called, unless the name alone finds it."""
    called = Path(sys.argv[0])
    found = shutil.which(name)
    if called.name != name or (found is not None and called.exists() and Path(found).samefile(called)):
        return name
    return str(called)
