"""The few calls a chunk store makes of the operating system: the seam where tests fill the disk and cut the power."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from fsn.core.errors import Corrupt, DiskFull, StorageError

__all__ = ["Files", "FolderEntry", "disk_errors", "read_errors"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class FolderEntry(NamedTuple):
    """One name in a folder; `size_bytes` is 0 for what is no regular file. A tuple: a start makes one for every chunk."""

    name: str
    is_folder: bool
    size_bytes: int


class Files:
    """The real file system. Methods raise `OSError` as it comes; `disk_errors` translates it once, around each use."""

    def write(self, path: Path, data: bytes | memoryview) -> None:
        """Create or overwrite `path` (readable by us alone); not durable before `sync`."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
        finally:
            os.close(handle)

    def sync(self, path: Path) -> None:
        """Return when the bytes of `path` are on the disk (its name needs `sync_folder`)."""
        _fsync(path, os.O_RDWR)

    def sync_folder(self, path: Path) -> None:
        """Return when all names made, changed and removed in `path` are on the disk."""
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY)

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` its new name in one step, in place of what was there."""
        source.replace(target)

    def remove(self, path: Path) -> bool:
        """Take the name away; False when there was none."""
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def make_folder(self, path: Path) -> None:
        """Make one folder (its parent exists); harmless when it is there."""
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer where the file ends."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(handle, length, offset)
        finally:
            os.close(handle)

    def size(self, path: Path) -> int | None:
        """The file's size in bytes, None when there is none."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None

    def entries(self, path: Path | str) -> list[FolderEntry]:
        """What is in the folder, sorted by name; nothing when there is no such folder."""
        try:
            with os.scandir(path) as found:
                return sorted(map(_entry, found))
        except FileNotFoundError:
            return []

    def free_bytes(self, path: Path) -> int:
        """What an unprivileged process may still write to the file system of `path`."""
        room = os.statvfs(path)
        return room.f_bavail * room.f_frsize


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _entry(item: os.DirEntry[str]) -> FolderEntry:
    if item.is_file(follow_symlinks=False):
        return FolderEntry(item.name, False, item.stat(follow_symlinks=False).st_size)
    return FolderEntry(item.name, item.is_dir(follow_symlinks=False), 0)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate `OSError` while writing: `DiskFull` where space or quota is short, `StorageError` otherwise."""
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in _FULL else StorageError
        raise kind(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Translate `OSError` while reading what must be there: `Corrupt` where it is gone or unreadable, `StorageError` otherwise."""
    try:
        yield
    except OSError as error:
        kind = Corrupt if error.errno in {errno.ENOENT, errno.EIO} else StorageError
        raise kind(f"cannot read {path}: {error.strerror or error}") from error
