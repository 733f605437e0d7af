"""Fixtures for everybody: a real PostgreSQL for the session, a fresh migrated database for each test, and an end to each hang."""

import faulthandler
import functools
import inspect
import itertools
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import psycopg
import pytest
import structlog
import trio
from hypothesis import settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from fsn.coord.database.base import Connect
from fsn.coord.database.drivers import NATIVE, open_driver
from fsn.coord.database.embedded import EmbeddedPostgres
from fsn.coord.database.migrate import migrate
from fsn.coord.database.pool import Pool, PoolConfig, open_pool

TEST_SECONDS = 60
SLOW_TEST_SECONDS = 600
VIRTUAL_SECONDS = 100 * 24 * 3600
"""Under a virtual clock a test that hangs jumps there at once."""
HANG_SECONDS = 120
SLOW_HANG_SECONDS = 900
FUZZ_HANG_SECONDS = 3600
# Tests do not outlive a power cut. With these, a database from the template takes 60-190 ms instead of 145-490.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}

# The default run has the same examples in every run, so that a failure on one machine is a failure on all.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=60)
settings.register_profile(
    "fuzz", deadline=None, max_examples=int(os.environ.get("FSN_FUZZ_EXAMPLES", "5000")), print_blob=True
)
settings.load_profile("repeatable")

DRIVER = os.environ.get("FSN_TEST_DRIVER", NATIVE)
"""The database driver under the services; the suite of the drivers runs over both."""

_numbers = itertools.count()
_real_stderr = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)


@pytest.fixture(autouse=True)
def _end_of_hangs(request: pytest.FixtureRequest) -> Iterator[None]:
    """The last resort, should a test's own deadline fail: print all stacks and end the process."""
    seconds = SLOW_HANG_SECONDS if request.node.get_closest_marker("slow") else HANG_SECONDS
    if settings.get_current_profile_name() == "fuzz":
        seconds = FUZZ_HANG_SECONDS
    faulthandler.dump_traceback_later(seconds, exit=True, file=_real_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every async test has a deadline of its own. (An autouse fixture around it would end before the test: pytest-trio waits only for who
    names it as an argument.)"""
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and item.get_closest_marker("netns") is None  # these have theirs: scenarios/netlab/fixtures.py
            and inspect.iscoroutinefunction(item.obj)
            and not hasattr(item.obj, "hypothesis")
        ):
            item.obj = _bounded(item.obj, _seconds_of(item))


def _seconds_of(item: pytest.Function) -> float:
    if {"autojump_clock", "mock_clock", "virtual_clock"} & set(item.fixturenames):
        return VIRTUAL_SECONDS
    if settings.get_current_profile_name() == "fuzz":
        return FUZZ_HANG_SECONDS
    return SLOW_TEST_SECONDS if item.get_closest_marker("slow") else TEST_SECONDS


def _bounded(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*arguments: object, **fixtures: object) -> None:
        with trio.fail_after(seconds):
            await test(*arguments, **fixtures)

    return run


@pytest.fixture(autouse=True)
def _fresh_logs() -> Iterator[None]:
    """What a command line that ran in this process set up for its logs must not silence the next test's.

    Tracebacks are plain: structlog's default, where rich is installed, shows the locals of each frame, which takes seconds a line.
    """
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.reset_defaults()
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def fuzz_rounds() -> int:
    """How many rounds a fuzz test makes that draws its chances itself: few in the default run, FSN_FUZZ_EXAMPLES under `make fuzz`."""
    return settings().max_examples


@pytest.fixture
def fuzz_random() -> Random:
    """The chances of such a test: the same in every default run, new ones under `make fuzz`. A failure shows the seed."""
    seed = 0 if settings().derandomize else secrets.randbits(32)
    print(f"seed {seed}")
    return Random(seed)


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can reach: pytest's own are 0700, and a socket's path must be short."""
    folder = Path(tempfile.mkdtemp(prefix="fsn-pg-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_user() -> str | None:
    """As root, tests run PostgreSQL as a user that is there already, rather than make one."""
    return "nobody" if os.geteuid() == 0 else None


@pytest.fixture(scope="session")
def postgres_dsn(postgres_folder: Path, postgres_user: str | None) -> Iterator[str]:
    """A server for the session; FSN_TEST_DSN names another one (its role must be allowed to create databases and roles)."""
    if dsn := os.environ.get("FSN_TEST_DSN"):
        yield dsn
        return
    server = EmbeddedPostgres(postgres_folder, run_as=postgres_user, settings=FAST)
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres_dsn: str) -> Iterator[str]:
    """The name of a database with all migrations applied, to be copied."""
    with _database(postgres_dsn, f"fsn_template_{os.getpid()}") as dsn:
        migrate(dsn)
        yield f"fsn_template_{os.getpid()}"


@pytest.fixture
def database_dsn(postgres_dsn: str, postgres_template: str) -> Iterator[str]:
    """The DSN of a fresh database with all migrations applied."""
    with _database(postgres_dsn, _new_name(), template=postgres_template) as dsn:
        yield dsn


@pytest.fixture
def empty_database_dsn(postgres_dsn: str) -> Iterator[str]:
    """The DSN of a fresh database without any table."""
    with _database(postgres_dsn, _new_name()) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def scratch_dsn(postgres_dsn: str) -> Iterator[str]:
    """The DSN of a database for a module's tests that clean up themselves."""
    with _database(postgres_dsn, _new_name()) as dsn:
        yield dsn


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """The driver, for pools that a test makes itself."""
    async with open_driver(DRIVER) as connect:
        yield connect


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[Pool]:
    """A pool on a fresh database with all migrations applied."""
    async with open_pool(database_dsn, PoolConfig(size=4), driver=DRIVER) as pool:
        yield pool


def _new_name() -> str:
    return f"fsn_test_{os.getpid()}_{next(_numbers)}"


@contextmanager
def _database(server_dsn: str, name: str, template: str = "template0") -> Iterator[str]:
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        # With fsync off, copying files is twice as fast as logging pages. (PostgreSQL 14 can do nothing else, nor name it.)
        strategy = sql.SQL("strategy file_copy" if connection.info.server_version >= 15_00_00 else "")
        create = sql.SQL("create database {} template {} {}")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template), strategy))
        yield make_conninfo(server_dsn, dbname=name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
