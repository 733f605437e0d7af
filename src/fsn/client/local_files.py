"""The user's own files, read for an upload and written for a download; OSError is known here and nowhere above."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsn.core.errors import Conflict, DiskFull, FsnError, Invalid, NotFound, StorageError

__all__ = ["disk_errors", "place_file", "sync_folder"]


def _translated(error: OSError, path: Path) -> FsnError:
    match error.errno:
        case errno.ENOENT:
            return NotFound(f"there is no file or folder {path}", code="local_not_found")
        case errno.EISDIR | errno.ENOTDIR:
            return Invalid(f"{path}: {error.strerror}")
        case errno.EEXIST:
            return Conflict(f"{path} exists already", code="local_exists")
        case errno.ENOSPC | errno.EDQUOT:
            return DiskFull(f"no space is left to write {path}")
        case _:
            return StorageError(f"{path}: {error.strerror or error}")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """OSErrors inside the block leave it as NotFound, Invalid, Conflict, DiskFull or StorageError, each naming `path`."""
    try:
        yield
    except OSError as error:
        raise _translated(error, path) from error


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place_file(part: Path, destination: Path, *, overwrite: bool) -> None:
    """Give the finished, synced `part` its final name, durably; OSError(EEXIST) when it is taken and `overwrite` is False."""
    if overwrite:
        part.replace(destination)
    else:
        _link_new(part, destination)
    sync_folder(destination.parent)


def _link_new(part: Path, destination: Path) -> None:
    """A rename that never overwrites: link(2) fails when the name is taken. File systems without links get a plain check."""
    try:
        os.link(part, destination)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        if destination.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        part.replace(destination)
    else:
        part.unlink()
