"""The few calls a chunk store makes of the operating system: the seam where tests fill the disk and cut the power."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fsn.core.errors import Corrupt, DiskFull, StorageError

__all__ = ["Files", "FolderEntry", "attempt_each", "disk_errors", "read_errors", "translated"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class FolderEntry(NamedTuple):
    """One name in a folder; `size_bytes` is 0 for what is no regular file. A tuple: a start makes one for every chunk."""

    name: str
    is_folder: bool
    size_bytes: int


class Files:
    """The real file system. Methods raise `OSError` as it comes; `disk_errors` translates it once, around each use."""

    def __init__(self) -> None:
        self._unsynced: dict[Path, int] = {}
        """Handles of files that were written and not synced yet."""

    def close(self) -> None:
        """Let go of files that were never synced; nothing may be under way."""
        while self._unsynced:
            os.close(self._unsynced.popitem()[1])

    def write(self, path: Path, data: bytes | memoryview) -> None:
        """Create or overwrite `path` (readable by us alone); not durable before `sync`, until which it stays open.

        The disk begins at once: when many files are written before the first is synced, their bytes travel together, and the file
        system serves all by one or two writes of its journal. A batch of 16 chunks took 1.9 ms a chunk so, 4.7 ms where each sync
        began to write, 2.5 ms with eight threads of syncs (ext4, busy machine, medians), and a third of the CPU of these.
        """
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._unsynced[path] = handle  # kept: what goes wrong in between is told to the handles that were open
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        _begin_to_write_back(handle)

    def sync(self, path: Path) -> None:
        """Return when the bytes of `path` are on the disk (its name needs `sync_folder`)."""
        handle = self._unsynced.pop(path, None)
        _sync_and_close(os.open(path, os.O_RDWR | os.O_CLOEXEC) if handle is None else handle)

    def sync_folder(self, path: Path) -> None:
        """Return when all names made, changed and removed in `path` are on the disk."""
        _sync_and_close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def begin_to_sync(self, path: Path) -> None:
        """Let the disk begin with the bytes of a file that is there; promises nothing, waits for nothing."""
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _begin_to_write_back(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` its new name in one step, in place of what was there."""
        source.replace(target)

    def remove(self, path: Path) -> bool:
        """Take the name away; False when there was none."""
        if (handle := self._unsynced.pop(path, None)) is not None:
            os.close(handle)
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


def attempt_each(action: Callable[[Path], None], paths: Sequence[Path]) -> list[OSError | None]:
    """Do `action` (a sync) to one path after the other; what went wrong with each, in their order."""
    return [_attempt(action, path) for path in paths]


def _attempt(action: Callable[[Path], None], path: Path) -> OSError | None:
    try:
        action(path)
    except OSError as error:
        return error
    return None


def _begin_to_write_back(handle: int) -> None:
    # "Not needed" writes dirty pages out, and keeps those that are on their way. Not on macOS: there the sync does it all.
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_and_close(handle: int) -> None:
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
        raise translated(path, error) from error


def translated(path: Path, error: OSError) -> StorageError:
    """What went wrong while writing `path`: `DiskFull` where space or quota is short, `StorageError` otherwise."""
    kind = DiskFull if error.errno in _FULL else StorageError
    return kind(f"cannot write {path}: {error.strerror or error}")


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Translate `OSError` while reading what must be there: `Corrupt` where it is gone or unreadable, `StorageError` otherwise."""
    try:
        yield
    except OSError as error:
        kind = Corrupt if error.errno in {errno.ENOENT, errno.EIO} else StorageError
        raise kind(f"cannot read {path}: {error.strerror or error}") from error
