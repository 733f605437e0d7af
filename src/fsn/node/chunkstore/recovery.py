"""Start-up recovery: what a crash left behind is cleaned up until index and disk agree; every difference is reported.

* A temp file was never acknowledged: removed.
* A whole file without a row is adopted: its root is computed and it gets a row. Mostly it is a chunk that had its name but not yet its
  row when the power went; nobody was told of it, and deleting it would do. But after the index was lost, or an older one put back, it
  is a promise. Keeping a few chunks too many costs less than breaking one.
* A row whose file is gone or has another size is a loss: logged, counted for good, removed from the index, the cut file too.
* What is no chunk of ours (a folder with a chunk's name is none either) is left alone and counted.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

import attrs
import structlog

from fsn.core.errors import Corrupt, StorageError
from fsn.core.ids import ReplicaId
from fsn.core.merkle import merkle_root
from fsn.node.chunkstore.aside import Aside
from fsn.node.chunkstore.aside_rows import AsideRows
from fsn.node.chunkstore.base import MAX_CHUNK_BYTES, RecoveryReport, StoredChunk
from fsn.node.chunkstore.files import Files, attempt_each, disk_errors, read_errors, translated
from fsn.node.chunkstore.index import Index
from fsn.node.chunkstore.layout import Layout
from fsn.node.chunkstore.sums import Tally
from fsn.runtime.clock import Clock

__all__ = ["Recovery", "RecoveryReport", "recover"]

log = structlog.get_logger()

_LOST_TOTAL: Final = "lost_total"
_ADOPT_BATCH: Final = 256


def recover(layout: Layout, files: Files, index: Index, clock: Clock) -> RecoveryReport:
    """Make index and disk agree; a second run finds nothing to do. Crashed in the middle, the next run goes on.

    Raises `StorageError` when the chunk folder is missing though the index lists chunks (a disk that is not mounted), and when the
    disk or the index fail.
    """
    return Recovery(layout, files, index, clock).run()


@attrs.frozen
class _Found:
    """The differences between disk and index."""

    strays: list[ReplicaId] = attrs.field(factory=list)
    lost: list[StoredChunk] = attrs.field(factory=list)
    foreign: list[str] = attrs.field(factory=list)
    tally: Tally = attrs.field(factory=Tally)
    """Of all rows of the index."""


@attrs.frozen
class Recovery:
    """One run of the recovery, before anything is served."""

    layout: Layout
    files: Files
    index: Index
    clock: Clock

    @property
    def aside(self) -> Aside:
        """The trash and the losses."""
        return Aside(self.layout, self.files, AsideRows(self.index), self.clock)

    def run(self) -> RecoveryReport:
        """See `recover`."""
        self._refuse_missing_folder()
        with disk_errors(self.layout.data_dir):
            self.layout.make(self.files)
            temps, folders = self._remove_temps()
        found = self._compare()
        found.strays[:] = self.aside.recover(found.strays)
        if is_off := found.tally.sums() != self.index.sums(range(256)):
            log.error("chunk_sums_corrected")
            self.index.correct_sums()
        found.foreign.extend(folders)
        lost_total = self._drop_lost(found.lost)
        adopted = self._adopt(found)
        report = RecoveryReport(temps, adopted, len(found.lost), len(found.foreign), lost_total, is_off)
        self._report(report, found)
        return report

    def _refuse_missing_folder(self) -> None:
        with read_errors(self.layout.data_dir):
            here = {entry.name for entry in self.files.entries(self.layout.data_dir)}
        if self.layout.chunks.name not in here and (count := self.index.totals().count):
            raise StorageError(
                f"{self.layout.chunks} is missing, but the index lists {count} chunks: is a disk not mounted?"
            )

    def _remove_temps(self) -> tuple[int, list[str]]:
        """How many temp files were removed, and the folders there, which are not ours."""
        entries = self.files.entries(self.layout.unfinished)
        removed = sum(
            self.files.remove(self.layout.unfinished / entry.name) for entry in entries if not entry.is_folder
        )
        return removed, [f"{self.layout.unfinished.name}/{entry.name}" for entry in entries if entry.is_folder]

    def _compare(self) -> _Found:
        """One walk over the disk against one scan of the index, both in order of id."""
        found = _Found()
        rows = _tallied(self.index.scan(), found.tally)
        row = next(rows, None)
        with read_errors(self.layout.chunks):
            for name, size_bytes, replica in self.layout.walk(self.files):
                if replica is None:
                    found.foreign.append(name)
                    continue
                while row is not None and row.replica < replica:
                    found.lost.append(row)
                    row = next(rows, None)
                if row is None or row.replica != replica:
                    found.strays.append(replica)
                    continue
                if row.size_bytes != size_bytes:
                    found.lost.append(row)
                row = next(rows, None)
        found.lost.extend(_rest(row, rows))
        return found

    def _drop_lost(self, lost: list[StoredChunk]) -> int:
        """Forget lost chunks, the file first: a crash in between must not leave a cut file to be adopted. The new total."""
        total = int(self.index.setting(_LOST_TOTAL) or 0) + len(lost)
        if lost:
            for chunk in lost:
                path = self.layout.final(chunk.replica)
                with disk_errors(path), contextlib.suppress(IsADirectoryError):
                    self.files.remove(path)
            reasons = dict.fromkeys((chunk.replica for chunk in lost), "missing or cut short at a start")
            self.aside.rows.to_losses(reasons, self.aside.now)
            self.index.set_setting(_LOST_TOTAL, str(total))
        return total

    def _adopt(self, found: _Found) -> int:
        """Give strays their rows; those that cannot be read or are no chunk count as foreign."""
        adopted = 0
        if found.strays:  # said beforehand: reading and syncing them may take minutes
            log.warning("chunks_without_row", count=len(found.strays))
        for start in range(0, len(found.strays), _ADOPT_BATCH):
            rows = []
            for replica in found.strays[start : start + _ADOPT_BATCH]:
                try:
                    rows.append(self._examine(replica))
                except Corrupt:
                    found.foreign.append(replica.hex)
            self._sync(rows)
            self.index.add(rows)
            adopted += len(rows)
        return adopted

    def _examine(self, replica: ReplicaId) -> StoredChunk:
        path = self.layout.final(replica)
        with read_errors(path):
            data = self.files.read(path, 0, MAX_CHUNK_BYTES + 1)
        if not 0 < len(data) <= MAX_CHUNK_BYTES:
            raise Corrupt(f"{path} has the name of a chunk, but not the size of one")
        return StoredChunk(replica, merkle_root(data), len(data), int(self.clock().timestamp()))

    def _sync(self, rows: Iterable[StoredChunk]) -> None:
        """A process that was killed has named files without syncing their folders: a row must not be more durable than its file."""
        finals = [self.layout.final(row.replica) for row in rows]
        folders = sorted({above for path in finals for above in list(path.parents)[:3]}, reverse=True)
        attempt_each(self.files.begin_to_sync, finals)
        for sync, paths in ((self.files.sync, finals), (self.files.sync_folder, folders)):
            for path, error in zip(paths, attempt_each(sync, paths), strict=True):
                if error is not None:
                    raise translated(path, error)

    def _report(self, report: RecoveryReport, found: _Found) -> None:
        for chunk in found.lost:
            log.error("chunk_lost", chunk=chunk.replica.hex, size_bytes=chunk.size_bytes)
        for name in found.foreign:
            log.warning("foreign_file", file=name)
        if report != RecoveryReport(lost_total=report.lost_total):
            log.warning("chunk_store_recovered", **attrs.asdict(report))


def _tallied(rows: Iterable[StoredChunk], tally: Tally) -> Iterator[StoredChunk]:
    for row in rows:
        tally.add(row)
        yield row


def _rest(row: StoredChunk | None, rows: Iterator[StoredChunk]) -> Iterator[StoredChunk]:
    if row is not None:
        yield row
        yield from rows
