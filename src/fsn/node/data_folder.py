"""A node's data folder: who may use it, and the small files in it that other programs read."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fsn.core.errors import ConfigError, Conflict

__all__ = [
    "API_KEY_NAME",
    "IDENTITY_NAME",
    "PORTS_NAME",
    "forget_ports",
    "is_in_use",
    "locked_folder",
    "published_ports",
    "read_ports",
    "replace_file",
]

IDENTITY_NAME: Final = "node.key"
API_KEY_NAME: Final = "api.key"
PORTS_NAME: Final = "ports.json"
_LOCK_NAME: Final = "lock"


@contextlib.contextmanager
def locked_folder(data_dir: Path) -> Iterator[None]:
    """Hold the folder for this process; made (0700) when it is not there. The lock ends with the process, however that ends.

    Raises `Conflict`, naming the process, when another one holds it; `ConfigError` when the folder cannot be used.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _take(lock: int, data_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        raise Conflict(f"the data folder {data_dir} is in use by process {holder}", code="in_use") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


@contextlib.contextmanager
def published_ports(data_dir: Path, ports: Mapping[str, int | None]) -> Iterator[None]:
    """`ports.json` says for the length of the block where we listen; written in one step, so a reader sees all of it or none."""
    replace_file(data_dir / PORTS_NAME, json.dumps(dict(ports)).encode() + b"\n")
    try:
        yield
    finally:
        forget_ports(data_dir)


def forget_ports(data_dir: Path) -> None:
    """Nothing listens here (any more); harmless when nothing is published."""
    (data_dir / PORTS_NAME).unlink(missing_ok=True)


def read_ports(data_dir: Path) -> Mapping[str, int | None]:
    """What the running node published; empty when none runs (a crashed one may have left its ports behind)."""
    try:
        found = json.loads((data_dir / PORTS_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` (mode 0600) in place of `path`, durably; after a power cut the old or the new is there, whole. Raises `ConfigError`."""
    part = path.with_name(f".{path.name}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
