"""Sums of the stored chunks by the first two bytes of their ids: how the index keeps them, and how they are read for a comparison."""

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

from fsn.core.reconciliation import PrefixSum, replica_digest
from fsn.node.chunkstore.base import StoredChunk

__all__ = [
    "ADD_TO_PREFIX",
    "SUMS_WITHIN",
    "SUMS_WITHOUT_WORDS",
    "PrefixRow",
    "Tally",
    "as_sums",
    "changes",
    "prefix_of",
]

PrefixRow = tuple[int, int, int, int, int, int, int]
"""Prefix, count, bytes, and the sums of the digests' four 32-bit words: they never overflow SQLite's 64 bits, so that an upsert can add."""

ADD_TO_PREFIX: Final = """
    INSERT INTO prefixes (prefix, count, size_bytes, word_0, word_1, word_2, word_3) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (prefix) DO UPDATE SET count = count + excluded.count, size_bytes = size_bytes + excluded.size_bytes,
        word_0 = word_0 + excluded.word_0, word_1 = word_1 + excluded.word_1,
        word_2 = word_2 + excluded.word_2, word_3 = word_3 + excluded.word_3"""

SUMS_WITHOUT_WORDS: Final = "SELECT coalesce(sum(count), 0), coalesce(sum(size_bytes), 0) FROM prefixes"
SUMS_WITHIN: Final = """
    SELECT prefix >> ?, sum(count), sum(size_bytes), sum(word_0), sum(word_1), sum(word_2), sum(word_3)
    FROM prefixes WHERE prefix BETWEEN ? AND ? GROUP BY 1"""
"""Of the prefixes from the second to the third value; 8 as the first groups them by their first byte, 0 does not."""

_WORDS: Final = struct.Struct(">4I")
_HALF: Final = 2**64


def prefix_of(replica_bytes: bytes) -> int:
    """0..65535."""
    return replica_bytes[0] << 8 | replica_bytes[1]


@attrs.define
class Tally:
    """Adds chunks up, prefix by prefix."""

    _rows: dict[int, list[int]] = attrs.field(factory=dict)

    def add(self, chunk: StoredChunk, sign: int = 1) -> None:
        """Count one chunk; take it off with a `sign` of -1."""
        digest = replica_digest(chunk.replica, chunk.root, chunk.size_bytes)
        row = self._rows.setdefault(prefix_of(chunk.replica.bytes), [0, 0, 0, 0, 0, 0])
        for place, number in enumerate((1, chunk.size_bytes, *_WORDS.unpack(digest))):
            row[place] += sign * number

    def rows(self) -> list[PrefixRow]:
        """For `ADD_TO_PREFIX`."""
        return [(prefix, *row) for prefix, row in self._rows.items()]  # type: ignore[misc] # six numbers each

    def sums(self) -> dict[int, PrefixSum]:
        """By prefix."""
        return as_sums(self.rows())


def changes(added: Iterable[StoredChunk], removed: Iterable[StoredChunk] = ()) -> list[PrefixRow]:
    """What to add to the row of each prefix that is touched."""
    tally = Tally()
    for chunk in added:
        tally.add(chunk)
    for chunk in removed:
        tally.add(chunk, -1)
    return tally.rows()


def as_sums(rows: Iterable[Sequence[Any]]) -> dict[int, PrefixSum]:
    """Rows of `SUMS_WITHIN`; empty ones are left out."""
    return {prefix: total for prefix, total in map(_as_sum, rows) if total != PrefixSum()}


def _as_sum(row: Sequence[Any]) -> tuple[int, PrefixSum]:
    prefix, count, size_bytes, *words = row
    high, low = ((words[place] << 32) + words[place + 1] for place in (0, 2))
    return prefix, PrefixSum(count, size_bytes, high % _HALF, low % _HALF)
