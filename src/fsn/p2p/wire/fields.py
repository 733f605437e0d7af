"""Just enough of protobuf's encoding to find the last field of a message, so that large bytes at its end need not be copied."""

from typing import Final, NamedTuple

__all__ = ["Field", "last_field"]

_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_LONGEST_VARINT: Final = 10


class Field(NamedTuple):
    """A length-delimited field that ends where the buffer ends: its number, where its tag starts, and where its content does."""

    number: int
    start: int
    content: int


def last_field(view: memoryview, at: int) -> Field | None:
    """The last field of the message view[at:], if it is length-delimited and what precedes it are varints and length-delimited fields.

    None for anything else, malformed bytes included: those are protobuf's to judge. Looks at tags and lengths only.
    """
    end = len(view)
    while at < end:
        start = at
        tag, at = _varint(view, at, end)
        length, at = _varint(view, at, end)  # the value, of a varint field
        if at < 0 or tag & 7 not in (_VARINT, _LENGTH_DELIMITED):
            return None
        if tag & 7 == _LENGTH_DELIMITED:
            if at + length == end:
                return Field(tag >> 3, start, at)
            at += length
    return None


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """A varint and where it ends; where it ends is below 0 when there is none."""
    number = 0
    for shift in range(0, 7 * _LONGEST_VARINT, 7):
        if not 0 <= at < end:
            break
        byte = view[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
    return 0, -1
