"""How a file is cut: chunks of 256 KiB, the last one shorter; an empty file has none."""

from typing import Final

from fsn.core.errors import Invalid, TooLarge

__all__ = ["CHUNK_BYTES", "MAX_CHUNKS", "MAX_FILE_BYTES", "Chunker", "chunk_count", "chunk_size"]

CHUNK_BYTES: Final = 262_144
"""256 KiB: every chunk but the last of a file."""

MAX_CHUNKS: Final = 2**31 - 1
"""`chunk_index` is an int32 in the plan's messages, and so is a count of chunks in a catalogue's `integer` column."""

MAX_FILE_BYTES: Final = MAX_CHUNKS * CHUNK_BYTES
"""562,949,953,159,168 bytes (563 TB): the largest file whose chunks can be counted."""


def chunk_count(size_bytes: int) -> int:
    """How many chunks a file of `size_bytes` has; 0 for an empty one.

    Raises `Invalid` for a negative size, `TooLarge` above `MAX_FILE_BYTES`.
    """
    if size_bytes < 0:
        raise Invalid(f"a file's size is 0 bytes or more; got {size_bytes}")
    if size_bytes > MAX_FILE_BYTES:
        raise TooLarge(f"a file has at most {MAX_FILE_BYTES} bytes; got {size_bytes}", limit=MAX_FILE_BYTES)
    return -(-size_bytes // CHUNK_BYTES)


def chunk_size(size_bytes: int, index: int) -> int:
    """Bytes of chunk `index` (from 0) of a file of `size_bytes`.

    Raises `Invalid` when the file has no such chunk, and what `chunk_count` raises.
    """
    count = chunk_count(size_bytes)
    if not 0 <= index < count:
        wanted = f"0..{count - 1}" if count else "none, for the file is empty"
        raise Invalid(f"chunk indexes of a file of {size_bytes} bytes: {wanted}; got {index}")
    return min(CHUNK_BYTES, size_bytes - index * CHUNK_BYTES)


class Chunker:
    """Regroups a stream of bytes into chunks: bytes in, chunks out, no waiting.

    A byte is copied once at most, and not at all where a whole chunk lies in one piece. Holds less than one chunk
    between calls. The chunks are views: of the pieces fed (which must not change any more) or of a buffer that the
    chunker has given away.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._filled = 0

    def feed(self, piece: bytes | bytearray | memoryview) -> list[memoryview]:
        """Take the next bytes, any number of them; returns the 256 KiB chunks that are whole now, in order."""
        rest = memoryview(piece)
        chunks = []
        if self._filled:
            rest = self._fill(rest)
            if self._filled == CHUNK_BYTES:
                chunks.append(self._take())
        while len(rest) >= CHUNK_BYTES:
            chunks.append(rest[:CHUNK_BYTES])
            rest = rest[CHUNK_BYTES:]
        if len(rest):
            self._fill(rest)
        return chunks

    def finish(self) -> memoryview | None:
        """The last chunk, of 1..262,143 bytes, or None when nothing is left over. The chunker is as new afterwards."""
        return self._take() if self._filled else None

    def _fill(self, rest: memoryview) -> memoryview:
        if not self._filled:
            # The full size at once: an array that grows would be copied again as it moves.
            self._buffer = bytearray(CHUNK_BYTES)
        taken = rest[: CHUNK_BYTES - self._filled]
        self._buffer[self._filled : self._filled + len(taken)] = taken
        self._filled += len(taken)
        return rest[len(taken) :]

    def _take(self) -> memoryview:
        chunk = memoryview(self._buffer)[: self._filled]
        self._buffer = bytearray()
        self._filled = 0
        return chunk
