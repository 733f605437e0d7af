"""The coordinator dies, its database dies, its clock jumps: nothing half-recorded is served, and all goes on by itself."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import attrs
import httpx
import pytest
import trio

from fsn.coord.catalog import Upload
from fsn.coord.database.embedded import open_embedded_postgres
from fsn.coord.database.migrate import migrate
from fsn.coord.database.pool import Pool, PoolConfig, open_pool
from fsn.coord.database.server_process import postmaster_of
from fsn.core.chunking import CHUNK_BYTES
from fsn.core.errors import Conflict
from fsn.core.ids import UserId
from fsn.runtime.clock import system_clock
from fsn.runtime.identity import Identity
from tests.conftest import FAST
from tests.coord.network import Network, open_network, wait_until
from tests.faults.network import IMPATIENT, content, get, put, wait_stored_is_recorded
from tests.web.api.conftest import Api, open_api

INITIATE = "/api/v1/files/upload/initiate"


# -- the coordinator


async def abandoned(network: Network, user: UserId, chunks: int = 2) -> Upload:
    """What a coordinator leaves that is killed in the middle of a streamed upload: so many chunks are recorded, and nobody cleans up."""
    services = network.services
    upload = await services.admission.admit(user, "half", None, None)
    async with services.sessions.streaming(upload):
        for index in range(chunks):
            await services.uploads._writer.store_and_record(upload, index, content(1))
    return upload


async def test_a_stream_that_a_killed_coordinator_was_reading_is_dropped(pool: Pool) -> None:
    """When it starts again: no file, no chunk of it is served, its replicas go; an upload in steps, and another's stream, stay."""
    me, other = Identity.generate(), Identity.generate()
    async with open_network(pool, IMPATIENT, nodes=3, identity=other) as network:
        user = (await network.user()).user.id
        theirs = await abandoned(network, user)
    async with open_network(pool, IMPATIENT, nodes=3, identity=me) as network:
        steps = await network.services.sessions.initiate(user, "steps", 5, None)
        await network.services.sessions.put_chunk(user, steps.id, 0, b"hello")
        mine = await abandoned(network, user)
    async with open_network(pool, IMPATIENT, nodes=3, identity=me) as network:
        services = network.services
        while len(await services.files.page(user, None, 10)) > 2:  # noqa: ASYNC110 - the worker has no event for it
            await trio.sleep(0.02)
        assert {file.id for file in await services.files.page(user, None, 10)} == {steps.file.id, theirs.file.id}
        assert await pool.fetch_one("select count(*) from replicas where file_id = %s", [mine.file.id]) == (0,)
        assert await pool.fetch_one("select count(*) from replica_deletions") == (6,)
        with pytest.raises(Conflict):
            await services.files.find_ready(user, theirs.file.id)
        assert (await services.sessions.progress(user, steps.id)).received == [(0, 0)]
        assert (await services.sessions.complete(user, steps.id)).status == "ready"


async def test_a_stream_under_way_is_nobodys_leftover(api: Api) -> None:
    """Expiry passes over what is being read now, however late it is by the clock on the wall."""
    user, data, db = await api.user(), content(12), api.network.services.db
    expired: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        yield data[: 8 * CHUNK_BYTES]
        await wait_until(lambda: any(node.store.totals().count for node in api.network.nodes))
        await db.execute("update uploads set expires_at = created_at")
        expired.append(await api.network.services.sessions.expire())
        yield data[8 * CHUNK_BYTES :]

    response = await user.put("/api/v1/files", params={"filename": "f"}, content=body())
    assert response.status_code == 201
    assert expired == [0]
    assert await get(user, response.json()["id"]) == (200, data, True)


# -- its database


LASTING = {name: value for name, value in FAST.items() if name != "synchronous_commit"}
"""A commit must outlive the server's processes; the machine goes on, and need not be waited for."""


@pytest.fixture
async def mortal(postgres_folder: Path, postgres_user: str | None) -> AsyncIterator[tuple[Api, Path]]:
    """A coordinator over an embedded PostgreSQL of its own, and that one's data folder."""
    folder = postgres_folder / "mortal"
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(open_embedded_postgres(folder, run_as=postgres_user, settings=LASTING))
        await trio.to_thread.run_sync(migrate, dsn)
        pool = await stack.enter_async_context(open_pool(dsn, PoolConfig(size=4, acquire_seconds=2)))
        network = await stack.enter_async_context(open_network(pool, IMPATIENT, nodes=4))
        yield await stack.enter_async_context(open_api(network)), folder / "data"


def kill_postmaster(data: Path) -> None:
    """kill -9; its back ends end themselves."""
    pid = postmaster_of(data)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def wait_back(user: httpx.AsyncClient) -> None:
    """Until requests are answered again."""
    while (await user.get("/api/v1/files")).status_code != 200:  # noqa: ASYNC110 - a client has no event for it
        await trio.sleep(0.1)


