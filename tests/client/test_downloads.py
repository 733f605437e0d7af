"""Downloads: whole under the final name or not there, resumed after cuts."""

import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio

from fsn.client import Client, part_file
from fsn.core import errors
from fsn.core.ids import FileId
from tests.client.fake_coordinator import FakeCoordinator, Stored

DATA = bytes(range(256)) * 12000  # 3 MB: several writes


def id_of(file: Stored) -> FileId:
    return FileId(UUID(file.id))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_whole_file(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """A download is bit for bit the file, leaves nothing beside it, and tells its progress."""
    seen: list[tuple[int, int | None]] = []
    await client.download(id_of(coordinator.add(DATA)), tmp_path / "x", progress=lambda *now: seen.append(now))
    assert (tmp_path / "x").read_bytes() == DATA
    assert names(tmp_path) == ["x"]
    assert seen[-1] == (len(DATA), len(DATA))
    await client.download(id_of(coordinator.add(b"")), tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


async def test_cuts_are_resumed(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """After a cut only what is missing is fetched, as often as it takes while each try brings something."""
    coordinator.cut_downloads_after.extend([100_000] * 8)
    await client.download(id_of(coordinator.add(DATA)), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert coordinator.ranges[0] is None
    assert coordinator.ranges[1] == "bytes=99999-"
    assert len(coordinator.ranges) == 9


async def test_cuts_without_a_byte(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """Tries that bring nothing are bounded, and leave nothing behind."""
    coordinator.cut_downloads_after.extend([0] * 9)
    with pytest.raises(errors.Unreachable):
        await client.download(id_of(coordinator.add(DATA)), tmp_path / "x")
    assert len(coordinator.ranges) == 4
    assert names(tmp_path) == []


async def test_resumes_in_another_call(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """What a cancelled download left is kept and used; nothing wrong ever has the final name."""
    file = id_of(coordinator.add(DATA))
    with trio.CancelScope() as scope:
        await client.download(file, tmp_path / "x", progress=lambda *_: scope.cancel())
    assert names(tmp_path) == ["x.part", "x.part.json"]
    await client.download(file, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert coordinator.ranges[1] is not None
    assert names(tmp_path) == ["x"]


async def test_another_file_left_the_part(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """A part of another file, or of another version, is thrown away."""
    with trio.CancelScope() as scope:
        other = coordinator.add(DATA[::-1])
        await client.download(id_of(other), tmp_path / "x", progress=lambda *_: scope.cancel())
    await client.download(id_of(coordinator.add(DATA)), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    with trio.CancelScope() as scope:
        await client.download(id_of(other), tmp_path / "y", progress=lambda *_: scope.cancel())
    other.data, other.etag = DATA[: len(DATA) // 2], '"another"'
    await client.download(id_of(other), tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == other.data


async def test_only_synced_bytes_are_trusted(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """After a power cut the part may hold zeros beyond what its note vouches for: they are fetched again."""
    file = coordinator.add(DATA)
    (tmp_path / "x.part").write_bytes(DATA[:1000] + bytes(len(DATA) - 1000))
    note = {"file_id": file.id, "etag": file.etag, "synced_bytes": 1000}
    (tmp_path / "x.part.json").write_text(json.dumps(note))
    await client.download(id_of(file), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert coordinator.ranges == ["bytes=999-"]


@pytest.mark.parametrize("note", ["", "[]", '{"file_id": 1}', '{"etag": "e", "synced_bytes": -5}', "\ud800"])
async def test_damaged_note(client: Client, coordinator: FakeCoordinator, tmp_path: Path, note: str) -> None:
    """A note that cannot be read is as good as none."""
    (tmp_path / "x.part").write_bytes(b"what is this?")
    (tmp_path / "x.part.json").write_bytes(note.encode(errors="surrogatepass"))
    await client.download(id_of(coordinator.add(DATA)), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


async def test_whole_part(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """A part that is whole but was not renamed costs one byte more."""
    file = coordinator.add(DATA)
    (tmp_path / "x.part").write_bytes(DATA)
    note = {"file_id": file.id, "etag": file.etag, "synced_bytes": len(DATA)}
    (tmp_path / "x.part.json").write_text(json.dumps(note))
    await client.download(id_of(file), tmp_path / "x")
    assert coordinator.ranges == [f"bytes={len(DATA) - 1}-"]
    assert (tmp_path / "x").read_bytes() == DATA


async def test_taken_name(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """Without leave to overwrite, a file that is there stays; a folder cannot be a destination."""
    (tmp_path / "x").write_bytes(b"mine")
    file = id_of(coordinator.add(DATA))
    with pytest.raises(errors.Conflict, match="exists"):
        await client.download(file, tmp_path / "x", overwrite=False)
    assert (tmp_path / "x").read_bytes() == b"mine"
    await client.download(file, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    with pytest.raises(errors.Invalid):
        await client.download(file, tmp_path)
    with pytest.raises(errors.NotFound):
        await client.download(file, tmp_path / "no" / "folder")


async def test_unknown_file(client: Client, tmp_path: Path) -> None:
    """A file that is not there leaves nothing behind."""
    with pytest.raises(errors.NotFound, match="no such file"):
        await client.download(FileId(uuid4()), tmp_path / "x")
    assert names(tmp_path) == []


async def test_two_at_once(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """Two downloads to one destination do not mix: the second is refused."""
    with (
        part_file.open_part_file(tmp_path / "x", "other", resume=True),
        pytest.raises(errors.Conflict, match="under way"),
    ):
        await client.download(id_of(coordinator.add(DATA)), tmp_path / "x")
    await client.download(id_of(coordinator.add(DATA)), tmp_path / "x")


async def test_range(client: Client, coordinator: FakeCoordinator) -> None:
    """A range is exactly the bytes asked for; the loop may be left early; a cut is an error, never a short end."""
    file = id_of(coordinator.add(DATA))
    async with client.open_download(file, 1000, 2500) as pieces:
        assert b"".join([piece async for piece in pieces]) == DATA[1000:2500]
    async with client.open_download(file) as pieces:
        async for _ in pieces:
            break
    coordinator.cut_downloads_after.append(500)
    with pytest.raises(errors.Unreachable):
        async with client.open_download(file, 10) as pieces:
            async for _ in pieces:
                pass
    with pytest.raises(errors.Invalid):
        async with client.open_download(file, 5, 5):
            pass


async def test_cancelled_range(client: Client, coordinator: FakeCoordinator) -> None:
    """A download may be cancelled between two pieces; the client stays usable."""
    file = id_of(coordinator.add(DATA))
    with trio.CancelScope() as scope:
        async with client.open_download(file) as pieces:
            async for _ in pieces:
                scope.cancel()
    async with client.open_download(file, 0, 3) as pieces:
        assert b"".join([piece async for piece in pieces]) == DATA[:3]


async def test_long_download_is_synced_on_the_way(
    client: Client, coordinator: FakeCoordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process killed in the middle of a long download loses no more than what came after the last sync."""
    monkeypatch.setattr(part_file, "SYNC_BYTES", 2**20)
    notes: list[int] = []

    def look(*_: object) -> None:
        notes.append(json.loads((tmp_path / "x.part.json").read_text())["synced_bytes"])

    await client.download(id_of(coordinator.add(DATA)), tmp_path / "x", progress=look)
    assert len(set(notes)) > 1
    assert all(0 < note <= len(DATA) for note in notes)


async def test_weak_etag(client: Client, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """A weak ETag does not promise equal bytes: after a cut everything is fetched again."""
    file = coordinator.add(DATA)
    coordinator.cut_downloads_after.append(100_000)
    file.etag = 'W/"weak"'
    await client.download(id_of(file), tmp_path / "x")
    assert coordinator.ranges == [None, None]
    assert (tmp_path / "x").read_bytes() == DATA
