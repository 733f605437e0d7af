"""The Merkle root against golden values and against RFC 6962's own, recursive definition."""

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.merkle import LEAF_BYTES, merkle_root

# Computed by a separate, recursive implementation over the bytes 0, 1, ..., 250, 0, 1, ...
GOLDEN = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "1ad48f49627079d806b802c74f40c39d55fe1d78b3faf0f8017aec62cec42122",
    4096: "3f96063db5318b629afe6a4bcaedafd042a217349fb95505448f7a9dde279326",
    4097: "fed26ebd10693a9b9021f2a639d56a5e60bad11bd6bc86d45a4af2ac45390e83",
    12288: "1dc6a9b5a64ece54919b7dba14e6c42eaeafc6c4545d4678f6c8d209b511c71f",
    262144: "15330bc3596a9ae988e800b863daeb7567aae9eb29aa432a4be22d489fe77351",
    262160: "8cb1abc2f85bf0557e933bac5599c7021a61447a5f222a3e7dff77925e4e4315",
}


def counting(size_bytes: int) -> bytes:
    return (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]


def rfc_6962(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word, with BLAKE3-256 for SHA-256."""
    if not leaves:
        return blake3(b"").digest()
    if len(leaves) == 1:
        return blake3(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return blake3(b"\x01" + rfc_6962(leaves[:k]) + rfc_6962(leaves[k:])).digest()


@pytest.mark.parametrize(("size_bytes", "root"), GOLDEN.items())
def test_golden_roots(size_bytes: int, root: str) -> None:
    """The root of known bytes is the published one."""
    assert merkle_root(counting(size_bytes)).hex() == root


@given(st.integers(0, 70), st.integers(0, LEAF_BYTES - 1), st.binary(min_size=1, max_size=9))
def test_equals_the_recursive_definition(leaves: int, rest: int, pattern: bytes) -> None:
    """Pairing from the bottom gives the RFC's tree for every number of leaves."""
    size_bytes = leaves * LEAF_BYTES + rest
    data = (pattern * (size_bytes // len(pattern) + 1))[:size_bytes]
    assert merkle_root(data) == rfc_6962([data[i : i + LEAF_BYTES] for i in range(0, size_bytes, LEAF_BYTES)])


def test_every_leaf_count_up_to_a_chunk_has_the_right_shape() -> None:
    """From one leaf to the 65 of a sealed chunk the shape is the RFC's."""
    data = counting(65 * LEAF_BYTES)
    leaves = [data[i : i + LEAF_BYTES] for i in range(0, len(data), LEAF_BYTES)]
    for count in range(1, 66):
        assert merkle_root(data[: count * LEAF_BYTES]) == rfc_6962(leaves[:count])


@given(st.integers(0, 20_000), st.integers(1, 255))
def test_any_changed_byte_changes_the_root(position: int, difference: int) -> None:
    """The root commits to every byte."""
    data = bytearray(counting(20_001))
    data[position] ^= difference
    assert merkle_root(data) != merkle_root(counting(20_001))


def test_all_buffers_are_equal() -> None:
    """Bytes, bytearrays and memoryviews of the same content have the same root."""
    data = counting(10_000)
    assert merkle_root(data) == merkle_root(bytearray(data)) == merkle_root(memoryview(b"x" + data)[1:])
