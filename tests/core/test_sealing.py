"""Sealing per replica."""

import random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.chunking import CHUNK_BYTES
from fsn.core.errors import Corrupt
from fsn.core.ids import ChunkId, ReplicaId
from fsn.core.keys import FileKey
from fsn.core.merkle import merkle_root
from fsn.core.sealing import TAG_BYTES, SealedReplica, fingerprint, open_replica, seal

FILE_KEY = FileKey(bytes(range(32)))
CHUNK = ChunkId(UUID(bytes=bytes(range(16, 32))))
REPLICA = bytes(range(0xA0, 0xB0))
PLAINTEXT = b"the quick brown fox"

# Computed with HMAC, another AES-GCM implementation (PyCryptodome) and a separate Merkle tree.
GOLDEN_DATA = "438213a3bcc52ee298b7eed1568e64217b6c2f01bd23cad9fd1a364d72a2559623fa22"
GOLDEN_ROOT = "b70770536f73063ba61a0242d42cab3e465e63f41aa22ddfb0732f3b75b359ff"
GOLDEN_FINGERPRINT = "3aff1524188815590292ff37c50faa54fc39777ea12508a1bc32b9c1bf5aafef"


def open_sealed(sealed: SealedReplica, size_bytes: int) -> bytes:
    return open_replica(FILE_KEY, chunk=CHUNK, replica=sealed.replica, size_bytes=size_bytes, data=sealed.data)


def test_golden_replica() -> None:
    """A known chunk under a known key and id is sealed to the published bytes."""
    sealed = seal(FILE_KEY, CHUNK, PLAINTEXT, lambda count: REPLICA[:count])
    assert sealed.replica.bytes == REPLICA
    assert sealed.data.hex() == GOLDEN_DATA
    assert sealed.root.hex() == GOLDEN_ROOT


def test_golden_fingerprint() -> None:
    """A known plaintext has the published fingerprint."""
    assert fingerprint(FILE_KEY, PLAINTEXT).hex() == GOLDEN_FINGERPRINT


@given(st.binary(min_size=1, max_size=5000), st.integers(0, 2**32))
def test_what_was_sealed_opens(plaintext: bytes, seed: int) -> None:
    """Opening gives the plaintext back; the root is that of the sealed bytes, which are 16 longer."""
    sealed = seal(FILE_KEY, CHUNK, plaintext, random.Random(seed).randbytes)
    assert open_sealed(sealed, len(plaintext)) == plaintext
    assert len(sealed.data) == len(plaintext) + TAG_BYTES
    assert sealed.root == merkle_root(sealed.data)


@pytest.mark.parametrize("size_bytes", [1, CHUNK_BYTES])
def test_the_smallest_and_the_largest_chunk_seal(size_bytes: int) -> None:
    """A chunk has one byte at least and 256 KiB at most, from any buffer."""
    sealed = seal(FILE_KEY, CHUNK, memoryview(bytearray(size_bytes)), random.Random(1).randbytes)
    opened = open_replica(
        FILE_KEY, chunk=CHUNK, replica=sealed.replica, size_bytes=size_bytes, data=memoryview(sealed.data)
    )
    assert opened == bytes(size_bytes)


@pytest.mark.parametrize("size_bytes", [0, CHUNK_BYTES + 1])
def test_other_sizes_are_the_callers_mistake(size_bytes: int) -> None:
    """Nothing is sealed that is no chunk."""
    with pytest.raises(ValueError, match=f"got {size_bytes}"):
        seal(FILE_KEY, CHUNK, bytes(size_bytes), random.Random(1).randbytes)


def test_two_replicas_share_nothing() -> None:
    """An id is drawn for each seal, so the same chunk sealed twice has other bytes from the first block on."""
    draw = random.Random(1).randbytes
    one, two = (seal(FILE_KEY, CHUNK, PLAINTEXT, draw) for _ in range(2))
    assert one.replica != two.replica
    assert one.root != two.root
    assert one.data[:8] != two.data[:8]


@given(st.data())
def test_any_damaged_byte_is_noticed(data: st.DataObject) -> None:
    """A replica with one byte changed, wherever, is corrupt."""
    sealed = seal(FILE_KEY, CHUNK, PLAINTEXT, random.Random(1).randbytes)
    damaged = bytearray(sealed.data)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Corrupt, match="its tag is wrong"):
        open_replica(FILE_KEY, chunk=CHUNK, replica=sealed.replica, size_bytes=len(PLAINTEXT), data=damaged)


def test_a_replica_opens_only_as_what_it_is() -> None:
    """Another file key, chunk, replica id or size does not open it."""
    sealed = seal(FILE_KEY, CHUNK, PLAINTEXT, random.Random(1).randbytes)
    size, other = len(PLAINTEXT), UUID(int=7)
    for key, chunk, replica, size_bytes in (
        (FileKey(bytes(32)), CHUNK, sealed.replica, size),
        (FILE_KEY, ChunkId(other), sealed.replica, size),
        (FILE_KEY, CHUNK, ReplicaId(other), size),
        (FILE_KEY, CHUNK, sealed.replica, size - 1),
        (FILE_KEY, CHUNK, sealed.replica, size + 1),
    ):
        with pytest.raises(Corrupt):
            open_replica(key, chunk=chunk, replica=replica, size_bytes=size_bytes, data=sealed.data)


@pytest.mark.parametrize("data", [b"", bytes(15), bytes(16)])
def test_a_cut_replica_is_corrupt(data: bytes) -> None:
    """Too few bytes for a chunk and its tag are refused before anything is decrypted."""
    with pytest.raises(Corrupt, match="sealed bytes; got"):
        open_replica(FILE_KEY, chunk=CHUNK, replica=ReplicaId(UUID(bytes=REPLICA)), size_bytes=19, data=data)


def test_fingerprints_tell_contents_and_files_apart() -> None:
    """Equal bytes of one file agree; other bytes, or another file's key, do not."""
    assert fingerprint(FILE_KEY, memoryview(PLAINTEXT)) == fingerprint(FILE_KEY, PLAINTEXT)
    assert fingerprint(FILE_KEY, PLAINTEXT + b"!") != fingerprint(FILE_KEY, PLAINTEXT)
    assert fingerprint(FileKey(bytes(32)), PLAINTEXT) != fingerprint(FILE_KEY, PLAINTEXT)


def test_sealed_bytes_never_show_in_a_repr() -> None:
    """The sealed bytes stay out of logs."""
    assert "data" not in repr(seal(FILE_KEY, CHUNK, PLAINTEXT, random.Random(1).randbytes))
