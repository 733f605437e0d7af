"""What a file costs the database: the statements of each path, one by one. A new one is a decision, not an accident."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import psycopg
import pytest
import trio
from psycopg.transaction import BaseTransaction

from fsn.coord.catalog import StoredFile
from fsn.coord.config import CreditsConfig
from fsn.coord.database.driver import TrioConnection
from fsn.coord.database.pool import Pool, PoolConfig
from fsn.coord.services import ServicesConfig
from fsn.core.chunking import CHUNK_BYTES
from fsn.core.ids import UserId
from fsn.runtime.supervise import supervise
from tests.coord.network import CONFIG, Network, open_network

NAMES = {
    "with whole as": "record chunks",
    "with f as": "begin upload",
    "select coalesce(a.balance": "standing",
    "select u.id, a.id, a.balance": "lock accounts",
    "select u.budget_micro": "budget",
    "with charged as": "charge",
    "select a.kind::text": "find accounts",
    "select ledger_post": "book",
    "update files set monthly_cost": "mark paid",
    "select u.state": "find upload",
    "select -e.amount": "find reservation",
    "select count(*), coalesce(sum": "count chunks",
    "select fingerprint": "find chunk",
    "update files set status = 'ready'": "mark ready",
    "update uploads": "end upload",
    "select f.id": "find file",
    "select c.index": "find replicas",
    "update files set status = 'deleted'": "destroy key",
    "with c as": "queue deletions",
    "delete from chunks": "delete chunks",
    "update files set cleared_at": "mark cleared",
}
WORKER = f"{supervise.__module__}.{supervise.__qualname__}"
HEARTBEATS = ("update nodes", "select id, peer_id", "with c as (select * from")
"""What runs beside, now and then, and is no worker's."""


def is_of_a_worker() -> bool:
    """Whether this task belongs to background work."""
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None and task.name != WORKER:
        task = task.parent_nursery.parent_task if task.parent_nursery else None
    return task is not None


ENDED = ["begin", "find upload", "count chunks", "find reservation", "mark ready", "end upload", "commit"]
"""An upload is complete. (What was set aside for it is looked for whatever the price is now.)"""


class Log(list[str]):
    """What was sent, by the names above."""

    def note(self, query: object) -> None:
        """Add a statement."""
        text = " ".join(str(query).split())
        if not text.startswith(HEARTBEATS) and not is_of_a_worker():
            self.append(next((name for begin, name in NAMES.items() if text.startswith(begin)), text))

    def taken(self) -> list[str]:
        """All so far; begin again."""
        taken = list(self)
        self.clear()
        return taken


