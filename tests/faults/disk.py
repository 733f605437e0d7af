"""A disk on paper: what a chunk store asked of the operating system, and what may lie there when the power goes in between.

`PaperFiles` is a file system that works, and writes down each change. From the record, `Record.disk_after` draws up every disk that the
machine may wake up with: contents last from `sync`, names and their removal from `sync_folder` of their folder, a commit of the index
from the moment it returns. What was not made durable is lost, kept, kept without its bytes, or any mixture. What SQLite writes by itself
is known from copies of its files beside each change: a log that grew in between may have grown by any part of that.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from pathlib import Path
from random import Random

import attrs

from fsn.node.chunkstore.files import Files
from fsn.node.chunkstore.index import INDEX_NAME

LOG_NAME = f"{INDEX_NAME}-wal"
FRAME_BYTES = 4096 + 24
"""A page and its header, in SQLite's write-ahead log."""


class Fate(Enum):
    """What becomes of something that was not made durable."""

    LOST = auto()
    KEPT = auto()
    MIXED = auto()
    """By lot: a name lost or kept; contents cut in half, or of the right length with wrong bytes."""


@attrs.frozen
class Disk:
    """Which of the possible disks: the fate of names and of contents, and how much of a growing log is there."""

    names: Fate
    contents: Fate
    seed: int = 0
    log_share: float = 0.0

    def __str__(self) -> str:
        return f"names-{self.names.name}-contents-{self.contents.name}-{self.seed}-{self.log_share:g}".lower()


@attrs.frozen
class Event:
    """One call, or one word to whoever asked; and the index's files at that moment."""

    call: str
    path: Path | None
    to: object
    index: dict[str, bytes] = attrs.field(repr=False)


@attrs.define(eq=False)
class _Inode:
    """A file's bytes as the process sees them and as the disk has them; None for a folder."""

    cached: bytes | None
    durable: bytes = b""
    is_dirty: bool = True


_Names = dict[Path, _Inode]


