"""A simulated user: puts, gets and deletes files through whichever coordinator runs, and remembers what was acknowledged."""

from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import blake2b

import attrs

from fsn.coord.services import Services
from fsn.core.errors import Corrupt, Unavailable
from fsn.core.ids import FileId, UserId
from fsn.sim.coordinators import SimCoordinator
from fsn.sim.timeline import Timeline

__all__ = ["SimFile", "SimUser"]

_PIECE_BYTES = 64 * 1024


@attrs.frozen
class SimFile:
    """A file that was acknowledged."""

    id: FileId
    name: str
    size_bytes: int
    replicas: int
    digest: bytes = attrs.field(repr=False)


@attrs.define(eq=False)
class SimUser:
    """Somebody with an account. Errors are those of the services; a coordinator that goes in the middle is `Unavailable`."""

    name: str
    id: UserId
    _coordinators: Callable[[], Sequence[SimCoordinator]] = attrs.field(repr=False)
    _timeline: Timeline = attrs.field(repr=False)
    files: dict[FileId, SimFile] = attrs.field(factory=dict, repr=False)
    """All that were acknowledged and not deleted: the network owes them."""

    async def put(
        self, data: bytes, *, name: str = "file", replicas: int | None = None, via: SimCoordinator | None = None
    ) -> SimFile:
        """Upload; on return the network owes the file."""
        async with self._coordinator(via).serving() as services:
            stored = await services.uploads.store_stream(self.id, name, len(data), replicas, _pieces(data))
        file = SimFile(stored.id, name, len(data), stored.pieces, _digest(data))
        self.files[file.id] = file
        self._timeline.name(str(file.id), f"{self.name}/{len(self.files)}")
        self._timeline.note(self.name, "put", file=file.id, size_bytes=file.size_bytes, replicas=file.replicas)
        return file

    async def get(self, file: SimFile, *, via: SimCoordinator | None = None) -> bytes:
        """Download. Raises Corrupt when these are other bytes than were put (which the services should have noticed)."""
        async with self._coordinator(via).serving() as services:
            data = await self._download(services, file)
        if _digest(data) != file.digest:
            raise Corrupt(f"file {file.id} came back with other bytes than were put")
        self._timeline.note(self.name, "get", file=file.id, size_bytes=file.size_bytes)
        return data

    async def delete(self, file: SimFile, *, via: SimCoordinator | None = None) -> None:
        """Delete; from the call on the network owes nothing, whatever comes of it."""
        self.files.pop(file.id, None)
        async with self._coordinator(via).serving() as services:
            await services.files.delete(self.id, file.id)
        self._timeline.note(self.name, "delete", file=file.id)

    async def _download(self, services: Services, file: SimFile) -> bytes:
        if not file.size_bytes:
            return b""
        stored = await services.files.find_ready(self.id, file.id)
        async with services.downloads.open_range(stored, 0, file.size_bytes) as pieces:
            return b"".join([bytes(piece) async for piece in pieces])

    def _coordinator(self, via: SimCoordinator | None) -> SimCoordinator:
        if via is not None:
            return via
        serving = [coordinator for coordinator in self._coordinators() if coordinator.is_serving]
        if not serving:
            raise Unavailable("no coordinator is there, or none reaches the database")
        return serving[0]


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(data), _PIECE_BYTES):
        yield data[begin : begin + _PIECE_BYTES]


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
