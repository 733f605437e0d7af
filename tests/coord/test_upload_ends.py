"""An upload that is ended from several sides at once: nobody waits for ever, and what was promised stays."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from psycopg.errors import LockNotAvailable

from fsn.coord.catalog import Upload
from fsn.coord.database import files as file_table
from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.ids import UserId
from tests.coord.network import Network


@asynccontextmanager
async def holding(pool: Pool, upload: Upload) -> AsyncIterator[Connection]:
    """Somebody else's transaction, which has locked the upload's row."""
    async with pool.transaction() as other:
        await other.execute("select 1 from uploads where id = %s for update", [upload.id])
        yield other


async def wait_blocked(pool: Pool) -> None:
    """Until somebody waits for a lock; the test's deadline bounds it."""
    while not await pool.fetch_one("select 1 from pg_locks where not granted"):  # noqa: ASYNC110 - the server's affair
        await trio.sleep(0.01)


async def begin(network: Network) -> tuple[UserId, Upload]:
    """An open upload of an empty file."""
    user = (await network.user()).user.id
    return user, await network.services.sessions.initiate(user, "f", 0, None)


async def test_upload_before_file(network: Network, pool: Pool) -> None:
    """Who waits for an upload's row has not locked its file: deletion and expiry take them in that order, and would deadlock."""
    user, upload = await begin(network)

    async def complete() -> None:
        async with pool.transaction() as connection:
            await file_table.lock_upload(connection, user, upload.id)

    async with trio.open_nursery() as nursery, holding(pool, upload) as other:
        nursery.start_soon(complete)
        await wait_blocked(pool)
        try:
            await other.execute("select 1 from files where id = %s for update nowait", [upload.file.id])
        except LockNotAvailable:
            pytest.fail("the file was locked before the upload")


async def test_a_file_that_became_ready_does_not_expire(network: Network, pool: Pool) -> None:
    """An upload that is completed in the moment of its expiry keeps its file."""
    user, upload = await begin(network)
    await pool.execute("update uploads set expires_at = created_at - interval '1 second'")
    async with trio.open_nursery() as nursery, holding(pool, upload) as other:
        nursery.start_soon(network.services.sessions.expire)
        await wait_blocked(pool)
        await file_table.mark_ready(other, upload.file.id, 0, upload.file.created_at)
        await file_table.set_upload_state(other, upload.file.id, "completed")
    assert (await network.services.files.find_ready(user, upload.file.id)).status == "ready"
