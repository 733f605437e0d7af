"""File systems that fail: the k-th call refused, or the power cut before it with everything unsynced undone."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fsn.node.chunkstore.files import Files


class PowerCut(BaseException):
    """The machine is off: nothing after this happens."""


class CountingFiles(Files):
    """Counts the calls that change the disk, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def before(self, name: str, path: Path) -> None:
        """Called before each change."""
        self.calls[name] += 1

    def write(self, path: Path, data: bytes | memoryview) -> None:
        self.before("write", path)
        super().write(path, data)

    def sync(self, path: Path) -> None:
        self.before("sync", path)
        super().sync(path)

    def sync_folder(self, path: Path) -> None:
        self.before("sync_folder", path)
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self.before("rename", target)
        super().rename(source, target)

    def remove(self, path: Path) -> bool:
        self.before("remove", path)
        return super().remove(path)

    def make_folder(self, path: Path) -> None:
        self.before("make_folder", path)
        super().make_folder(path)


class FailingFiles(CountingFiles):
    """Raises `OSError(errno)` at the k-th change (from 1), and goes on as if nothing had happened."""

    def __init__(self, at: int, errno: int) -> None:
        super().__init__()
        self.at, self.errno = at, errno

    def before(self, name: str, path: Path) -> None:
        super().before(name, path)
        if self.calls.total() == self.at:
            raise OSError(self.errno, "injected", str(path))


class PowerCutFiles(CountingFiles):
    """Cuts the power before the k-th change; `lose` then undoes what no sync had made durable, newest first.

    The pessimist's disk: contents last from `sync`, names and their removal from `sync_folder` of the folder they are in.
    """

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self._half: dict[Path, bytes] = {}
        self._names: list[tuple[Path, Callable[[], object]]] = []

    def before(self, name: str, path: Path) -> None:
        super().before(name, path)
        if self.calls.total() >= self.at:
            raise PowerCut

    def write(self, path: Path, data: bytes | memoryview) -> None:
        super().write(path, data)
        self._half[path] = bytes(data[: len(data) // 2])
        self._names.append((path.parent, lambda: path.unlink(missing_ok=True)))

    def sync(self, path: Path) -> None:
        super().sync(path)
        self._half.pop(path, None)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        if source in self._half:
            self._half[target] = self._half.pop(source)
        self._names.append((target.parent, lambda: target.rename(source) if target.exists() else None))

    def make_folder(self, path: Path) -> None:
        is_new = not path.exists()
        super().make_folder(path)
        if is_new:
            self._names.append((path.parent, lambda: shutil.rmtree(path, ignore_errors=True)))

    def remove(self, path: Path) -> bool:
        data = path.read_bytes() if path.exists() else b""
        removed = super().remove(path)
        if removed:
            self._names.append((path.parent, lambda: path.write_bytes(data)))
        return removed

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self._names = [(folder, undo) for folder, undo in self._names if folder != path]

    def lose(self) -> None:
        """Undo all that was not durable."""
        for path, half in self._half.items():
            if path.exists():
                path.write_bytes(half)
        for _, undo in reversed(self._names):
            undo()
