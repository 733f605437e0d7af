"""Databases that live as long as a block: made on a server, migrated, dropped."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from fsn.coord.database.embedded import EmbeddedPostgres
from fsn.coord.database.migrate import migrate
from fsn.coord.database.pool import outages_as_unavailable

__all__ = ["scratch_database", "scratch_server"]

_FAST: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}
"""What is thrown away need not survive a power cut; and what depends on the hour at which a table is vacuumed is not repeatable."""


@contextmanager
def scratch_server() -> Iterator[str]:
    """The DSN of an embedded server in a temporary folder, stopped and removed afterwards. Blocks for a second or two at both ends.

    As root it runs as `nobody`. Raises ConfigError and Unavailable as `EmbeddedPostgres.start` does.
    """
    folder = Path(tempfile.mkdtemp(prefix="fsn-sim-"))
    folder.chmod(0o711)  # the server may be another user
    server = EmbeddedPostgres(folder, run_as="nobody" if os.geteuid() == 0 else None, settings=_FAST)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_database(server_dsn: str) -> Iterator[str]:
    """The DSN of a new database with all migrations applied, on a server whose role may create databases. Blocks. Dropped afterwards,
    though others be connected. Raises Unavailable."""
    name = f"fsn_sim_{os.getpid()}_{secrets.token_hex(4)}"
    with outages_as_unavailable(), psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template template0 encoding 'UTF8' locale 'C'").format(sql.Identifier(name))
        )
        try:
            dsn = make_conninfo(server_dsn, dbname=name)
            migrate(dsn)
            yield dsn
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
