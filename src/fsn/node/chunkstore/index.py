"""The index of a store: one SQLite row per chunk, written by one thread at a time, read over a connection of its own."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog

from fsn.core.errors import Corrupt, NotFound, StorageError
from fsn.core.ids import ReplicaId
from fsn.core.reconciliation import PrefixSum
from fsn.node.chunkstore.base import Ended, StoredChunk, Totals
from fsn.node.chunkstore.files import disk_errors
from fsn.node.chunkstore.layout import Layout
from fsn.node.chunkstore.schema import (
    check,
    connect,
    connect_read_only,
    fill_prefixes,
    index_errors,
    migrate,
    transaction,
)
from fsn.node.chunkstore.sums import ADD_TO_PREFIX, SUMS_WITHIN, SUMS_WITHOUT_WORDS, as_sums, changes

__all__ = ["INDEX_NAME", "Index", "IndexReader", "open_index"]

log = structlog.get_logger()

INDEX_NAME: Final = "index.sqlite3"
"""The index's file in a node's data folder."""

_DAMAGED: Final = ".damaged"
_COLUMNS: Final = "replica_id, root, size_bytes, stored_at"
_SELECT: Final = f"SELECT {_COLUMNS}, challenged_at, challenge_ended FROM chunks"  # noqa: S608 - a constant
_SELECT_BEFORE_PROOFS: Final = f"SELECT {_COLUMNS} FROM chunks"  # noqa: S608 - a constant
_WITH_CHALLENGES: Final = 3
"""The schema from which on it is known how a replica's last challenge ended."""
_NOTE: Final = "UPDATE chunks SET challenged_at = ?, challenge_ended = ? WHERE replica_id = ?"
_INSERT: Final = f"INSERT INTO chunks ({_COLUMNS}) VALUES (?, ?, ?, ?)"  # noqa: S608 - a constant
_SCAN_PAGE: Final = 10_000


def open_index(layout: Layout) -> tuple["Index", bool]:
    """The index of a store, and whether it is an empty one in place of a damaged one, which is kept as `*.damaged`.

    Raises `StorageError` as `Index` does, also for a damaged index when there is no chunk folder to fill a new one from.
    """
    path = layout.data_dir / INDEX_NAME
    try:
        return Index(path), False
    except Corrupt as error:
        if not layout.chunks.is_dir():
            raise StorageError(f"{error.message}, and {layout.chunks} is missing: is a disk not mounted?") from error
        _set_aside(path)
        log.error("chunk_index_damaged", reason=error.message, kept_as=f"{INDEX_NAME}{_DAMAGED}")
    return Index(path), True


def _set_aside(path: Path) -> None:
    # The log with its database: SQLite would replay a log that it finds beside a new one.
    with disk_errors(path):
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).replace(path.with_name(path.name + _DAMAGED + suffix))


