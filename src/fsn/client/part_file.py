"""A download on its way: `NAME.part` beside the destination, and `NAME.part.json` that says what of it can be trusted."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from fsn.client.local_files import disk_errors, place_file
from fsn.core.errors import Conflict

__all__ = ["PartFile", "open_part_file"]

SYNC_BYTES = 64 * 1024 * 1024
"""How much a power cut may cost: after so many bytes the part is synced and its note rewritten."""


@attrs.define(eq=False)
class PartFile:
    """Bytes 0..`size_bytes` of one version of one file, open for appending and locked against a second download.

    `etag` is the version's strong ETag, None while there is nothing to resume from. Only what the note says is synced is
    trusted later: after a power cut the rest of a file may have its length but not its bytes. All methods block.
    """

    destination: Path
    file_id: str
    descriptor: int
    etag: str | None = None
    size_bytes: int = 0
    synced_bytes: int = 0

    @property
    def path(self) -> Path:
        return _part_path(self.destination)

    @property
    def _note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def load(self) -> None:
        """Take up what an earlier download of the same file left, or start empty."""
        note = _read_note(self._note)
        synced, etag = note.get("synced_bytes"), note.get("etag")
        length = os.fstat(self.descriptor).st_size
        if (
            note.get("file_id") == self.file_id
            and isinstance(etag, str)
            and isinstance(synced, int)
            and 0 <= synced <= length
        ):
            self.etag, self.size_bytes, self.synced_bytes = etag, synced, synced
        os.ftruncate(self.descriptor, self.size_bytes)

    def restart(self, etag: str | None, begin: int = 0) -> None:
        """What follows belongs to version `etag` and begins at byte `begin`; bytes of another version are thrown away."""
        with disk_errors(self.path):
            if etag is None or etag != self.etag:
                self._note.unlink(missing_ok=True)
                os.ftruncate(self.descriptor, 0)
                self.synced_bytes = 0
        self.etag, self.size_bytes = etag, begin

    def append(self, data: bytes | bytearray) -> None:
        """Write `data` at the end; from time to time synced. DiskFull or StorageError."""
        with disk_errors(self.path), memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.pwrite(self.descriptor, view[written:], self.size_bytes + written)
        self.size_bytes += len(data)
        if self.size_bytes - self.synced_bytes >= SYNC_BYTES:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Make what is there resumable, also after a power cut: the bytes first, then the note that vouches for them."""
        with disk_errors(self.path):
            os.fsync(self.descriptor)
            self.synced_bytes = self.size_bytes
            if self.etag is not None and self.size_bytes:
                self._write_note()

    def _write_note(self) -> None:
        note = {"file_id": self.file_id, "etag": self.etag, "synced_bytes": self.synced_bytes}
        new = self._note.with_name(self._note.name + ".new")
        with new.open("w") as file:
            json.dump(note, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._note)

    def finish(self, *, overwrite: bool) -> None:
        """Give the whole file its name. When this returns it survives a power cut; Conflict when the name is taken and
        `overwrite` is False (the part stays)."""
        with disk_errors(self.destination):
            os.ftruncate(self.descriptor, self.size_bytes)
            os.fsync(self.descriptor)
            place_file(self.path, self.destination, overwrite=overwrite)
            self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove part and note: nothing in them is worth keeping."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        self._note.unlink(missing_ok=True)


def _part_path(destination: Path) -> Path:
    # a name may have 255 bytes: room is left for .part.json.new
    name = os.fsdecode(os.fsencode(destination.name)[:240])
    return destination.with_name(name + ".part")


def _read_note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


@contextmanager
def open_part_file(destination: Path, file_id: str, *, resume: bool) -> Iterator[PartFile]:
    """The part of a download to `destination`. What was written stays for the next try when the block fails.

    Conflict when another download to the same destination is under way; NotFound when its folder does not exist.
    """
    path = _part_path(destination)
    with disk_errors(path):
        # the umask decides, as for any new file
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        _lock(descriptor, path, destination)
        part = PartFile(destination, file_id, descriptor)
        if resume:
            part.load()
        else:
            part.restart(None)
        yield part
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, destination: Path) -> None:
    """Lock the part. Between open and lock another download may have given this very file its final name: then it is not ours."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:
        raise Conflict(f"another download to {destination} is under way", code="download_under_way")
