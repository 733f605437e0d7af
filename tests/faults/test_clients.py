"""Clients that go away, and clients that do the same thing at once."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from random import Random

import httpx
import pytest
import trio

from fsn.core.chunking import CHUNK_BYTES
from fsn.core.ids import FileId
from tests.coord.network import Network, wait_until
from tests.faults.network import (
    bytes_in_flight,
    content,
    get,
    put,
    tasks,
    wait_stored_is_recorded,
)
from tests.web.api.conftest import Api

LEAVERS = 6
INITIATE = "/api/v1/files/upload/initiate"


@pytest.fixture
async def quiet(api: Api) -> Callable[[], Awaitable[None]]:
    """Waits until as many tasks run as before, no window holds a byte, and the nodes hold what the catalogue counts on."""
    user = await api.user("first@example.com")
    file = await put(user, content(6))
    await get(user, file)  # every channel to a node is open, every connection to the database
    await user.delete(f"/api/v1/files/{file}")
    before = len(tasks())

    async def settle() -> None:
        await wait_until(lambda: len(tasks()) <= before + 2)  # the test's own client may still hold a connection
        await wait_stored_is_recorded(api.network)
        # The deletions of what was stored in vain are requests, too: the last may be under way, a byte for good may not.
        await wait_until(lambda: bytes_in_flight(api.network) == 0)

    await wait_until(lambda: not any(node.store.totals().count for node in api.network.nodes))
    return settle


async def test_clients_that_leave_in_the_middle_of_an_upload(api: Api, quiet: Callable[[], Awaitable[None]]) -> None:
    """Wherever they were, their tasks end, windows and nodes are empty again, and no file is there."""
    user = await api.user()
    stored = [node.store.totals for node in api.network.nodes]

    async def leave_after(chunks: int) -> None:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(chunks):
                yield content(1.1)
            await wait_until(lambda: chunks <= 5 or any(totals().count for totals in stored))
            raise ZeroDivisionError

        with suppress(ZeroDivisionError):
            async with httpx.AsyncClient(base_url=api.http.base_url, headers=user.headers) as leaver:
                await leaver.put("/api/v1/files", params={"filename": "f"}, content=body())

    async with trio.open_nursery() as nursery:
        for number in range(LEAVERS):
            nursery.start_soon(leave_after, 3 * number)
    await quiet()
    assert (await user.get("/api/v1/files")).json()["files"] == []


async def test_clients_that_leave_in_the_middle_of_a_download(api: Api, quiet: Callable[[], Awaitable[None]]) -> None:
    """The reading ahead stops; nodes are asked for nothing more."""
    user = await api.user()
    file = await put(user, content(60))

    async def leave_after(chunks: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", api.http.base_url.port or 0)
        async with stream:
            token = user.headers["Authorization"]
            await stream.send_all(
                f"GET /api/v1/files/{file}/download HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
            )
            left = 1 + chunks * CHUNK_BYTES
            while left > 0:
                left -= len(await stream.receive_some(left))

    async with trio.open_nursery() as nursery:
        for number in range(LEAVERS):
            nursery.start_soon(leave_after, 5 * number)
    await quiet()
    assert all(member.reads == 0 for member in api.network.services.membership.online())


async def test_a_client_that_leaves_with_its_chunk_half_sent(api: Api, quiet: Callable[[], Awaitable[None]]) -> None:
    """An upload in steps stays as it was, and takes the chunk when it is sent again."""
    user = await api.user()
    data = content(2)
    upload = (await user.post(INITIATE, json={"filename": "f", "size_bytes": len(data)})).json()
    path = f"/api/v1/files/upload/{upload['upload_id']}"

    async def half() -> AsyncIterator[bytes]:
        yield data[:1000]
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        async with httpx.AsyncClient(base_url=api.http.base_url, headers=user.headers) as leaver:
            await leaver.post(f"{path}/chunk?index=0", content=half())
    await quiet()
    assert (await user.get(path)).json()["received"] == []
    for index in (0, 1):
        piece = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        assert (await user.post(f"{path}/chunk?index={index}", content=piece)).status_code == 200
    assert (await user.post(f"{path}/complete")).status_code == 200
    assert await get(user, upload["file_id"]) == (200, data, True)


# -- the same thing at once


async def begun(user: httpx.AsyncClient, data: bytes, *, without: int = -1) -> tuple[str, FileId]:
    """An upload with all its chunks sent but one: its path, and its file."""
    upload = (await user.post(INITIATE, json={"filename": "f", "size_bytes": len(data)})).json()
    path = f"/api/v1/files/upload/{upload['upload_id']}"
    for index in range(-(-len(data) // CHUNK_BYTES)):
        if index != without:
            piece = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            assert (await user.post(f"{path}/chunk?index={index}", content=piece)).status_code == 200
    return path, FileId(upload["file_id"])


async def bookings(network: Network, file: FileId) -> int:
    """How often storing this file was charged."""
    sql = "select count(*) from ledger_tx where ref = %s"
    row = await network.services.db.fetch_one(sql, [f"storage:{file}"])
    assert row is not None
    return int(row[0])


async def test_two_clients_complete_at_once(api: Api) -> None:
    """All are told the same, the credits are taken once, and the file is whole."""
    user = await api.user()
    data = content(2.5)
    before = float((await user.get("/api/v1/balance")).json()["balance"])
    path, file = await begun(user, data)
    answers: list[httpx.Response] = []

    async def complete() -> None:
        async with httpx.AsyncClient(base_url=api.http.base_url, headers=user.headers) as client:
            answers.append(await client.post(f"{path}/complete"))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(complete)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert await bookings(api.network, file) == 1
    cost = before - float((await user.get("/api/v1/balance")).json()["balance"])
    assert 0 < cost < 3
    assert await get(user, file) == (200, data, True)


ENDS = ("complete", "abort", "delete", "expire", "chunk")


@pytest.mark.parametrize("seed", range(4))
async def test_whoever_ends_an_upload_first(api: Api, seed: int) -> None:
    """Complete, abort, delete, expire and a late chunk at once: one of them wins, wholly, and no other half happens."""
    user, chance = await api.user(), Random(seed)
    files = [await _end_from_all_sides(api, user, chance) for _ in range(5)]
    assert await api.network.services.sessions.expire() == 0
    await wait_stored_is_recorded(api.network)
    listed = {file["id"] for file in (await user.get("/api/v1/files")).json()["files"]}
    assert listed == {str(file) for file, is_ready in files if is_ready}


async def _end_from_all_sides(api: Api, user: httpx.AsyncClient, chance: Random) -> tuple[FileId, bool]:
    """One race; the file, and whether it is ready afterwards."""
    data, db = secrets.token_bytes(2 * CHUNK_BYTES), api.network.services.db
    path, file = await begun(user, data, without=chance.choice((-1, 1)))
    await db.execute("update uploads set expires_at = created_at where file_id = %s", [file])
    requests: dict[str, Callable[[], Awaitable[httpx.Response | int]]] = {
        "complete": lambda: user.post(f"{path}/complete"),
        "abort": lambda: user.delete(path),
        "delete": lambda: user.delete(f"/api/v1/files/{file}"),
        "expire": api.network.services.sessions.expire,
        "chunk": lambda: user.post(f"{path}/chunk?index=1", content=data[CHUNK_BYTES:]),
    }
    said: dict[str, httpx.Response | int] = {}

    async def do(name: str, pause_seconds: float) -> None:
        await trio.sleep(pause_seconds)
        said[name] = await requests[name]()

    async with trio.open_nursery() as nursery:
        for name in chance.sample(ENDS, 3):
            nursery.start_soon(do, name, chance.random() * 0.004)
    statuses = {name: answer if isinstance(answer, int) else answer.status_code for name, answer in said.items()}
    return file, await _check_end(api, user, file, data, statuses)


async def _check_end(api: Api, user: httpx.AsyncClient, file: FileId, data: bytes, statuses: dict[str, int]) -> bool:
    row = await api.network.services.db.fetch_one(
        "select f.status::text, u.state::text from files f join uploads u on u.file_id = f.id where f.id = %s", [file]
    )
    assert row is not None
    status, state = row
    assert all(answer < 500 for answer in statuses.values()), statuses
    is_charged = await bookings(api.network, file)
    assert is_charged == (state == "completed")
    if statuses.get("complete") == 200:
        assert state == "completed"
        assert status == ("deleted" if statuses.get("delete") == 204 else "ready")
    if statuses.get("abort") == 204:
        assert (status, state) in [("deleted", "aborted"), ("deleted", "expired")]
    if status == "ready":
        assert await get(user, file) == (200, data, True)
    elif status == "uploading":
        assert state == "open"
        await user.delete(f"/api/v1/files/{file}")
    return bool(status == "ready")
