"""The schema of the chunk index: SQLite connections and numbered migrations under `PRAGMA user_version`."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

from fsn.core.errors import Corrupt, DiskFull, StorageError, Unavailable
from fsn.core.ids import ReplicaId
from fsn.node.chunkstore.base import StoredChunk
from fsn.node.chunkstore.sums import ADD_TO_PREFIX, changes

__all__ = [
    "MIGRATIONS",
    "check",
    "connect",
    "connect_read_only",
    "fill_prefixes",
    "index_errors",
    "migrate",
    "transaction",
]

_SCAN_PAGE: Final = 10_000


def fill_prefixes(connection: sqlite3.Connection) -> None:
    """Compute the sums of all chunks anew, in the caller's transaction: about 2 s for a million."""
    connection.execute("DELETE FROM prefixes")
    query = (
        "SELECT replica_id, root, size_bytes, stored_at FROM chunks WHERE replica_id > ? ORDER BY replica_id LIMIT ?"
    )
    last = b""
    while rows := connection.execute(query, (last, _SCAN_PAGE)).fetchall():
        chunks = (StoredChunk(ReplicaId(UUID(bytes=row[0])), *row[1:]) for row in rows)
        connection.executemany(ADD_TO_PREFIX, changes(chunks))
        last = rows[-1][0]


MIGRATIONS: Final = (
    """
    CREATE TABLE config (
        key   TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE chunks (
        replica_id BLOB PRIMARY KEY CHECK (length(replica_id) = 16),
        root       BLOB NOT NULL CHECK (length(root) = 32),
        size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
        stored_at  INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE prefixes (
        prefix     INTEGER PRIMARY KEY CHECK (prefix BETWEEN 0 AND 65535),
        count      INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        word_0     INTEGER NOT NULL,
        word_1     INTEGER NOT NULL,
        word_2     INTEGER NOT NULL,
        word_3     INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE trash (
        replica_id BLOB PRIMARY KEY CHECK (length(replica_id) = 16),
        root       BLOB NOT NULL CHECK (length(root) = 32),
        size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
        stored_at  INTEGER NOT NULL,
        trashed_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX trash_by_age ON trash (trashed_at);

    CREATE TABLE losses (
        replica_id BLOB PRIMARY KEY CHECK (length(replica_id) = 16),
        reason     TEXT NOT NULL,
        found_at   INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE chunks ADD COLUMN challenged_at INTEGER;
    ALTER TABLE chunks ADD COLUMN challenge_ended TEXT;
    """,
)
"""Numbered from 1, applied in order, each in a transaction of its own; `PRAGMA user_version` is the number of the last one."""

_AFTERWARDS: Final[dict[int, Callable[[sqlite3.Connection], None]]] = {2: fill_prefixes}
"""What SQL alone cannot do, in the same transaction."""

_BUSY_SECONDS: Final = 5.0
"""How long a statement waits for a lock that another process holds (`fsn node chunks list` on a node that does not run)."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or create a database in WAL mode where a commit is on the disk when it returns; transactions are the caller's."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
    try:
        for setting in ("journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a database that is there, never changing it."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date; harmless when it is. Raises `StorageError` for a schema of a newer version."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StorageError(
            f"the chunk index has schema {version}, made by a newer fsn; this one knows up to {len(MIGRATIONS)}"
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        with transaction(connection):
            for statement in script.split(";"):
                connection.execute(statement)
            if number in _AFTERWARDS:
                _AFTERWARDS[number](connection)
            connection.execute(f"PRAGMA user_version = {number}")


def check(connection: sqlite3.Connection) -> None:
    """Raise `Corrupt` when the database is damaged. Reads every page: 0.17 s for 400,000 chunks (27 MB)."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Corrupt(f"the chunk index is damaged: {found}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements of the block, or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After a full disk or an I/O error SQLite has rolled back by itself, and a ROLLBACK would be an error of its own.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def index_errors() -> Iterator[None]:
    """Translate `sqlite3.Error` once: `DiskFull`, `Unavailable` (locked by another process), `Corrupt`, else `StorageError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise _kind(error)(f"the chunk index failed: {error}") from error


def _kind(error: sqlite3.Error) -> type[StorageError]:
    # The primary result code is the low byte of the extended one (sqlite.org/rescode.html).
    code: int = getattr(error, "sqlite_errorcode", 0) & 0xFF
    by_code: dict[int, type[StorageError]] = {
        sqlite3.SQLITE_FULL: DiskFull,
        sqlite3.SQLITE_BUSY: Unavailable,
        sqlite3.SQLITE_CORRUPT: Corrupt,
        sqlite3.SQLITE_NOTADB: Corrupt,
    }
    return by_code.get(code, StorageError)
