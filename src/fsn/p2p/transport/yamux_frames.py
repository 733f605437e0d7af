"""Yamux frames as bytes: the 12-byte header, and a parser that takes bytes as they come. No input or output happens here.

Source: the Yamux specification (hashicorp/yamux, spec.md), version 0, as libp2p uses it under /yamux/1.0.0.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

import trio

__all__ = [
    "ACK",
    "DATA",
    "FIN",
    "GO_AWAY",
    "HEADER_BYTES",
    "INITIAL_WINDOW_BYTES",
    "PING",
    "RST",
    "SYN",
    "WINDOW_UPDATE",
    "FrameParser",
    "Header",
    "pack_header",
]

DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

INITIAL_WINDOW_BYTES: Final = 256 * 1024
"""What each side of a new stream may send before it hears of a larger window."""

_HEADER: Final = Struct("!BBHII")
HEADER_BYTES: Final = _HEADER.size


class Header(NamedTuple):
    """A frame's header; `length` is payload bytes, a window's growth, a ping's number or a go-away reason, by `kind`."""

    kind: int
    flags: int
    stream: int
    length: int


def pack_header(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The 12 bytes of a header."""
    return _HEADER.pack(0, kind, flags, stream, length)


class FrameParser:
    """Cuts a byte stream into frames. Payload comes as views of what was fed, never joined and never copied."""

    def __init__(self) -> None:
        self._cut_header = b""
        self._payload_missing = 0

    def feed(self, data: bytes) -> Iterator[Header | memoryview]:
        """Each header, then the pieces of its payload, in order; a data frame's pieces add up to its length over later calls.

        Raises `trio.BrokenResourceError` when the bytes are no Yamux frames.
        """
        view = memoryview(data)
        while view:
            if self._payload_missing:
                piece, view = view[: self._payload_missing], view[self._payload_missing :]
                self._payload_missing -= len(piece)
                yield piece
                continue
            if self._cut_header or len(view) < HEADER_BYTES:
                missing = HEADER_BYTES - len(self._cut_header)
                self._cut_header += view[:missing]
                view = view[missing:]
                if len(self._cut_header) < HEADER_BYTES:
                    return
                yield self._header(self._cut_header)
                self._cut_header = b""
            else:
                head, view = view[:HEADER_BYTES], view[HEADER_BYTES:]
                yield self._header(head)

    def _header(self, head: bytes | memoryview) -> Header:
        version, kind, flags, stream, length = _HEADER.unpack(head)
        if version != 0 or kind > GO_AWAY:
            raise trio.BrokenResourceError(f"not a Yamux frame: version {version}, type {kind}")
        if kind == DATA:
            self._payload_missing = length
        return Header(kind, flags, stream, length)