@attrs.define(eq=False)
class Record:
    """What happened, in order."""

    folder: Path
    events: list[Event] = attrs.field(factory=list)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def note(self, call: str, path: Path | None = None, to: object = None) -> None:
        """Write down one event."""
        with self._lock:
            self.events.append(Event(call, path, to, _index_files(self.folder)))

    def said(self, count: int) -> list[object]:
        """What was said (`note("said", to=...)`) among the first `count` events."""
        return [event.to for event in self.events[:count] if event.call == "said"]

    def disk_after(self, count: int, disk: Disk, target: Path) -> None:
        """Lay out in `target` the disk that is left when the power goes after `count` events."""
        replay = _Replay(self.folder)
        for event in self.events[:count]:
            replay.take(event)
        _lay_out(replay.names_left(disk), disk, self.folder, target)
        if replay.has_index_name or disk.names is Fate.KEPT:
            self._lay_out_index(count, disk, target)

    def log_shares(self, count: int) -> Iterator[float]:
        """How much of what the index's log grew by after `count` events may be there: each whole frame, and half of each."""
        before, after = self._logs(count)
        frames = max(0, len(after) - len(before)) // FRAME_BYTES
        for half in range(1, 2 * frames + 1):
            yield half / (2 * frames)

    def _logs(self, count: int) -> tuple[bytes, bytes]:
        """The log after `count` events, and before the next one."""
        before = self.events[count - 1].index.get(LOG_NAME, b"") if count else b""
        after = self.events[count].index.get(LOG_NAME, b"") if count < len(self.events) else before
        return before, after if after.startswith(before) else before

    def _lay_out_index(self, count: int, disk: Disk, target: Path) -> None:
        files = dict(self.events[count - 1].index) if count else {}
        before, after = self._logs(count)
        new = after[len(before) : len(before) + round(disk.log_share * (len(after) - len(before)))]
        if disk.contents is Fate.MIXED and new:
            new = new[: -len(new) // 4] + Random(disk.seed).randbytes(len(new) // 4 or 1)
        files[LOG_NAME] = before + new
        for name, data in files.items():
            if data:
                (target / name).write_bytes(data)


class _Replay:
    """The record so far: names as the process sees them, names on the disk, and what is pending in each folder."""

    def __init__(self, folder: Path) -> None:
        self.cached: _Names = {}
        self.durable: _Names = {}
        self.has_index_name = False
        self._root = folder
        self._pending: list[tuple[Path, _Inode | None]] = []

    def take(self, event: Event) -> None:
        """One event more."""
        if event.path is not None:
            getattr(self, f"_{event.call}")(event.path, event.to)

    def names_left(self, disk: Disk) -> _Names:
        """The names that are there, by the fate of those that nobody had made durable."""
        names, chance = dict(self.durable), Random(disk.seed)
        for path, inode in self._pending:
            if disk.names is Fate.KEPT or (disk.names is Fate.MIXED and chance.random() < 0.5):
                _set(names, path, inode)
        return names

    def _write(self, path: Path, data: bytes) -> None:
        if (inode := self.cached.get(path)) is not None:
            inode.cached, inode.is_dirty = data, True
        else:
            self._change(path, _Inode(data))

    def _sync(self, path: Path, _: object) -> None:
        inode = self.cached[path]
        if inode.is_dirty and inode.cached is not None:
            inode.durable, inode.is_dirty = inode.cached, False

    def _sync_failed(self, path: Path, _: object) -> None:
        # The kernel has dropped the pages and calls them clean: another sync of the same bytes succeeds and does nothing.
        if path in self.cached:
            self.cached[path].is_dirty = False

    def _rename(self, source: Path, target: object) -> None:
        assert isinstance(target, Path)
        inode = self.cached[source]
        self._change(target, inode)
        self._change(source, None)

    def _remove(self, path: Path, _: object) -> None:
        self._change(path, None)

    def _make_folder(self, path: Path, _: object) -> None:
        self._change(path, _Inode(None))

    def _sync_folder(self, folder: Path, _: object) -> None:
        for path, inode in self._pending:
            if path.parent == folder:
                _set(self.durable, path, inode)
        self._pending = [(path, inode) for path, inode in self._pending if path.parent != folder]
        self.has_index_name |= folder == self._root

    def _change(self, path: Path, inode: _Inode | None) -> None:
        _set(self.cached, path, inode)
        self._pending.append((path, inode))


def _set(names: _Names, path: Path, inode: _Inode | None) -> None:
    if inode is None:
        names.pop(path, None)
    else:
        names[path] = inode


def _lay_out(names: _Names, disk: Disk, folder: Path, target: Path) -> None:
    chance = Random(disk.seed)
    for path in sorted(names):
        place, inode = target / path.relative_to(folder), names[path]
        if not place.parent.is_dir():
            continue  # the folder's own name is gone, and all below it
        if inode.cached is None:
            place.mkdir()
        else:
            place.write_bytes(_bytes_left(inode.cached, inode.durable, disk, chance))


def _bytes_left(cached: bytes, durable: bytes, disk: Disk, chance: Random) -> bytes:
    if cached == durable or disk.contents is Fate.KEPT:
        return cached
    if disk.contents is Fate.LOST:
        return durable
    return chance.randbytes(len(cached)) if chance.random() < 0.5 else cached[: len(cached) // 2]


def _index_files(folder: Path) -> dict[str, bytes]:
    found = {}
    for name in (INDEX_NAME, LOG_NAME):
        path = folder / name
        if path.exists():
            found[name] = path.read_bytes()
    return found


class PaperFiles(Files):
    """A real file system whose changes are written down. The `fail_at`-th of them (from 1) fails with errno `number`, alone or with all
    that come after it."""

    def __init__(self, record: Record, *, fail_at: int = 0, number: int = 0, fails_on: bool = False) -> None:
        super().__init__()
        self.record = record
        self.changes = 0
        self._fail_at, self._number, self._fails_on = fail_at, number, fails_on

    def _before(self, call: str, path: Path) -> None:
        self.changes += 1
        if self.changes == self._fail_at or (self._fails_on and 0 < self._fail_at < self.changes):
            if call == "sync":
                self.record.note("sync_failed", path)
            raise OSError(self._number, os.strerror(self._number), str(path))

    def write(self, path: Path, data: bytes | memoryview) -> None:
        try:
            self._before("write", path)
        except OSError:
            super().write(path, data[: len(data) // 2])  # as a disk that fills up does
            self.record.note("write", path, bytes(data[: len(data) // 2]))
            raise
        super().write(path, data)
        self.record.note("write", path, bytes(data))

    def sync(self, path: Path) -> None:
        self._before("sync", path)
        super().sync(path)
        self.record.note("sync", path)

    def sync_folder(self, path: Path) -> None:
        self._before("sync_folder", path)
        super().sync_folder(path)
        self.record.note("sync_folder", path)

    def rename(self, source: Path, target: Path) -> None:
        self._before("rename", source)
        super().rename(source, target)
        self.record.note("rename", source, target)

    def remove(self, path: Path) -> bool:
        self._before("remove", path)
        is_removed = super().remove(path)
        if is_removed:
            self.record.note("remove", path)
        return is_removed

    def make_folder(self, path: Path) -> None:
        self._before("make_folder", path)
        is_new = not path.exists()
        super().make_folder(path)
        if is_new:
            self.record.note("make_folder", path)


KNOWN_CALLS = frozenset({
    "write", "sync", "sync_folder", "rename", "remove", "make_folder",
    "begin_to_sync", "read", "size", "entries", "free_bytes", "close",
})  # fmt: skip
"""What `PaperFiles` knows of the seam: changes, which it writes down, and calls that change nothing."""


def calls_of(files: type[Files]) -> Iterable[str]:
    """The names of a file system's calls."""
    return {name for name in vars(files) if not name.startswith("_")}