async def test_the_postmaster_is_killed(mortal: tuple[Api, Path]) -> None:
    """Requests fail with 503 and succeed again without a restart; uploads in steps go on, a stream leaves nothing or a whole file."""
    api, postgres = mortal
    user, data = await api.user(), content(6)
    file = await put(user, data)
    upload = (await user.post(INITIATE, json={"filename": "steps", "size_bytes": len(data)})).json()
    path = f"/api/v1/files/upload/{upload['upload_id']}"
    assert (await user.post(f"{path}/chunk?index=0", content=data[:CHUNK_BYTES])).status_code == 200

    async def body() -> AsyncIterator[bytes]:
        yield content(8)
        kill_postmaster(postgres)
        yield content(8)

    streamed = await user.put("/api/v1/files", params={"filename": "streamed"}, content=body())
    assert (streamed.status_code, streamed.json()["code"]) == (503, "unavailable")
    await wait_back(user)

    kill_postmaster(postgres)
    for response in (
        await user.get(f"/api/v1/files/{file}/download"),
        await user.put("/api/v1/files", params={"filename": "small"}, content=b"small"),
        await user.post(f"{path}/chunk?index=1", content=data[CHUNK_BYTES : 2 * CHUNK_BYTES]),
    ):
        assert response.status_code in (200, 201, 503), response.text
        assert response.is_success or response.json()["code"] == "unavailable"
    await wait_back(user)

    assert await get(user, file) == (200, data, True)
    for index in range(6):
        piece = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        assert (await user.post(f"{path}/chunk?index={index}", content=piece)).status_code == 200
    assert (await user.post(f"{path}/complete")).status_code == 200
    assert await get(user, upload["file_id"]) == (200, data, True)
    await api.network.services.sessions.expire()  # the worker's next turn is a minute away
    listed = {each["filename"]: each["status"] for each in (await user.get("/api/v1/files")).json()["files"]}
    listed.pop("small", None)
    assert listed == {"f": "ready", "steps": "ready"}
    await wait_stored_is_recorded(api.network)


# -- its clock


@attrs.define
class Wall:
    """A clock on the wall that can be set."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return system_clock() + self.ahead


JUMPS = {"a-year-ahead": timedelta(days=365), "a-year-back": timedelta(days=-365)}


@asynccontextmanager
async def open_with_clock(pool: Pool) -> AsyncIterator[tuple[Api, Wall]]:
    """A coordinator whose clock can be set."""
    wall = Wall()
    async with open_network(pool, IMPATIENT, nodes=4, clock=wall) as network, open_api(network) as api:
        yield api, wall


@pytest.mark.parametrize("jump", JUMPS)
async def test_the_clock_jumps_in_the_middle_of_transfers(pool: Pool, jump: str) -> None:
    """A stream up and a stream down go on; nodes stay online; what is stored is read, before and after the clock is set right."""
    async with open_with_clock(pool) as (api, wall):
        user, data = await api.user(), content(30)
        file = await put(user, data)

        async def body() -> AsyncIterator[bytes]:
            yield data[: 10 * CHUNK_BYTES]
            await wait_until(lambda: any(node.store.totals().count > 30 for node in api.network.nodes))
            wall.ahead = JUMPS[jump]
            await api.network.services.sessions.expire()
            yield data[10 * CHUNK_BYTES :]

        response = await user.put("/api/v1/files", params={"filename": "second"}, content=body())
        assert response.status_code == 201, response.text
        assert api.network.services.membership.counts["online"] == 4
        again = (
            await api.http.post("/api/v1/auth/login", json={"email": "ann@example.com", "password": "secret1"})
        ).json()
        user.headers["Authorization"] = f"Bearer {again['token']}"
        for each in (file, response.json()["id"]):
            assert await get(user, each) == (200, data, True)
        wall.ahead = timedelta()
        again = (
            await api.http.post("/api/v1/auth/login", json={"email": "ann@example.com", "password": "secret1"})
        ).json()
        user.headers["Authorization"] = f"Bearer {again['token']}"
        for each in (file, response.json()["id"]):
            assert (await user.delete(f"/api/v1/files/{each}")).status_code == 204
        await wait_stored_is_recorded(api.network)


async def test_deletions_of_a_wrong_future_are_not_put_off_until_then(pool: Pool) -> None:
    """What was queued, or postponed, while the clock was a year ahead is deleted when it is right again."""
    async with open_with_clock(pool) as (api, wall):
        user = await api.user()
        file = await put(user, content(2))
        me = UserId(UUID((await user.get("/api/v1/auth/me")).json()["id"]))
        wall.ahead = timedelta(days=365)
        for node in api.network.nodes:
            node.kill()
        await api.network.services.files.delete(me, file)
        wall.ahead = timedelta()
        for node in api.network.nodes:
            await api.network.start(node)
        api.network.services.files.deletions_due.ring()
        await wait_stored_is_recorded(api.network)
