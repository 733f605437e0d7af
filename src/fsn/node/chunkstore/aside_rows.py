"""Rows of what is no chunk any more: replicas in the trash, and losses that no coordinator has acknowledged."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import attrs

from fsn.core.ids import ReplicaId
from fsn.node.chunkstore.base import StoredChunk, Totals, TrashedChunk
from fsn.node.chunkstore.index import Index

__all__ = ["AsideRows"]

_COLUMNS: Final = "replica_id, root, size_bytes, stored_at, trashed_at"
_SELECT: Final = f"SELECT {_COLUMNS} FROM trash"  # noqa: S608 - a constant
_PUT: Final = f"INSERT OR REPLACE INTO trash ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)"  # noqa: S608 - a constant
_FORGET: Final = "DELETE FROM trash WHERE replica_id = ?"


@attrs.frozen
class AsideRows:
    """Two tables beside `chunks`, and the ways between them; each in one transaction. What changes them is for the writing thread."""

    index: Index

    def to_trash(self, replicas: Iterable[ReplicaId], at: int) -> list[StoredChunk]:
        """Turn chunks into trash; those that there were."""
        with self.index.writing() as db:
            gone = self.index.take_out(replicas)
            db.executemany(_PUT, [_row(TrashedChunk(chunk, at)) for chunk in gone])
        return gone

    def from_trash(self, chunks: Sequence[StoredChunk]) -> None:
        """Turn trash into chunks again."""
        with self.index.writing() as db:
            db.executemany(_FORGET, [(chunk.replica.bytes,) for chunk in chunks])
            self.index.put_in(chunks)

    def adopt_trash(self, found: Iterable[TrashedChunk]) -> None:
        """Rows for files that have none."""
        with self.index.writing() as db:
            db.executemany(_PUT, map(_row, found))

    def forget_trash(self, replicas: Iterable[ReplicaId]) -> None:
        """Their files are gone."""
        with self.index.writing() as db:
            db.executemany(_FORGET, [(replica.bytes,) for replica in replicas])

    def find_trash(self, replicas: Iterable[ReplicaId]) -> dict[ReplicaId, TrashedChunk]:
        """Those that are there."""
        rows = [row for each in replicas for row in self.index.read(f"{_SELECT} WHERE replica_id = ?", each.bytes)]
        return {found.chunk.replica: found for found in map(_trashed, rows)}

    def page(self, after: ReplicaId | None, limit: int) -> list[TrashedChunk]:
        """In order of id."""
        start = after.bytes if after is not None else b""
        query = f"{_SELECT} WHERE replica_id > ? ORDER BY replica_id LIMIT ?"
        return [_trashed(row) for row in self.index.read(query, start, limit)]

    def oldest(self, before: int, limit: int) -> list[TrashedChunk]:
        """What has lain there longest, if since before `before`."""
        query = f"{_SELECT} WHERE trashed_at < ? ORDER BY trashed_at LIMIT ?"
        return [_trashed(row) for row in self.index.read(query, before, limit)]

    def trash_totals(self) -> Totals:
        """Reads the whole table."""
        return Totals(*self.index.read("SELECT count(*), coalesce(sum(size_bytes), 0) FROM trash")[0])

    def to_losses(self, reasons: Mapping[ReplicaId, str], at: int) -> Totals:
        """Turn chunks into losses; what those held together that there were."""
        with self.index.writing() as db:
            gone = self.index.take_out(reasons)
            rows = [(chunk.replica.bytes, reasons[chunk.replica], at) for chunk in gone]
            db.executemany("INSERT OR REPLACE INTO losses (replica_id, reason, found_at) VALUES (?, ?, ?)", rows)
        return Totals(len(gone), sum(chunk.size_bytes for chunk in gone))

    def losses(self, limit: int) -> dict[ReplicaId, str]:
        """In the order in which they were found; without those that were stored again since."""
        query = """SELECT replica_id, reason FROM losses l
                   WHERE NOT EXISTS (SELECT 1 FROM chunks c WHERE c.replica_id = l.replica_id) ORDER BY found_at, replica_id LIMIT ?"""
        return {ReplicaId(UUID(bytes=raw)): reason for raw, reason in self.index.read(query, limit)}

    def are_lost(self, replicas: Iterable[ReplicaId]) -> set[ReplicaId]:
        """Those that are losses."""
        query = "SELECT 1 FROM losses WHERE replica_id = ?"
        return {each for each in replicas if self.index.read(query, each.bytes)}

    def forget_losses(self, replicas: Iterable[ReplicaId]) -> None:
        """A coordinator knows them."""
        with self.index.writing() as db:
            db.executemany("DELETE FROM losses WHERE replica_id = ?", [(replica.bytes,) for replica in replicas])


def _row(found: TrashedChunk) -> tuple[object, ...]:
    chunk = found.chunk
    return (chunk.replica.bytes, chunk.root, chunk.size_bytes, chunk.stored_at, found.trashed_at)


def _trashed(row: Sequence[Any]) -> TrashedChunk:
    return TrashedChunk(StoredChunk(ReplicaId(UUID(bytes=row[0])), *row[1:4]), row[4])
