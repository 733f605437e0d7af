"""One batch of chunks to the disk: all written, all synced, all named, each folder synced once, one index transaction.

Runs in a thread, one batch at a time. The order is the promise: a row is committed only when its file and the file's name are on
the disk, so a row never points at nothing; a crash before the commit leaves at most whole files without a row, and temp files.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from pathlib import Path

import attrs

from fsn.core.errors import Conflict, FsnError
from fsn.core.ids import ReplicaId
from fsn.node.chunkstore.base import StoredChunk, Totals
from fsn.node.chunkstore.files import Files, attempt_each, disk_errors, translated
from fsn.node.chunkstore.index import Index
from fsn.node.chunkstore.layout import Layout, Places
from fsn.runtime.clock import Clock

__all__ = ["BatchWriter", "Deleted", "NewChunk", "Outcome", "Stored"]


class Stored(Enum):
    """How a store succeeded."""

    NEW = auto()
    ALREADY = auto()
    """The index knew it; its file was there, or has been written anew."""


@attrs.frozen
class NewChunk:
    """A chunk whose root has been checked."""

    replica: ReplicaId
    root: bytes = attrs.field(repr=False)
    data: bytes | memoryview = attrs.field(repr=False)


@attrs.frozen
class _Fresh:
    """A chunk to be written, and where."""

    chunk: NewChunk
    at: Places


@attrs.frozen
class Deleted:
    """What a deletion freed, and what failed with the reason."""

    freed: Totals
    failed: Mapping[ReplicaId, str]
    trashed: Totals = Totals(0, 0)
    """By how much the trash has grown; negative when it has shrunk. So is `freed`, of what came back from there."""


Outcome = Stored | FsnError
_Outcomes = dict[ReplicaId, Outcome]


@attrs.define
class BatchWriter:
    """Writes and deletes chunks durably. For one thread at a time."""

    layout: Layout
    files: Files
    index: Index
    clock: Clock
    # Folders whose own name is known to be on the disk.
    _durable_folders: set[Path] = attrs.field(factory=set, init=False)

    def store(self, chunks: Sequence[NewChunk]) -> Mapping[ReplicaId, Outcome]:
        """Store chunks with distinct ids; what fails, fails alone. Every chunk has an outcome, durable when it is a `Stored`."""
        outcomes: _Outcomes = {}
        fresh = [_Fresh(chunk, self.layout.places(chunk.replica)) for chunk in self._sift(chunks, outcomes)]
        fresh = self._each(fresh, self._write, outcomes)
        fresh = self._each(fresh, self._sync, outcomes)
        fresh = self._each(fresh, self._name, outcomes)
        fresh = self._sync_folders(fresh, outcomes)
        self._record(fresh, outcomes)
        return outcomes

    def delete(self, replicas: Sequence[ReplicaId]) -> Deleted:
        """Delete durably. Rows go first: a crash in between leaves files without a row, never a row that promises a missing file.

        Raises `StorageError` when the index fails; then nothing was deleted.
        """
        freed = self.index.remove(replicas)
        failed: dict[ReplicaId, str] = {}
        folders: dict[Path, list[ReplicaId]] = {}
        for replica in replicas:
            path = self.layout.final(replica)
            with _failing([replica], failed), disk_errors(path):
                # Not there? An earlier deletion may have taken the name away, and failed or died before it was for good.
                self.files.remove(path)
                folders.setdefault(path.parent, []).append(replica)
        for (folder, inside), error in zip(
            folders.items(), attempt_each(self.files.sync_folder, list(folders)), strict=True
        ):
            if error is not None and not isinstance(error, FileNotFoundError):
                failed.update(dict.fromkeys(inside, translated(folder, error).message))
        return Deleted(freed, failed)

    def _sift(self, chunks: Sequence[NewChunk], outcomes: _Outcomes) -> list[NewChunk]:
        """The chunks that must be written; the outcome of the others."""
        known = self.index.find_many([chunk.replica for chunk in chunks])
        fresh = []
        for chunk in chunks:
            outcome = self._outcome_so_far(chunk, known.get(chunk.replica))
            if outcome is None:
                fresh.append(chunk)
                outcomes[chunk.replica] = Stored.ALREADY if chunk.replica in known else Stored.NEW
            else:
                outcomes[chunk.replica] = outcome
        return fresh

    def _outcome_so_far(self, chunk: NewChunk, row: StoredChunk | None) -> Outcome | None:
        """What is known before anything is written; None when it must be."""
        if row is None:
            return None
        if row.root != chunk.root:
            return Conflict(f"replica {chunk.replica.hex} is stored here with another Merkle root")
        path = self.layout.final(chunk.replica)
        try:
            return Stored.ALREADY if self.files.size(path) == row.size_bytes else None
        except OSError as error:
            return translated(path, error)

    def _each(self, fresh: Iterable[_Fresh], step: Callable[[_Fresh], None], outcomes: _Outcomes) -> list[_Fresh]:
        """The chunks for which `step` succeeded; the others fail with its error and leave no file."""
        done = []
        for item in fresh:
            try:
                step(item)
            except OSError as error:
                self._fail(item, translated(item.at.final, error), outcomes)
            else:
                done.append(item)
        return done

    def _write(self, item: _Fresh) -> None:
        self.files.write(item.at.temp, item.chunk.data)

    def _sync(self, item: _Fresh) -> None:
        # Never again for the same file after it failed: the kernel may have dropped the dirty pages and would call it synced.
        self.files.sync(item.at.temp)

    def _name(self, item: _Fresh) -> None:
        try:
            self._make(item.at.folders)
            self.files.rename(item.at.temp, item.at.final)
        except FileNotFoundError:  # somebody has swept empty folders away
            self._durable_folders.difference_update(item.at.folders)
            self._make(item.at.folders)
            self.files.rename(item.at.temp, item.at.final)

    def _make(self, folders: Iterable[Path]) -> None:
        for folder in folders:
            if folder not in self._durable_folders:
                self.files.make_folder(folder)

    def _sync_folders(self, fresh: list[_Fresh], outcomes: _Outcomes) -> list[_Fresh]:
        """Make the new names durable; each folder once, what is below first."""
        above = {folder: parent for item in fresh for folder, parent in item.at.parents}
        new = [folder for folder in above if folder not in self._durable_folders]
        touched = sorted({item.at.folders[-1] for item in fresh} | {above[folder] for folder in new}, reverse=True)
        failures = zip(touched, attempt_each(self.files.sync_folder, touched), strict=True)
        broken = {folder: translated(folder, error) for folder, error in failures if error is not None}
        self._durable_folders.update(folder for folder in new if above[folder] not in broken)
        return self._without(broken, fresh, outcomes) if broken else fresh

    def _without(self, broken: Mapping[Path, FsnError], fresh: list[_Fresh], outcomes: _Outcomes) -> list[_Fresh]:
        whole = []
        for item in fresh:
            error = next((broken[path] for path in (*item.at.folders, self.layout.chunks) if path in broken), None)
            if error is None:
                whole.append(item)
            else:
                self._fail(item, error, outcomes)
        return whole

    def _record(self, fresh: list[_Fresh], outcomes: _Outcomes) -> None:
        now = int(self.clock().timestamp())
        rows = [
            StoredChunk(item.chunk.replica, item.chunk.root, len(item.chunk.data), now)
            for item in fresh
            if outcomes[item.chunk.replica] is Stored.NEW  # of the others the row is there, with the same root
        ]
        try:
            if rows:
                self.index.add(rows)
        except FsnError as error:
            for item in fresh:
                self._fail(item, error, outcomes)

    def _fail(self, item: _Fresh, error: FsnError, outcomes: _Outcomes) -> None:
        outcomes[item.chunk.replica] = error
        for path in (item.at.temp, item.at.final):
            # What cannot be removed now is found by the recovery of the next start.
            with contextlib.suppress(OSError):
                self.files.remove(path)


@contextlib.contextmanager
def _failing(replicas: Iterable[ReplicaId], failed: dict[ReplicaId, str]) -> Iterator[None]:
    try:
        yield
    except FsnError as error:
        failed.update(dict.fromkeys(replicas, error.message))
