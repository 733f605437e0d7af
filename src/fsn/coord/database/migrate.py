"""Migrations: `migrations/NNN_name.sql`, applied in order, each once, however many processes start together."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

import attrs
import psycopg
from psycopg import errors

from fsn.coord.database.pool import is_outage, outages_as_unavailable
from fsn.core.errors import ConfigError, Unavailable

__all__ = ["Migration", "MigrationError", "load_migrations", "migrate"]

LOCK_KEY: Final = 0x66736E
"""The letters "fsn": the advisory lock that one migrating process holds."""
LOCK_SECONDS: Final = 300
"""How long to wait for that lock, and for each lock on a table."""

OLDEST_SERVER: Final = 14_00_00
_TABLE: Final = """
create table if not exists schema_migration (
    version integer primary key,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default now()
)"""


class MigrationError(ConfigError):
    """The migrations of this program do not fit the database, or one of them failed (and left nothing behind)."""

    code = "migration"


@attrs.frozen
class Migration:
    """One file: what brings a database from `version - 1` to `version`."""

    version: int
    name: str
    sql: str = attrs.field(repr=False)

    @property
    def file_name(self) -> str:
        return f"{self.version:03d}_{self.name}.sql"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def is_transactional(self) -> bool:
        """Not when the first line is `-- no-transaction`: for `create index concurrently`, alone in its file."""
        return not self.sql.startswith("-- no-transaction")


def migrate(dsn: str, upto: int | None = None, *, folder: Traversable | None = None) -> list[int]:
    """Bring the database to version `upto`, or to the newest; the versions that were applied now. Blocking; again is harmless.

    Each file runs in a transaction of its own, together with its row in `schema_migration`: when this returns they are durable,
    and a crash leaves whole versions. One process does it at a time, under a session's advisory lock that goes with a crashed
    process (so not through pgbouncer in transaction mode); the others wait. `folder` is the package's own if not given.
    Raises MigrationError when a file was changed after it was applied, is missing, or fails, when the database is newer than this
    program or cannot keep every name (no UTF-8), and when the role may not do it; Unavailable when the server is, or when another
    process has been migrating for LOCK_SECONDS.
    """
    migrations = load_migrations(folder)
    with outages_as_unavailable(), psycopg.connect(dsn, autocommit=True) as connection:
        _check_server(connection)
        with _migration_lock(connection):
            _make_table(connection)
            wanted = _missing(connection, migrations, upto)
            for migration in wanted:
                _apply(connection, migration)
    return [migration.version for migration in wanted]


def load_migrations(folder: Traversable | None = None) -> list[Migration]:
    """The migrations of `folder` (the package's own if not given) in order. Raises MigrationError unless they count 1, 2, 3..."""
    files = (folder or resources.files("fsn.coord.database") / "migrations").iterdir()
    migrations = sorted((_load(file) for file in files if file.name.endswith(".sql")), key=lambda each: each.version)
    versions = [migration.version for migration in migrations]
    if versions != list(range(1, len(versions) + 1)):
        raise MigrationError(f"migrations must be numbered 1, 2, 3... without gaps; found {versions}")
    return migrations


def _load(file: Traversable) -> Migration:
    name = re.fullmatch(r"(\d{3,})_(\w+)\.sql", file.name)
    if name is None:
        raise MigrationError(f"a migration is called NNN_name.sql; found {file.name}")
    text = file.read_text("utf-8").replace("\r\n", "\n")  # git may change line ends, the checksum must not
    return Migration(int(name[1]), name[2], text)


def _check_server(connection: psycopg.Connection) -> None:
    version, encoding = connection.info.server_version, connection.info.parameter_status("server_encoding")
    if version < OLDEST_SERVER:
        raise MigrationError(f"PostgreSQL {OLDEST_SERVER // 10_000} or newer is wanted; this is {version // 10_000}")
    if encoding != "UTF8":
        raise MigrationError(
            f"a database in UTF8 is wanted, for names of files; this one is in {encoding}:"
            " make one with `createdb --encoding UTF8 --locale C --template template0`"
        )


def _make_table(connection: psycopg.Connection) -> None:
    # "if not exists" alone wants the right to create, also of a role that finds everything done.
    if connection.execute("select to_regclass('schema_migration')").fetchone() == (None,):
        with _failures_told("the table of migrations cannot be made"):
            connection.execute(_TABLE)


@contextmanager
def _migration_lock(connection: psycopg.Connection) -> Iterator[None]:
    connection.execute("select set_config('lock_timeout', %s, false)", [f"{LOCK_SECONDS}s"])
    try:
        connection.execute("select pg_advisory_lock(%s)", [LOCK_KEY])
    except errors.LockNotAvailable:
        raise Unavailable(f"another process has been migrating this database for {LOCK_SECONDS} s") from None
    yield  # the lock goes with the connection, which is this function's caller's and closed after us


def _missing(connection: psycopg.Connection, migrations: Sequence[Migration], upto: int | None) -> list[Migration]:
    """What must be applied. Raises MigrationError when what was applied is not what we have."""
    applied: dict[int, str] = dict(connection.execute("select version, sha256 from schema_migration").fetchall())
    newest = max(applied, default=0)
    if newest > len(migrations):
        raise MigrationError(
            f"the database is at version {newest}, this program knows {len(migrations)}: update the program"
        )
    for migration in migrations[:newest]:
        if applied.get(migration.version) != migration.sha256:
            raise MigrationError(
                f"{migration.file_name} was changed after it was applied: put the change in a new file"
            )
    return [migration for migration in migrations[newest:] if upto is None or migration.version <= upto]


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    with _failures_told(f"{migration.file_name} failed"):
        if migration.is_transactional:
            with connection.transaction():
                _run_and_record(connection, migration)
        else:
            _run_and_record(connection, migration)


@contextmanager
def _failures_told(what: str) -> Iterator[None]:
    """What is no outage becomes a MigrationError."""
    try:
        yield
    except errors.Error as error:
        if is_outage(error):
            raise
        raise MigrationError(f"{what}: {error}") from error


def _run_and_record(connection: psycopg.Connection, migration: Migration) -> None:
    connection.execute(migration.sql.encode())  # without parameters: many statements at once, and % is plain
    connection.execute(
        "insert into schema_migration (version, name, sha256) values (%s, %s, %s)",
        [migration.version, migration.name, migration.sha256],
    )
