"""What the pool takes for an outage, and for a DSN."""

import psycopg
import pytest
from psycopg import errors

from fsn.coord.database.pool import check_dsn, is_outage
from fsn.core.errors import ConfigError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.AdminShutdown, True),
        (errors.CrashShutdown, True),
        (errors.CannotConnectNow, True),
        (errors.TooManyConnections, True),
        (errors.ConnectionException, True),
        (psycopg.OperationalError, True),
        (errors.ConnectionTimeout, True),
        (errors.QueryCanceled, False),
        (errors.LockNotAvailable, False),
        (errors.DeadlockDetected, False),
        (errors.UniqueViolation, False),
        (errors.SyntaxError, False),
        (psycopg.InterfaceError, False),
    ],
)
def test_what_counts_as_an_outage(error: type[psycopg.Error], expected: bool) -> None:
    """The server's absence is an outage; a mistake, a conflict or a cancelled statement is none."""
    assert is_outage(error("")) is expected


@pytest.mark.parametrize(
    "dsn", ["nonsense", "mysql://fsn:secret@db/fsn", "postgresql://fsn:secret@[db/fsn", "host=db prot=1"]
)
def test_what_is_no_dsn_is_a_mistake_in_the_configuration(dsn: str) -> None:
    """What libpq cannot read is refused before anything starts, and not repeated: it may hold a password."""
    with pytest.raises(ConfigError, match="postgresql://") as caught:
        check_dsn(dsn)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "dsn", ["postgresql://fsn@db/fsn?sslmode=verify-full", "postgres:///fsn", "host=db dbname=fsn"]
)
def test_what_libpq_reads_is_a_dsn(dsn: str) -> None:
    """URLs, and libpq's own words."""
    check_dsn(dsn)
