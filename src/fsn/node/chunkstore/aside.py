"""What a store puts aside: garbage into the trash, from which it may come back, and damaged files, for the operator to look at.

The row is moved first, then the file: a crash in between leaves a file in a place where its row is not any more, and the next start
puts it where the row says. Runs in the writing thread.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from fsn.core.errors import Corrupt, FsnError
from fsn.core.ids import ReplicaId
from fsn.core.merkle import merkle_root
from fsn.node.chunkstore.aside_rows import AsideRows
from fsn.node.chunkstore.base import MAX_CHUNK_BYTES, StoredChunk, Totals, TrashedChunk
from fsn.node.chunkstore.batch import Deleted
from fsn.node.chunkstore.files import Files, attempt_each, disk_errors, read_errors, translated
from fsn.node.chunkstore.layout import Layout
from fsn.runtime.clock import Clock

__all__ = ["AT_ONCE", "Aside"]

AT_ONCE: Final = 256
"""Replicas in one step: stores get their turn in between."""

NOTHING: Final = Totals(0, 0)


@attrs.frozen
class Aside:
    """The folders `trash` and `damaged`, and their rows. For one thread at a time."""

    layout: Layout
    files: Files
    rows: AsideRows
    clock: Clock

    @property
    def now(self) -> int:
        """Unix seconds."""
        return int(self.clock().timestamp())

    def trash(self, replicas: Sequence[ReplicaId]) -> Deleted:
        """Move chunks into the trash; what is not there is gone already. Those that failed are no chunks any more either: the next start
        finishes their move. Raises `StorageError` when the index fails; then nothing was moved."""
        gone = self.rows.to_trash(replicas, self.now)
        missing, failed = self._move([(self.layout.final(each.replica), each.replica) for each in gone], is_in=True)
        if missing:
            self.rows.forget_trash(missing)
        kept = [chunk for chunk in gone if chunk.replica not in missing]
        return Deleted(_totals(gone), failed, _totals(kept))

    def restore(self, replicas: Sequence[ReplicaId]) -> Deleted:
        """Move trash back among the chunks, durably, file first; those that failed stay in the trash, each with the reason."""
        found = self.rows.find_trash(replicas)
        failed = dict.fromkeys((each for each in replicas if each not in found), "it is not in the trash")
        known = self.rows.index.find_many([*found])
        failed.update(dict.fromkeys(known, "it has been stored again"))
        wanted = [found[each].chunk for each in found if each not in known]
        missing, broken = self._move([(self.layout.final(each.replica), each.replica) for each in wanted], is_in=False)
        failed.update(broken)
        failed.update(dict.fromkeys(missing, "its file is gone"))
        back = [chunk for chunk in wanted if chunk.replica not in failed]
        self.rows.from_trash(back)
        restored = _totals(back)
        minus = Totals(-restored.count, -restored.size_bytes)
        return Deleted(minus, failed, minus)

    def empty(self, before: int, at_least_bytes: int | None = None) -> Deleted:
        """Remove the oldest of the trash, if older than `before` (unix seconds): AT_ONCE at most, or until `at_least_bytes` are free."""
        going, size_bytes = [], 0
        for found in self.rows.oldest(before, AT_ONCE):
            if at_least_bytes is not None and size_bytes >= at_least_bytes:
                break
            going.append(found.chunk)
            size_bytes += found.chunk.size_bytes
        paths = [self.layout.trash(chunk.replica) for chunk in going]
        for path in paths:
            with disk_errors(path):
                self.files.remove(path)
        self._sync(sorted({path.parent for path in paths}))
        self.rows.forget_trash([chunk.replica for chunk in going])
        gone = _totals(going)
        return Deleted(NOTHING, {}, Totals(-gone.count, -gone.size_bytes))

    def set_aside(self, replica: ReplicaId, reason: str) -> Deleted:
        """A chunk is damaged or missing: it is a loss from now on, and its file lies in `damaged`."""
        freed = self.rows.to_losses({replica: reason}, self.now)
        if freed.count:
            self.move_damaged([replica])
        return Deleted(freed, {})

    def move_damaged(self, replicas: Iterable[ReplicaId]) -> None:
        """Take the files of losses out of the way."""
        pairs = [(self.layout.final(replica), self.layout.damaged_file(replica)) for replica in replicas]
        with disk_errors(self.layout.damaged):
            self.files.make_folder(self.layout.damaged)
            for source, target in pairs:
                with suppress(FileNotFoundError):
                    self.files.rename(source, target)
        self._sync([self.layout.damaged, self.layout.data_dir, *sorted({source.parent for source, _ in pairs})])

    def recover(self, strays: Sequence[ReplicaId]) -> list[ReplicaId]:
        """Finish what a crash cut off; `strays` are files among the chunks without a row there. Returns those that are none of ours."""
        trashed = self.rows.find_trash(strays)
        lost = self.rows.are_lost(strays)
        for start in range(0, len(strays), AT_ONCE):
            some = strays[start : start + AT_ONCE]
            _, failed = self._move([(self.layout.final(each), each) for each in some if each in trashed], is_in=True)
            if failed:
                raise Corrupt(f"garbage cannot be moved into {self.layout.trashed}: {next(iter(failed.values()))}")
            if damaged := [each for each in some if each in lost and each not in trashed]:
                self.move_damaged(damaged)
        self._agree()
        return [each for each in strays if each not in trashed and each not in lost]

    def _agree(self) -> None:
        """Files in the trash without a row get one (its time begins anew); rows without a file go."""
        with read_errors(self.layout.trashed):
            files = [replica for _, _, replica in self.layout.walk_trash(self.files) if replica is not None]
        known: set[ReplicaId] = set()
        after: ReplicaId | None = None
        while page := self.rows.page(after, 1000):
            known.update(found.chunk.replica for found in page)
            after = page[-1].chunk.replica
        here = set(files)
        if gone := known - here:
            self.rows.forget_trash(sorted(gone))
        self.rows.adopt_trash(found for each in files if each not in known and (found := self._examine(each)))

    def _examine(self, replica: ReplicaId) -> TrashedChunk | None:
        path = self.layout.trash(replica)
        with read_errors(path):
            data = self.files.read(path, 0, MAX_CHUNK_BYTES + 1)
        if not 0 < len(data) <= MAX_CHUNK_BYTES:
            return None
        return TrashedChunk(StoredChunk(replica, merkle_root(data), len(data), self.now), self.now)

    def _move(
        self, items: Sequence[tuple[Path, ReplicaId]], *, is_in: bool
    ) -> tuple[set[ReplicaId], dict[ReplicaId, str]]:
        """Rename into the trash or out of it, durably: new names first. Those without a file, and those that failed with the reason."""
        missing: set[ReplicaId] = set()
        failed: dict[ReplicaId, str] = {}
        touched: dict[Path, None] = {}
        sources: dict[Path, None] = {}
        for final, replica in items:
            trash = self.layout.trash(replica)
            source, target = (final, trash) if is_in else (trash, final)
            above = [target.parent, target.parent.parent] if is_in else [*target.parents][:3]
            try:
                for folder in reversed(above if is_in else above[:-1]):
                    self.files.make_folder(folder)
                self.files.rename(source, target)
            except FileNotFoundError:
                missing.add(replica)
            except OSError as error:
                failed[replica] = translated(target, error).message
            else:
                touched.update(dict.fromkeys([*above, self.layout.data_dir] if is_in else above))
                sources[source.parent] = None
        try:
            self._sync([*touched, *sources])
        except FsnError as error:
            failed.update({replica: error.message for _, replica in items if replica not in missing})
        return missing, failed

    def _sync(self, folders: Sequence[Path]) -> None:
        for folder, error in zip(folders, attempt_each(self.files.sync_folder, folders), strict=True):
            if error is not None:
                raise translated(folder, error)


def _totals(chunks: Sequence[StoredChunk]) -> Totals:
    return Totals(len(chunks), sum(chunk.size_bytes for chunk in chunks))
