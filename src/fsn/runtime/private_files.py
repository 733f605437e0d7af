"""Small secret files: made whole or not at all, readable by their owner only."""

import os
import stat
from pathlib import Path

from fsn.core.errors import ConfigError

__all__ = ["create_private_file", "read_private_file"]


def create_private_file(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600, durable on return, whole or absent after a power cut; its folder is made (0700).

    Raises FileExistsError when it is there already, ConfigError when it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        _write(part, content)
        try:
            os.link(part, path)  # unlike rename, it never replaces what another process has just made
        finally:
            part.unlink()
        _sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def read_private_file(path: Path) -> bytes:
    """The file's bytes. Raises FileNotFoundError when it is not there, ConfigError when others may read it or we may not."""
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} holds a secret and is open to others (mode {mode & 0o777:o}): chmod 600 it")
    return content


def _write(path: Path, content: bytes) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(number, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