class IndexReader:
    """Reads rows by replica id, from any thread. Methods raise what `index_errors` translates to."""

    def __init__(self, path: Path) -> None:
        """Open an index that is there, without changing it; it may be in use. Raises `NotFound` when there is none."""
        if not path.is_file():
            raise NotFound(f"there is no chunk index at {path}")
        with index_errors():
            self._reader = connect_read_only(path)
            version = self._reader.execute("PRAGMA user_version").fetchone()[0]
        self._select = _SELECT if version >= _WITH_CHALLENGES else _SELECT_BEFORE_PROOFS
        # sqlite3 lets threads share a connection, but not run statements on it at once.
        self._reading = threading.Lock()

    def close(self) -> None:
        """Harmless when closed."""
        self._reader.close()

    def find(self, replica: ReplicaId) -> StoredChunk | None:
        """One row, or None."""
        rows = self.read(f"{self._select} WHERE replica_id = ?", replica.bytes)
        return _chunk(rows[0]) if rows else None

    def page(self, after: ReplicaId | None, limit: int) -> list[StoredChunk]:
        """Up to `limit` rows with ids above `after`, in order."""
        start = after.bytes if after is not None else b""
        return [
            _chunk(row)
            for row in self.read(f"{self._select} WHERE replica_id > ? ORDER BY replica_id LIMIT ?", start, limit)
        ]

    def scan(self) -> Iterator[StoredChunk]:
        """Every row in order of id, a page at a time."""
        after: ReplicaId | None = None
        while found := self.page(after, _SCAN_PAGE):
            yield from found
            after = found[-1].replica

    def totals(self) -> Totals:
        """Count and bytes of all rows, from the sums."""
        return Totals(*self.read(SUMS_WITHOUT_WORDS)[0])

    def sums(self, within: Sequence[int] | None) -> dict[int, PrefixSum]:
        """Sums by the first byte of the id; within these first bytes, by its first two. Empty ones are left out."""
        if within is None:
            return as_sums(self.read(SUMS_WITHIN, 8, 0, 0xFFFF))
        rows = (row for byte in within for row in self.read(SUMS_WITHIN, 0, byte << 8, byte << 8 | 0xFF))
        return as_sums(rows)

    def page_within(self, prefixes: Sequence[int], after: ReplicaId | None, limit: int) -> list[StoredChunk]:
        """Up to `limit` rows with ids above `after` that begin with one of these two bytes, in order."""
        found: list[StoredChunk] = []
        start = after.bytes if after is not None else b""
        query = (
            f"{self._select} WHERE replica_id > ? AND replica_id >= ? AND replica_id <= ? ORDER BY replica_id LIMIT ?"
        )
        for prefix in sorted(set(prefixes)):
            first, last = (prefix.to_bytes(2, "big") + rest * 14 for rest in (b"\x00", b"\xff"))
            if last > start and len(found) < limit:
                found.extend(map(_chunk, self.read(query, start, first, last, limit - len(found))))
        return found

    def setting(self, key: str) -> str | None:
        """A value of the `config` table, or None."""
        rows = self.read("SELECT value FROM config WHERE key = ?", key)
        return rows[0][0] if rows else None

    def read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a query, from any thread."""
        with index_errors(), self._reading:
            return self._reader.execute(query, values).fetchall()


class Index(IndexReader):
    """Reads and writes. Each write is one transaction, on the disk when the method returns, or without effect when it raises."""

    def __init__(self, path: Path) -> None:
        """Open or create the index and bring its schema up to date. Raises `Corrupt` for a damaged one, `StorageError` for a newer one."""
        with index_errors():
            self._writer = connect(path)
            try:
                check(self._writer)
                migrate(self._writer)
                super().__init__(path)
            except BaseException:
                self._writer.close()
                raise

    def close(self) -> None:
        """Close both connections; harmless when closed."""
        super().close()
        self._writer.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: on the disk when the block ends, without effect when it raises. For the writing thread."""
        with index_errors(), transaction(self._writer):
            yield self._writer

    def add(self, chunks: Iterable[StoredChunk]) -> None:
        """Insert rows, and add them to the sums. Raises `StorageError` when one of the ids is there."""
        with self.writing():
            self.put_in(list(chunks))

    def put_in(self, chunks: Sequence[StoredChunk]) -> None:
        """As `add`, within `writing`."""
        rows = [(chunk.replica.bytes, chunk.root, chunk.size_bytes, chunk.stored_at) for chunk in chunks]
        self._writer.executemany(_INSERT, rows)
        self._writer.executemany(ADD_TO_PREFIX, changes(chunks))

    def remove(self, replicas: Iterable[ReplicaId]) -> Totals:
        """Delete rows, and take them off the sums; returns what they held together. Absent ids are passed over."""
        with self.writing():
            gone = self.take_out(replicas)
        return Totals(len(gone), sum(chunk.size_bytes for chunk in gone))

    def correct_sums(self) -> None:
        """Compute the sums of all rows anew."""
        with index_errors(), transaction(self._writer):
            fill_prefixes(self._writer)

    def take_out(self, replicas: Iterable[ReplicaId]) -> list[StoredChunk]:
        """Delete rows, within `writing`; those that there were."""
        query = f"DELETE FROM chunks WHERE replica_id = ? RETURNING {_COLUMNS}"  # noqa: S608 - a constant
        found = (self._writer.execute(query, (replica.bytes,)).fetchall() for replica in replicas)
        gone = [_chunk(row) for rows in found for row in rows]
        self._writer.executemany(ADD_TO_PREFIX, changes((), gone))
        return gone

    def find_many(self, replicas: Sequence[ReplicaId]) -> Mapping[ReplicaId, StoredChunk]:
        """The rows there are for these ids; for the writing thread."""
        marks = ",".join("?" * len(replicas))
        with index_errors():
            rows = self._writer.execute(
                f"{_SELECT} WHERE replica_id IN ({marks})", [replica.bytes for replica in replicas]
            ).fetchall()
        return {chunk.replica: chunk for chunk in map(_chunk, rows)}

    def note_challenges(self, ended: Mapping[ReplicaId, Ended]) -> None:
        """How the last challenges of replicas ended; absent ids are passed over."""
        with self.writing() as writer:
            writer.executemany(_NOTE, [(each.at, each.how, replica.bytes) for replica, each in ended.items()])

    def set_setting(self, key: str, value: str) -> None:
        """Write a value of the `config` table."""
        with index_errors(), transaction(self._writer):
            self._writer.execute("INSERT OR REPLACE INTO config (key, value) VALUES (?, ?)", (key, value))


def _chunk(row: Sequence[Any]) -> StoredChunk:
    challenged = Ended(*row[4:]) if row[4:] and row[4] is not None else None
    return StoredChunk(ReplicaId(UUID(bytes=row[0])), row[1], row[2], row[3], challenged)
