"""The asking half of multistream-select: name the protocol that a new stream is for, and hear whether the peer serves it.

Ours, because py-libp2p's takes two round trips where one will do, decodes what the peer sends outside of any `except` (defect B2
of docs/decisions/0004) and logs seven lines per refusal (B17). Source: github.com/multiformats/multistream-select.
"""

from typing import Final

import trio

from fsn.core.errors import ProtocolViolation

__all__ = ["select"]

_MULTISTREAM: Final = b"/multistream/1.0.0"
_NOT_AVAILABLE: Final = b"na"
_MAX_LINE_BYTES: Final = 1024


async def select(stream: trio.abc.Stream, protocol: str) -> None:
    """Agree with the peer on `protocol`; the stream's next byte is the protocol's own. The caller sets the deadline.

    Raises `ProtocolViolation` when the peer does not serve it or does not speak multistream-select, and what the stream raises.
    """
    wanted = protocol.encode()
    await stream.send_all(_line(_MULTISTREAM) + _line(wanted))
    greeting = await _receive_line(stream)
    if greeting != _MULTISTREAM:
        raise ProtocolViolation(f"the peer was to answer {_MULTISTREAM!r}; got {greeting!r}")
    answer = await _receive_line(stream)
    if answer == _NOT_AVAILABLE:
        raise ProtocolViolation(f"the peer does not serve {protocol}")
    if answer != wanted:
        raise ProtocolViolation(f"the peer was to answer {protocol!r}; got {answer!r}")


def _line(text: bytes) -> bytes:
    """Length as a varint, the text, a newline."""
    length = len(text) + 1
    if length > _MAX_LINE_BYTES:
        raise ProtocolViolation(f"a protocol id may have {_MAX_LINE_BYTES - 1} bytes; got {len(text)}")
    return bytes([length] if length < 0x80 else [length & 0x7F | 0x80, length >> 7]) + text + b"\n"


async def _receive_line(stream: trio.abc.Stream) -> bytes:
    line = await _receive_exactly(stream, await _receive_length(stream))
    if not line.endswith(b"\n"):
        raise ProtocolViolation(f"a multistream line must end in a newline; got {line!r}")
    return line[:-1]


async def _receive_length(stream: trio.abc.Stream) -> int:
    """A varint of one or two bytes: no line is longer than `_MAX_LINE_BYTES`."""
    (low,) = await _receive_exactly(stream, 1)
    (high,) = await _receive_exactly(stream, 1) if low >= 0x80 else (0,)
    length: int = (low & 0x7F) | high << 7
    if not 0 < length <= _MAX_LINE_BYTES:
        raise ProtocolViolation(f"a multistream line may have 1..{_MAX_LINE_BYTES} bytes; got {length}")
    return length


async def _receive_exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise ProtocolViolation("the peer ended the stream in the middle of the negotiation")
        data += more
    return data
