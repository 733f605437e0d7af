"""Where a store keeps its files: `chunks/aa/bb/<32 hex digits>`, `tmp/<32 hex digits>` while they are being written."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import attrs

from fsn.core.ids import ReplicaId
from fsn.node.chunkstore.files import Files

__all__ = ["Layout", "Places"]

_NAME: Final = re.compile(r"[0-9a-f]{32}")


class Places(NamedTuple):
    """Where a chunk is written, where it stays, the folders of that from the outside in, and each of them with the one it is in."""

    temp: Path
    final: Path
    folders: tuple[Path, Path]
    parents: tuple[tuple[Path, Path], tuple[Path, Path]]


@attrs.frozen
class Layout:
    """Paths below a node's data folder. Two levels of 256 keep every folder small up to tens of millions of chunks."""

    data_dir: Path

    @property
    def chunks(self) -> Path:
        """The root of the stored chunks."""
        return self.data_dir / "chunks"

    @property
    def unfinished(self) -> Path:
        """Where a chunk is written before it gets its name; on the same file system, for `rename`."""
        return self.data_dir / "tmp"

    @property
    def trashed(self) -> Path:
        """Where garbage lies until it is removed for good, or taken back."""
        return self.data_dir / "trash"

    @property
    def damaged(self) -> Path:
        """Where the files of damaged chunks lie, for the operator to look at."""
        return self.data_dir / "damaged"

    def trash(self, replica: ReplicaId) -> Path:
        """The file in the trash; one level of 256 folders."""
        return self.trashed / replica.hex[:2] / replica.hex

    def damaged_file(self, replica: ReplicaId) -> Path:
        """The file of a damaged chunk."""
        return self.damaged / replica.hex

    def temp(self, replica: ReplicaId) -> Path:
        """The file while it is being written."""
        return self.unfinished / replica.hex

    def final(self, replica: ReplicaId) -> Path:
        """The file once it is whole and synced."""
        name = replica.hex
        return self.chunks / name[:2] / name[2:4] / name

    def places(self, replica: ReplicaId) -> "Places":
        """All paths of a chunk at once: joined as text and parsed once each, a fifth of the time of joining `Path`s."""
        name = replica.hex
        root = self.chunks
        outer = Path(f"{root}/{name[:2]}")
        inner = Path(f"{outer}/{name[2:4]}")
        final = Path(f"{inner}/{name}")
        return Places(Path(f"{self.unfinished}/{name}"), final, (outer, inner), ((outer, root), (inner, outer)))

    def make(self, files: Files) -> None:
        """Make the fixed folders, durably; harmless when they are there."""
        for folder in (self.chunks, self.unfinished):
            files.make_folder(folder)
        files.sync_folder(self.data_dir)

    def walk(self, files: Files) -> Iterator[tuple[str, int, ReplicaId | None]]:
        """Every file below `chunks` in the order of names: path relative to it, size in bytes, id (None: no chunk of ours).

        One `scandir` per folder and no file opened: 100,000 chunks in 51,000 folders, against their index, took 3.1 s of CPU (Python
        3.11, 2 shared cores, warm cache). Paths are plain text here: with `Path`s joined it took 5.2 s.
        """
        root = str(self.chunks)
        for outer in _folders(files, root):
            for inner in _folders(files, f"{root}/{outer}"):
                for name, is_folder, size_bytes in files.entries(f"{root}/{outer}/{inner}"):
                    is_ours = not is_folder and _NAME.fullmatch(name) and name.startswith(outer + inner)
                    replica = ReplicaId(UUID(int=int(name, 16))) if is_ours else None
                    yield f"{outer}/{inner}/{name}", size_bytes, replica

    def walk_trash(self, files: Files) -> Iterator[tuple[str, int, ReplicaId | None]]:
        """As `walk`, in the trash."""
        root = str(self.trashed)
        for outer in _folders(files, root):
            for name, is_folder, size_bytes in files.entries(f"{root}/{outer}"):
                is_ours = not is_folder and _NAME.fullmatch(name) and name.startswith(outer)
                yield f"{outer}/{name}", size_bytes, ReplicaId(UUID(int=int(name, 16))) if is_ours else None


def _folders(files: Files, parent: str) -> Iterator[str]:
    return (entry.name for entry in files.entries(parent) if entry.is_folder)
