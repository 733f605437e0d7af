"""Which process is a data folder's PostgreSQL, if any: a pid in a file alone says little after a crash."""

import subprocess
from pathlib import Path
from typing import Final

__all__ = ["postmaster_of", "remove_stale_locks"]

_PROC: Final = Path("/proc")


def postmaster_of(data: Path) -> int | None:
    """The pid of the server that runs on `data`; None when there is none (or a zombie, or a bystander with its old pid)."""
    pid = _pid_in(data / "postmaster.pid")
    return pid if pid is not None and _is_postmaster(pid, data) else None


def remove_stale_locks(data: Path, socket_folder: Path) -> None:
    """Remove lock files of a server that is gone; PostgreSQL itself takes any live process with the old pid for the old server.

    Safe beside orphaned back ends: they hold a shared memory block that is keyed by the data folder, and PostgreSQL refuses to
    start beside it.
    """
    for path in (data / "postmaster.pid", *socket_folder.glob(".s.PGSQL.*.lock")):
        pid = _pid_in(path)
        if pid is not None and not _is_postmaster(pid, data):
            path.unlink(missing_ok=True)


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None


def _is_postmaster(pid: int, data: Path) -> bool:
    return f" -D {data} " in f"{_command_line_of(pid)} "


def _command_line_of(pid: int) -> str:
    """The command line of a live process; empty for a zombie, and when there is no such process."""
    if (_PROC / "self" / "cmdline").exists():  # Linux; a slim container has no ps
        try:
            return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="surrogateescape").replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    command = ["ps", "-o", "stat=,command=", "-p", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return "" if found.startswith("Z") else found
