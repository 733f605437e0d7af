"""A daemon's data folder: who may use it, and the small files in it that other programs read."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fsn.core.errors import ConfigError, Conflict
from fsn.runtime.private_files import replace_private_file

__all__ = [
    "PORTS_NAME",
    "forget_ports",
    "is_in_use",
    "locked_folder",
    "published_ports",
    "read_ports",
]

PORTS_NAME: Final = "ports.json"
_LOCK_NAME: Final = "lock"
_ASKING_PATIENCE: Final = 100


@contextlib.contextmanager
def locked_folder(data_dir: Path, *, mode: int = 0o700) -> Iterator[None]:
    """Hold the folder for this process; made (with `mode`) when it is not there. The lock ends with the process, however that ends.

    Raises `Conflict`, naming the process, when another one holds it; `ConfigError` when the folder cannot be used.
    """
    try:
        data_dir.mkdir(mode=mode, parents=True, exist_ok=True)
        lock = os.open(data_dir / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"the data folder {data_dir} cannot be used: {error.strerror or error}") from error
    try:
        _take(lock, data_dir)
        yield
    finally:
        os.close(lock)


def is_in_use(data_dir: Path) -> bool:
    """Whether a process holds the folder at this moment."""
    try:
        lock = os.open(data_dir / _LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _locks(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


def _take(lock: int, data_dir: Path) -> None:
    for _ in range(_ASKING_PATIENCE):
        if _locks(lock, fcntl.LOCK_EX):
            break
        if not _locks(lock, fcntl.LOCK_SH):
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise Conflict(f"the data folder {data_dir} is in use by process {holder}", code="in_use")
        fcntl.flock(lock, fcntl.LOCK_UN)
        time.sleep(0.01)  # somebody is asking `is_in_use`, which takes a microsecond
    else:
        raise Conflict(f"the data folder {data_dir} is in use by programs that only look at it", code="in_use")
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _locks(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def published_ports(data_dir: Path, ports: Mapping[str, int | None]) -> Iterator[None]:
    """`ports.json` says for the length of the block where we listen; written in one step, so a reader sees all of it or none."""
    replace_private_file(data_dir / PORTS_NAME, json.dumps(dict(ports)).encode() + b"\n")
    try:
        yield
    finally:
        forget_ports(data_dir)


def forget_ports(data_dir: Path) -> None:
    """Nothing listens here (any more); harmless when nothing is published."""
    (data_dir / PORTS_NAME).unlink(missing_ok=True)


def read_ports(data_dir: Path) -> Mapping[str, int | None]:
    """What the running daemon published; empty when none runs (a crashed one may have left its ports behind)."""
    try:
        found = json.loads((data_dir / PORTS_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
