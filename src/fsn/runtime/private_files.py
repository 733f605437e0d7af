"""Small files of a daemon: made or replaced whole or not at all, durable, readable by their owner only."""

import os
import secrets
import stat
from pathlib import Path

from fsn.core.errors import ConfigError

__all__ = ["create_private_file", "read_private_file", "read_secret", "replace_private_file", "sync_folder"]


def create_private_file(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600, durable on return; after a power cut it is whole or absent. Its folder is made (0700).

    Raises FileExistsError when it is there already (it is never replaced), ConfigError when it cannot be written.
    """
    _make_folder(path.parent)
    try:
        part = _write_part(path, content)
        try:
            _rename_to_new_name(part, path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise _unusable(path, "written", error) from error


def replace_private_file(path: Path, content: bytes) -> None:
    """Put `content` (mode 0600) in place of `path`, durable on return; after a power cut the old or the new is there, whole.

    Raises ConfigError.
    """
    try:
        part = _write_part(path, content)
        try:
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise _unusable(path, "written", error) from error


def read_private_file(path: Path) -> bytes:
    """The file's bytes. Raises FileNotFoundError when it is not there, ConfigError when others may read it or we may not."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unusable(path, "read", error) from error
    if mode & 0o077:
        raise ConfigError(f"{path} holds a secret and must be its owner's alone (chmod 600); its mode is {mode:o}")
    return content


def read_secret(path: Path, setting: str) -> str:
    """The text of a file that an operator wrote and `setting` names, without the white space around it; whoever may read it.

    Raises ConfigError when it cannot be read or is empty.
    """
    try:
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error}") from error
    if not found:
        raise ConfigError(f"{setting}: {path} is empty; a secret is wanted in it")
    return found


def sync_folder(folder: Path) -> None:
    """Make names in `folder` survive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, "written", error) from error


def _write_part(path: Path, content: bytes) -> Path:
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return part


def _rename_to_new_name(part: Path, path: Path) -> None:
    """Rename without replacing. A hard link says so atomically; some file systems (FAT, SMB) have none, there we look first."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(path) from None
        part.rename(path)


def _unusable(path: Path, done: str, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be {done}: {error.strerror or error}")
