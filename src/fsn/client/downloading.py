"""Downloads: a range as an iterator of bytes, or a whole file to disk that resumes after a cut and is never wrong."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

import attrs
import httpx
import trio

from fsn.client.connection import Body, Connection
from fsn.client.part_file import PartFile, open_part_file
from fsn.client.sources import Progress
from fsn.core.errors import FsnError, Invalid, PeerTimeout, ProtocolViolation, Unreachable
from fsn.core.ids import FileId

__all__ = ["download", "open_range"]

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_WRITE_BYTES = 1024 * 1024
"""A hop to a thread per 64 KiB piece would cost more than the write."""


@attrs.define(eq=False)
class RangeBody:
    """The bytes `begin` (inclusive) to `end` (exclusive) of a file of `total_bytes`, in order; exactly so many, or an error."""

    begin: int
    end: int
    total_bytes: int
    etag: str | None
    _body: Body = attrs.field(repr=False)
    _position: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._position = self.begin

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._body)
        except StopAsyncIteration:
            if self._position != self.end:
                raise Unreachable(f"the server ended the file at byte {self._position} of {self.end}") from None
            raise
        self._position += len(piece)
        if self._position > self.end:
            raise ProtocolViolation(f"the server sent more than the {self.end - self.begin} bytes that it declared")
        return piece


def _range_header(begin: int, end: int | None) -> dict[str, str]:
    if begin < 0 or (end is not None and end <= begin):
        raise Invalid(f"a range from 0 up, with its end after its begin, is wanted; got {begin}..{end}")
    if begin == 0 and end is None:
        return {}
    return {"Range": f"bytes={begin}-" if end is None else f"bytes={begin}-{end - 1}"}


def _strong_etag(headers: httpx.Headers) -> str | None:
    etag: str | None = headers.get("ETag")
    return None if etag is None or etag.startswith("W/") else etag


def _extent(body: Body) -> tuple[int, int, int]:
    """(begin, end, total) of an answer, from its headers."""
    if body.status == httpx.codes.PARTIAL_CONTENT:
        found = _CONTENT_RANGE.fullmatch(body.headers.get("Content-Range", ""))
        if found is None:
            raise ProtocolViolation(
                f"a 206 with one Content-Range is wanted; got {body.headers.get('Content-Range')!r}"
            )
        first, last, total = map(int, found.groups())
        return first, last + 1, total
    length = body.headers.get("Content-Length", "")
    if not length.isdigit():
        raise ProtocolViolation("a download with a Content-Length is wanted; the server sent none")
    return 0, int(length), int(length)


@asynccontextmanager
async def open_range(
    connection: Connection, file_id: FileId, begin: int = 0, end: int | None = None, *, if_etag: str | None = None
) -> AsyncIterator[RangeBody]:
    """Bytes of a file, as they arrive. With `if_etag` a file of another version comes whole, from its first byte."""
    headers = _range_header(begin, end) | ({} if if_etag is None else {"If-Range": if_etag})
    async with connection.open_stream(f"/api/v1/files/{file_id}/download", headers) as body:
        first, after_last, total = _extent(body)
        if if_etag is None and (first != begin or (end is not None and after_last != min(end, total))):
            raise ProtocolViolation(f"bytes {begin}..{end} were asked for; the server sends {first}..{after_last}")
        yield RangeBody(first, after_last, total, _strong_etag(body.headers), body)


async def download(
    connection: Connection,
    file_id: FileId,
    destination: Path,
    *,
    progress: Progress | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Fetch a whole file to `destination`; see `Client.download`."""
    with open_part_file(destination, str(file_id), resume=resume) as part:
        whole = False
        try:
            await _fill(connection, file_id, part, progress)
            whole = True
        finally:
            if not whole:
                await _keep(part)
        await trio.to_thread.run_sync(partial(part.finish, overwrite=overwrite))


async def _keep(part: PartFile) -> None:
    """Leave behind what the next try can go on from, and nothing else."""
    # shielded: an fsync of at most SYNC_BYTES, which could not be interrupted anyway
    with trio.CancelScope(shield=True):
        if part.size_bytes and part.etag is not None:
            await trio.to_thread.run_sync(part.checkpoint)
        else:
            part.discard()


async def _fill(connection: Connection, file_id: FileId, part: PartFile, progress: Progress | None) -> None:
    """Append until the part is whole. Cuts are followed by another try; as many in a row as `Retrying.attempts` allows may
    bring nothing."""
    failures = 0
    while True:
        before = part.size_bytes
        try:
            return await _fill_once(connection, file_id, part, progress)
        except FsnError as error:
            failures = 1 if part.size_bytes > before else failures + 1
            if not error.transient or failures >= connection.retrying.attempts:
                raise
            pause = connection.retrying.pause_seconds(failures, error)
        await trio.sleep(pause)


async def _fill_once(connection: Connection, file_id: FileId, part: PartFile, progress: Progress | None) -> None:
    # one byte of a part that is whole already is asked for again: an empty range cannot be
    begin = max(0, part.size_bytes - 1) if part.etag is not None else 0
    async with open_range(connection, file_id, begin, if_etag=part.etag if begin else None) as body:
        if body.begin not in (0, begin):
            raise ProtocolViolation(f"bytes from {begin} were asked for; the server sends them from {body.begin}")
        part.restart(body.etag, body.begin)
        await _append_all(body, part, progress)
    if part.size_bytes != body.total_bytes:
        raise Unreachable(f"{body.total_bytes} bytes are wanted; {part.size_bytes} came")


async def _append_all(body: RangeBody, part: PartFile, progress: Progress | None) -> None:
    pending = bytearray()

    async def flush() -> None:
        await trio.to_thread.run_sync(part.append, bytes(pending))
        pending.clear()
        if progress is not None:
            progress(part.size_bytes, body.total_bytes)

    try:
        async for piece in body:
            pending += piece
            if len(pending) >= _WRITE_BYTES:
                await flush()
    except (Unreachable, PeerTimeout):
        await flush()
        raise
    await flush()
