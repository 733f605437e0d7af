"""The Merkle tree of a sealed replica: BLAKE3-256 over 4096-byte leaves, in the tree shape of RFC 6962: root, openings of leaves."""

from collections.abc import Sequence
from typing import Final

import attrs
from blake3 import blake3

__all__ = ["LEAF_BYTES", "ROOT_BYTES", "Opening", "leaf_count", "merkle_root", "open_leaves", "opens"]

LEAF_BYTES: Final = 4096
"""Bytes of every leaf but the last, which holds the rest (1..4096)."""

ROOT_BYTES: Final = 32

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


@attrs.frozen
class Opening:
    """A leaf and the hashes beside its way to the root, from the bottom up (RFC 6962, section 2.1.1): at most seven for a whole chunk."""

    leaf: bytes = attrs.field(repr=False)
    siblings: tuple[bytes, ...] = attrs.field(repr=False)


def leaf_count(size_bytes: int) -> int:
    """Leaves of so many bytes."""
    return -(-size_bytes // LEAF_BYTES)


def merkle_root(data: bytes | bytearray | memoryview) -> bytes:
    """The 32-byte root over `data` (RFC 6962, section 2.1, with BLAKE3-256 for SHA-256 and leaves of 4096 bytes).

    A leaf hashes to H(0x00 | leaf), a node to H(0x01 | left | right). The root of no bytes is H of the empty string,
    as in the RFC; no empty replica exists. Costs about 2.6 times one BLAKE3 over the same bytes: 0.35 ms for 256 KiB
    with AVX2, less with AVX-512.
    """
    if not len(data):
        return blake3().digest()
    # One hasher, reset between messages: making one costs 1.4 us, a quarter of a leaf (131 messages for 256 KiB).
    hasher = blake3()
    level = _hash_leaves(hasher, memoryview(data))
    while len(level) > 1:
        level = _hash_pairs(hasher, level)
    return level[0]


def open_leaves(data: bytes | bytearray | memoryview, indexes: Sequence[int]) -> tuple[Opening, ...]:
    """An opening for each of `indexes` (0..leaf count - 1), in that order; one tree is computed for all."""
    hasher = blake3()
    levels = [_hash_leaves(hasher, memoryview(data))]
    while len(levels[-1]) > 1:
        levels.append(_hash_pairs(hasher, levels[-1]))
    return tuple(
        Opening(bytes(data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES]), _siblings(levels, index))
        for index in indexes
    )


def opens(opening: Opening, *, index: int, root: bytes, size_bytes: int) -> bool:
    """Whether `opening` shows leaf `index` of the bytes, `size_bytes` of them, that have this root. Never raises."""
    if len(opening.leaf) != min(LEAF_BYTES, size_bytes - index * LEAF_BYTES):
        return False
    width, siblings = leaf_count(size_bytes), iter(opening.siblings)
    digest = blake3(_LEAF + opening.leaf).digest()
    while width > 1:
        if (index ^ 1) < width:  # else it is the odd one, carried up as it is
            sibling = next(siblings, b"")
            if len(sibling) != ROOT_BYTES:
                return False
            digest = blake3(_NODE + (sibling + digest if index & 1 else digest + sibling)).digest()
        index, width = index >> 1, (width + 1) >> 1
    return next(siblings, None) is None and digest == root


def _siblings(levels: Sequence[list[bytes]], index: int) -> tuple[bytes, ...]:
    places = ((level, (index >> height) ^ 1) for height, level in enumerate(levels[:-1]))
    return tuple(level[place] for level, place in places if place < len(level))


def _hash_leaves(hasher: blake3, data: memoryview) -> list[bytes]:
    reset, update, digest = hasher.reset, hasher.update, hasher.digest
    digests = []
    for start in range(0, len(data), LEAF_BYTES):
        reset()
        update(_LEAF + data[start : start + LEAF_BYTES])
        digests.append(digest())
    return digests


def _hash_pairs(hasher: blake3, level: list[bytes]) -> list[bytes]:
    # Pairing neighbours from the bottom, the odd one carried up as it is, gives the RFC's left-balanced tree; a property
    # test compares it with the RFC's recursive definition.
    reset, update, digest = hasher.reset, hasher.update, hasher.digest
    digests = []
    for right in range(1, len(level), 2):
        reset()
        update(_NODE + level[right - 1] + level[right])
        digests.append(digest())
    return digests + level[len(level) & ~1 :]