def logged(log: Log) -> type[TrioConnection]:
    """A connection that logs what it sends."""

    class LoggingCursor(psycopg.AsyncCursor[Any]):
        async def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            log.note(query)
            return await super().execute(query, *args, **kwargs)

    class LoggingConnection(TrioConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.cursor_factory = LoggingCursor

        async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            if gen.__qualname__ == BaseTransaction._enter_gen.__qualname__:
                log.note("begin")
            elif gen.__qualname__ == BaseTransaction._exit_gen.__qualname__:
                log.note("commit")
            return await super().wait(gen, *args, **kwargs)

    return LoggingConnection


@pytest.fixture
def log() -> Log:
    """Empty."""
    return Log()


@asynccontextmanager
async def open_logged(dsn: str, log: Log, config: ServicesConfig) -> AsyncIterator[Network]:
    """A coordinator that logs its statements, and three nodes."""
    pool = Pool(dsn, PoolConfig(size=4), logged(log).connect)
    with trio.fail_after(30):
        async with open_network(pool, config, nodes=3) as network:
            yield network
    pool.close()


@pytest.fixture
async def network(database_dsn: str, log: Log) -> AsyncIterator[Network]:
    """Storing is free."""
    async with open_logged(database_dsn, log, CONFIG) as network:
        yield network


@pytest.fixture
async def priced(database_dsn: str, log: Log) -> AsyncIterator[Network]:
    """Storing costs something."""
    config = attrs.evolve(CONFIG, credits=CreditsConfig(price_per_gb_month="10"))
    async with open_logged(database_dsn, log, config) as network:
        yield network


@pytest.fixture
async def user(network: Network, log: Log) -> UserId:
    """Somebody; what was sent before is forgotten."""
    user = (await network.user()).user.id
    log.clear()
    return user


async def put(network: Network, user: UserId, size_bytes: int) -> StoredFile:
    """Upload in one stream."""

    async def body() -> AsyncIterator[bytes]:
        yield bytes(size_bytes)

    return await network.services.uploads.store_stream(user, "f", size_bytes, None, body())


async def test_a_small_file_up(network: Network, user: UserId, log: Log) -> None:
    """A file of up to 1 MiB is one statement, which commits itself."""
    await put(network, user, 4 * CHUNK_BYTES)
    assert log.taken() == ["record chunks"]


async def test_a_small_file_that_costs_something(priced: Network, log: Log) -> None:
    """The balance is looked at once before anything is stored; then it is recorded and charged in one transaction, which others share."""
    user = (await priced.user()).user.id
    log.clear()
    await put(priced, user, 4 * CHUNK_BYTES)
    assert log.taken() == ["standing", "begin", "lock accounts", "charge", "record chunks", "commit"]


async def test_a_large_file_that_costs_something(priced: Network, log: Log) -> None:
    """Set aside when it begins, released and charged when it ends."""
    user = (await priced.user()).user.id
    log.clear()
    await put(priced, user, 16 * CHUNK_BYTES)
    statements = log.taken()
    booked = ["find accounts", "book"]
    assert [each for each in statements if each != "record chunks"] == [
        "standing", "begin", "begin upload", *booked, "budget", "commit",
        "begin", "find upload", "count chunks", "find reservation", *booked, *booked, "mark paid", "mark ready", "end upload", "commit",
    ]  # fmt: skip


async def test_a_large_file_up(network: Network, user: UserId, log: Log) -> None:
    """A large file is begun, its chunks are recorded, as many at a time as wait, and it is made ready."""
    await put(network, user, 16 * CHUNK_BYTES)
    begun, *recorded = log.taken()
    assert begun == "begin upload"
    assert recorded[-7:] == ENDED
    assert set(recorded[:-7]) == {"record chunks"}
    assert len(recorded[:-7]) <= 16


async def test_a_file_up_in_steps(network: Network, user: UserId, log: Log) -> None:
    """In steps, the upload is looked up with every chunk."""
    sessions = network.services.sessions
    upload = await sessions.initiate(user, "f", CHUNK_BYTES, None)
    assert log.taken() == ["begin upload"]
    await sessions.put_chunk(user, upload.id, 0, bytes(CHUNK_BYTES))
    assert log.taken() == ["find upload", "find chunk", "record chunks"]
    await sessions.put_chunk(user, upload.id, 0, bytes(CHUNK_BYTES))
    assert log.taken() == ["find upload", "find chunk"]
    await sessions.complete(user, upload.id)
    assert log.taken() == ENDED


async def test_a_file_down(network: Network, user: UserId, log: Log) -> None:
    """A download looks the file up and then its replicas, 256 chunks at a time; recognising the user costs nothing."""
    services = network.services
    file = await put(network, user, 4 * CHUNK_BYTES)
    login = await services.accounts.login("ann@example.com", "secret1")
    log.clear()
    assert services.accounts.authenticate(login.token) == user
    found = await services.files.find_ready(user, file.id)
    async with services.downloads.open_range(found, 0, 4 * CHUNK_BYTES) as pieces:
        assert sum([len(piece) async for piece in pieces]) == 4 * CHUNK_BYTES
    assert log.taken() == ["find file", "find replicas"]


async def test_a_file_deleted(network: Network, user: UserId, log: Log) -> None:
    """Deleting a file destroys its key and takes its chunks out of the catalogue, in one transaction."""
    file = await put(network, user, CHUNK_BYTES)
    log.clear()
    await network.services.files.delete(user, file.id)
    cleared = ["queue deletions", "delete chunks", "mark cleared"]
    assert log.taken() == ["begin", "end upload", "destroy key", *cleared, "commit"]
