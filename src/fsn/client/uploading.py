"""Uploads: one streamed request, or in steps (initiate, chunks in parallel, complete) that survive a broken connection."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import trio

from fsn.client.connection import Connection
from fsn.client.sources import LocalFile, Progress, Source, open_local_file, open_source
from fsn.client.values import File, UploadState, structure
from fsn.core.errors import Conflict, FsnError, Invalid, ProtocolViolation
from fsn.core.ids import UploadId

__all__ = ["upload", "upload_resumable"]


async def upload(
    connection: Connection, source: Source, filename: str | None, replicas: int | None, progress: Progress | None
) -> File:
    """Send `source` in one streamed PUT; see `Client.upload`."""
    async with open_source(source) as body:
        name = filename or body.filename
        if not name:
            raise Invalid("an upload from bytes or an iterator needs a filename; none was given")
        params = {"filename": name} | ({} if replicas is None else {"replicas": str(replicas)})
        body.progress = progress
        answer = await connection.send_stream(
            "PUT", "/api/v1/files", params=params, stream=body, size_bytes=body.size_bytes
        )
        if progress is not None:
            progress(body.sent_bytes, body.sent_bytes)
    return structure(answer, File)


async def upload_resumable(
    connection: Connection,
    path: str | os.PathLike[str],
    *,
    filename: str | None,
    replicas: int | None,
    parallel: int,
    progress: Progress | None,
    upload_id: UploadId | None,
    started: Callable[[UploadId], None] | None,
) -> File:
    """Send a file in chunks; see `Client.upload_resumable`."""
    async with open_local_file(path) as file:
        if upload_id is None:
            state = await _initiate(connection, filename or Path(path).name, file.size_bytes, replicas)
        else:
            state = await _state(connection, upload_id)
            _check_same_size(file, state)
        if started is not None:
            started(state.upload_id)
        sending = _Sending(connection, file, state, progress)
        await sending.send_all(parallel)
        file.check_unchanged()
        return await _complete(connection, state)


def _check_same_size(file: LocalFile, state: UploadState) -> None:
    if state.size_bytes not in (None, file.size_bytes):
        raise Conflict(
            f"the upload was begun for {state.size_bytes} bytes; {file.path} has {file.size_bytes}", code="file_changed"
        )


async def _initiate(connection: Connection, filename: str, size_bytes: int, replicas: int | None) -> UploadState:
    wanted = {"filename": filename, "size_bytes": size_bytes} | ({} if replicas is None else {"replicas": replicas})
    return structure(await connection.call("POST", "/api/v1/files/upload/initiate", body=wanted), UploadState)


async def _state(connection: Connection, upload_id: UploadId) -> UploadState:
    return structure(await connection.call("GET", f"/api/v1/files/upload/{upload_id}"), UploadState)


async def _complete(connection: Connection, state: UploadState) -> File:
    """Complete the upload; a second time, when the answer to a first was lost, is a success as well."""
    path = f"/api/v1/files/upload/{state.upload_id}/complete"
    return structure(await connection.call("POST", path, idempotent=True), File)


@attrs.define(eq=False)
class _Sending:
    """The chunks of one upload on their way: which are stored already, and who sends the next one."""

    connection: Connection
    file: LocalFile
    state: UploadState
    progress: Progress | None
    missing: set[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        if self.state.chunk_size <= 0:
            raise ProtocolViolation(f"a chunk size above zero is wanted; the server says {self.state.chunk_size}")
        count = -(-self.file.size_bytes // self.state.chunk_size)
        self.missing = set(range(count)) - set(self.state.received_indexes())

    async def send_all(self, parallel: int) -> None:
        """Rounds of sending what is missing, until all is stored. A round that stored nothing counts as a failure; after as
        many in a row as `Retrying.attempts` allows, the last error is raised."""
        self._tell()
        failures = 0
        while self.missing:
            before = len(self.missing)
            error = await self._send_round(parallel, ask_first=failures > 0)
            if error is None:
                continue
            failures = 1 if len(self.missing) < before else failures + 1
            if not error.transient or failures >= self.connection.retrying.attempts:
                raise error
            await trio.sleep(self.connection.retrying.pause_seconds(failures, error))

    async def _ask_what_is_missing(self) -> None:
        """A chunk whose answer was lost may be stored: the server knows."""
        state = await _state(self.connection, self.state.upload_id)
        self.missing -= set(state.received_indexes())
        self._tell()

    async def _send_round(self, parallel: int, *, ask_first: bool) -> FsnError | None:
        """Send every missing chunk, `parallel` at a time; the first error stops the others and is returned."""
        errors: list[FsnError] = []
        try:
            if ask_first:
                await self._ask_what_is_missing()
        except FsnError as error:
            return error
        indexes = iter(sorted(self.missing))
        async with trio.open_nursery() as nursery:
            for _ in range(min(parallel, len(self.missing))):
                nursery.start_soon(self._send_some, indexes, errors, nursery.cancel_scope)
        return errors[0] if errors else None

    async def _send_some(self, indexes: Iterator[int], errors: list[FsnError], scope: trio.CancelScope) -> None:
        try:
            for index in indexes:
                await self._send_one(index)
        except FsnError as error:
            errors.append(error)
            scope.cancel()

    async def _send_one(self, index: int) -> None:
        offset = index * self.state.chunk_size
        data = await self.file.read(offset, min(self.state.chunk_size, self.file.size_bytes - offset))
        path = f"/api/v1/files/upload/{self.state.upload_id}/chunk"
        await self.connection.call("POST", path, params={"index": str(index)}, content=data, idempotent=True)
        self.missing.discard(index)
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            left = len(self.missing) * self.state.chunk_size
            self.progress(max(0, self.file.size_bytes - left), self.file.size_bytes)
