"""Uploads: streamed in one request, and in steps that survive cuts."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from fsn.client import Client
from fsn.core import errors
from fsn.core.ids import UploadId
from tests.client.fake_coordinator import CHUNK, FakeCoordinator

DATA = bytes(range(256)) * 6000  # 1.5 MB: several pieces of a file


def stored(coordinator: FakeCoordinator) -> list[tuple[str, bytes]]:
    return [(file.filename, file.data) for file in coordinator.files.values()]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo ü.jpg"
    path.write_bytes(DATA)
    return path


async def test_path(client: Client, coordinator: FakeCoordinator, photo: Path) -> None:
    """A file is sent as it is, under its own name, and progress ends at its size."""
    seen: list[tuple[int, int | None]] = []
    file = await client.upload(photo, progress=lambda done, total: seen.append((done, total)))
    assert file.size_bytes == len(DATA)
    assert stored(coordinator) == [("photo ü.jpg", DATA)]
    assert seen == sorted(seen)
    assert seen[-1] == (len(DATA), len(DATA))


async def test_bytes_and_iterators(client: Client, coordinator: FakeCoordinator) -> None:
    """Bytes and iterators of unknown length go up under a given name; without one they are refused."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    await client.upload(b"", filename="empty")
    await client.upload(memoryview(DATA), filename="memory")
    await client.upload(pieces(), filename="stream")
    assert stored(coordinator) == [("empty", b""), ("memory", DATA), ("stream", b"onetwo")]
    with pytest.raises(errors.Invalid, match="filename"):
        await client.upload(b"x")


async def test_changing_file(client: Client, coordinator: FakeCoordinator, photo: Path) -> None:
    """A file that grows while it is read is never stored."""

    def grow(done: int, total: int | None) -> None:
        if done:
            with photo.open("ab") as file:
                file.write(b"more")

    with pytest.raises(errors.Conflict, match="changed while") as caught:
        await client.upload(photo, progress=grow)
    assert caught.value.code == "file_changed"
    assert stored(coordinator) == []


async def test_shrinking_file(client: Client, coordinator: FakeCoordinator, photo: Path) -> None:
    """Nor is one that shrinks."""
    with pytest.raises(errors.Conflict) as caught:
        await client.upload(photo, progress=lambda done, _: os.truncate(photo, 10) if done else None)
    assert caught.value.code == "file_changed"
    assert stored(coordinator) == []


async def test_what_is_no_file(client: Client, tmp_path: Path) -> None:
    """A missing path, a folder and a FIFO are refused before anything is sent."""
    with pytest.raises(errors.NotFound, match="nowhere"):
        await client.upload(tmp_path / "nowhere")
    with pytest.raises(errors.Invalid):
        await client.upload(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(errors.Invalid, match="regular"):
        await client.upload(tmp_path / "pipe")


async def test_refused_upload(client: Client, coordinator: FakeCoordinator, photo: Path) -> None:
    """A refusal arrives as such; a cut in the request is Unreachable and is not repeated."""
    coordinator.problems.append((413, {"code": "too_large", "detail": "at most 1 MB"}, {}))
    with pytest.raises(errors.TooLarge, match="at most 1 MB"):
        await client.upload(photo)
    coordinator.cut_requests = 1
    with pytest.raises(errors.Unreachable):
        await client.upload(photo)
    assert stored(coordinator) == []


async def test_steps_in_parallel(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """Chunks go up in parallel, no more at once than asked for; the last is shorter."""
    path = tmp_path / "x"
    path.write_bytes(DATA[: 12 * CHUNK + 5])
    seen: list[int] = []
    file = await client.upload_resumable(path, parallel=3, progress=lambda done, _: seen.append(done))
    assert file.status == "ready"
    assert stored(coordinator) == [("x", DATA[: 12 * CHUNK + 5])]
    assert coordinator.most_chunks_at_once == 3
    assert seen == sorted(seen)
    assert seen[-1] == 12 * CHUNK + 5


async def test_steps_survive_cuts(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """Cut requests and lost answers cost another try, not the upload."""
    path = tmp_path / "x"
    path.write_bytes(DATA[: 6 * CHUNK])

    armed = [True]

    def cut_once(done: int, _: int | None) -> None:
        if done == 2 * CHUNK and armed:
            armed.clear()
            coordinator.cut_requests, coordinator.lose_answers = 8, 2

    await client.upload_resumable(path, parallel=1, progress=cut_once)
    assert stored(coordinator) == [("x", DATA[: 6 * CHUNK])]


async def test_steps_resume_in_another_call(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """An upload that was cancelled goes on by its id: what is stored is not sent again."""
    path = tmp_path / "x"
    path.write_bytes(DATA[: 6 * CHUNK])
    ids: list[UploadId] = []
    with trio.CancelScope() as scope:
        await client.upload_resumable(
            path, parallel=1, started=ids.append, progress=lambda done, _: scope.cancel() if done == 4 * CHUNK else None
        )
    assert scope.cancelled_caught
    coordinator.requests.clear()
    path.write_bytes(DATA[: 6 * CHUNK + 1])
    with pytest.raises(errors.Conflict, match="6001"):
        await client.upload_resumable(path, upload_id=ids[0])
    path.write_bytes(DATA[: 6 * CHUNK])
    await client.upload_resumable(path, upload_id=ids[0])
    assert stored(coordinator) == [("x", DATA[: 6 * CHUNK])]
    assert sum(path.endswith("/chunk") for _, path in coordinator.requests) <= 2


async def test_lost_answer_to_complete(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """When the answer to complete is lost, it is asked for again."""
    path = tmp_path / "x"
    path.write_bytes(b"abc")

    def lose(done: int, _: int | None) -> None:
        coordinator.lose_answers = int(done == 3)

    assert (await client.upload_resumable(path, progress=lose)).status == "ready"


async def test_steps_give_up(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """When nothing gets through any more, the last error comes out; empty files need no chunk."""
    path = tmp_path / "x"
    path.write_bytes(b"")
    assert (await client.upload_resumable(path)).size_bytes == 0
    path.write_bytes(b"abc")
    with pytest.raises(errors.Unreachable):
        await client.upload_resumable(path, started=lambda _: setattr(coordinator, "cut_requests", 10**6))
