"""Frames on a stream: a varint length of at most 1 MiB, then so many bytes. Bytes in, frames out, no waiting."""

from typing import Final

from fsn.core.errors import ProtocolViolation

__all__ = ["MAX_FRAME_BYTES", "FrameDecoder", "encode_frame_header", "encode_varint"]

MAX_FRAME_BYTES: Final = 1_048_576
"""1 MiB: room for the largest message, 10,000 ids at 34 bytes, or one sealed chunk and its fields."""

_MAX_HEADER_BYTES: Final = 3
# Below this a frame is copied out of what was fed, so that a small frame does not keep 256 KiB alive, and a piece full
# of tiny frames costs 40 bytes for each, not the 190 of a view.
_WORTH_A_VIEW_BYTES: Final = 4096


def encode_varint(number: int) -> bytes:
    """`number` (0 or more) as protobuf's unsigned varint: seven bits a byte, least significant first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode_frame_header(size_bytes: int) -> bytes:
    """What goes before a frame of `size_bytes`. Raises ValueError outside 1..`MAX_FRAME_BYTES`."""
    if not 1 <= size_bytes <= MAX_FRAME_BYTES:
        raise ValueError(f"a frame has 1..{MAX_FRAME_BYTES} bytes; got {size_bytes}")
    return encode_varint(size_bytes)


class FrameDecoder:
    """Cuts a stream of bytes into frames.

    Holds one unfinished frame at most, and of that only what has arrived: an announced length takes no memory. A byte
    is copied once at most; a large frame that lies in one piece is a view of it (the piece must not change any more).
    After a `ProtocolViolation` the stream has lost its frame borders, and the decoder is good for nothing.
    """

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._header = bytearray()
        self._size_bytes = 0  # of the frame being read; 0 while its header is
        self._frame = bytearray()

    def feed(self, piece: bytes | bytearray | memoryview) -> list[bytes | bytearray | memoryview]:
        """Take the next bytes, any number of them; returns the frames that are whole now, in order.

        Raises `ProtocolViolation` for a length of 0, above the most allowed, or not encoded in as few bytes as possible; frames
        before it in the same piece are lost then, as the stream is.
        """
        frames: list[bytes | bytearray | memoryview] = []
        rest = memoryview(piece)
        while len(rest):
            if not self._size_bytes:
                rest = self._read_header(rest)
            elif not self._frame and len(rest) >= self._size_bytes:
                frames.append(_whole(rest[: self._size_bytes]))
                rest = rest[self._size_bytes :]
                self._size_bytes = 0
            else:
                rest = self._read_part(rest, frames)
        return frames

    def finish(self) -> None:
        """Say that the stream has ended. Raises `ProtocolViolation` when that was in the middle of a frame."""
        if self._size_bytes or self._header:
            wanted = self._size_bytes or "a length"
            raise ProtocolViolation(f"the stream ended inside a frame: {len(self._frame)} bytes of {wanted} had come")

    def _read_header(self, rest: memoryview) -> memoryview:
        for position, byte in enumerate(rest[: _MAX_HEADER_BYTES - len(self._header)], start=1):
            self._header.append(byte)
            if byte < 0x80:
                self._size_bytes = _checked_size(self._header, self._max_bytes)
                self._header.clear()
                return rest[position:]
        if len(self._header) == _MAX_HEADER_BYTES:
            raise ProtocolViolation(f"a frame has at most {MAX_FRAME_BYTES} bytes; its length has more than 21 bits")
        return rest[:0]

    def _read_part(self, rest: memoryview, frames: list[bytes | bytearray | memoryview]) -> memoryview:
        taken = rest[: self._size_bytes - len(self._frame)]
        self._frame += taken
        if len(self._frame) == self._size_bytes:
            frames.append(self._frame)
            self._frame = bytearray()
            self._size_bytes = 0
        return rest[len(taken) :]


def _whole(frame: memoryview) -> bytes | memoryview:
    return frame if len(frame) >= _WORTH_A_VIEW_BYTES else bytes(frame)


def _checked_size(header: bytearray, max_bytes: int) -> int:
    size_bytes = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(header))
    if len(header) > 1 and header[-1] == 0:
        raise ProtocolViolation(f"a frame's length takes as few bytes as possible; got {header.hex()} for {size_bytes}")
    if not 1 <= size_bytes <= max_bytes:
        raise ProtocolViolation(f"a frame has 1..{max_bytes} bytes; got a length of {size_bytes}")
    return size_bytes
