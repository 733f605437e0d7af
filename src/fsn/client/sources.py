"""What can be uploaded: a path, bytes, or an async iterator of bytes, each as a body of known or unknown size."""

import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import trio

from fsn.client.local_files import disk_errors
from fsn.core.errors import Conflict, Invalid

__all__ = ["LocalFile", "Progress", "Source", "UploadBody", "open_local_file", "open_source"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all (None: not known); from the caller's own task, never from a thread."""

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | AsyncIterable[bytes]

_PIECE_BYTES = 512 * 1024
"""A hop to a thread costs some 0.1 ms, so small reads would spend more on hops than on reading."""


class LocalFile:
    """A regular file open for reading, which must stay as it was when opened: `check_unchanged` says whether it did."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._at_first = self._facts()

    def _facts(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Invalid(f"{self.path} is no regular file; its bytes can be sent through standard input (`put -`)")
        return found.st_size, found.st_mtime_ns

    @property
    def size_bytes(self) -> int:
        return self._at_first[0]

    @property
    def modified_ns(self) -> int:
        """When the file was last changed, in nanoseconds since 1970, as found when it was opened."""
        return self._at_first[1]

    def check_unchanged(self) -> None:
        """Conflict (`file_changed`) when size or time of change differ from what they were at opening."""
        if self._facts() != self._at_first:
            raise Conflict(
                f"{self.path} changed while it was being read; nothing was stored, try again", code="file_changed"
            )

    def read_nowait(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`; Conflict (`file_changed`) when the file has become shorter. Blocks."""
        pieces = []
        while length:
            piece = os.pread(self._descriptor, length, offset)
            if not piece:
                raise Conflict(f"{self.path} became shorter while it was being read", code="file_changed")
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read(self, offset: int, length: int) -> bytes:
        """As `read_nowait`, in a thread."""
        with disk_errors(self.path):
            return await trio.to_thread.run_sync(partial(self.read_nowait, offset, length))

    async def pieces(self) -> AsyncIterator[bytes]:
        """The whole file in order. The last piece is held back until the file is known to be unchanged, so that a file that
        changed can never become a complete upload."""
        for offset in range(0, self.size_bytes, _PIECE_BYTES):
            piece = await self.read(offset, min(_PIECE_BYTES, self.size_bytes - offset))
            if offset + len(piece) == self.size_bytes:
                self.check_unchanged()
            yield piece


@asynccontextmanager
async def open_local_file(path: str | os.PathLike[str]) -> AsyncIterator[LocalFile]:
    """A regular file; NotFound, Invalid (a folder, a device) or StorageError otherwise."""
    path = Path(path)
    with disk_errors(path):
        # O_NONBLOCK: opening a FIFO must not wait for its writer; it means nothing to a regular file
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield LocalFile(path, descriptor)
    finally:
        os.close(descriptor)


async def _pieces_of_bytes(data: memoryview) -> AsyncIterator[bytes]:
    for offset in range(0, len(data), _PIECE_BYTES):
        yield bytes(data[offset : offset + _PIECE_BYTES])


@attrs.define(eq=False)
class UploadBody(httpx.AsyncByteStream):
    """A request body that tells its progress. `size_bytes` None: not known before the end."""

    filename: str | None
    size_bytes: int | None
    pieces: AsyncIterator[bytes] = attrs.field(repr=False)
    progress: Progress | None = attrs.field(default=None, repr=False)
    sent_bytes: int = 0

    # An object rather than an async generator: httpcore leaves its request body suspended when the server cuts the
    # connection, and trio would have to finalise a suspended generator from the garbage collector.
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self.pieces)
        # told when the piece before it was handed over: what this says is sent has left for the kernel
        if self.progress is not None:
            self.progress(self.sent_bytes, self.size_bytes)
        self.sent_bytes += len(piece)
        return piece


@asynccontextmanager
async def open_source(source: Source) -> AsyncIterator[UploadBody]:
    """`source` as a body, closed when the block ends. Errors as `open_local_file`."""
    if isinstance(source, str | os.PathLike):
        async with open_local_file(source) as file:
            pieces = file.pieces()
            try:
                yield UploadBody(file.path.name, file.size_bytes, pieces)
            finally:
                await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
    elif isinstance(source, bytes | bytearray | memoryview):
        view = memoryview(source).cast("B")
        pieces = _pieces_of_bytes(view)
        try:
            yield UploadBody(None, len(view), pieces)
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
    else:
        yield UploadBody(None, None, aiter(source))
