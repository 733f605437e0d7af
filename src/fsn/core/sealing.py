"""Sealing: every replica of a chunk is encrypted under a key of its own, so that no two replicas share a byte."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

import attrs
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fsn.core.chunking import CHUNK_BYTES
from fsn.core.errors import Corrupt
from fsn.core.ids import ChunkId, ReplicaId
from fsn.core.keys import FileKey
from fsn.core.merkle import merkle_root

__all__ = ["MAX_SEALED_BYTES", "TAG_BYTES", "SealedReplica", "fingerprint", "open_replica", "seal"]

TAG_BYTES: Final = 16
"""What sealing adds to a chunk: the GCM tag, at the end."""

MAX_SEALED_BYTES: Final = CHUNK_BYTES + TAG_BYTES

_SEAL: Final = b"fsn-seal-v1"
_PLAIN: Final = b"fsn-plain-v1"
# The nonce may be constant because a key seals exactly once: the key comes from the replica id, and the id is drawn in
# `seal`.
_NONCE: Final = bytes(12)


@attrs.frozen
class SealedReplica:
    """What one node gets: an id drawn for it alone, the Merkle root of the sealed bytes (32 bytes), and these bytes."""

    replica: ReplicaId
    root: bytes
    data: bytes = attrs.field(repr=False)


def seal(
    file_key: FileKey,
    chunk: ChunkId,
    plaintext: bytes | bytearray | memoryview,
    random_bytes: Callable[[int], bytes],
) -> SealedReplica:
    """Seal `plaintext` (1..262,144 bytes) for one node; the sealed bytes are 16 longer.

    `random_bytes(16)` is drawn each time this runs, retries and repair included; it must come from the operating
    system's generator. Sealed bytes may be sent again to the same node only: two nodes with the same bytes could fetch
    them from each other. K = HKDF-SHA256(file key, no salt, "fsn-seal-v1" | replica id), AES-256-GCM, nonce of twelve
    zero bytes, associated data "fsn-seal-v1" | chunk id (16 bytes) | plaintext length (u32 big-endian). Raises
    ValueError for a plaintext of another size.
    """
    if not 1 <= len(plaintext) <= CHUNK_BYTES:
        raise ValueError(f"a chunk has 1..{CHUNK_BYTES} bytes; got {len(plaintext)}")
    replica = ReplicaId(UUID(bytes=random_bytes(16)))
    data = _cipher(file_key, replica).encrypt(_NONCE, plaintext, _associated_data(chunk, len(plaintext)))
    return SealedReplica(replica, merkle_root(data), data)


def open_replica(
    file_key: FileKey,
    *,
    chunk: ChunkId,
    replica: ReplicaId,
    size_bytes: int,
    data: bytes | bytearray | memoryview,
) -> bytes:
    """The plaintext of a sealed replica; `size_bytes` is the plaintext's length, from the catalogue.

    Raises `Corrupt` unless `data` is, bit for bit, what `seal` made of this chunk for this replica with this key.
    """
    if len(data) != size_bytes + TAG_BYTES:
        raise Corrupt(f"replica {replica.hex} must have {size_bytes + TAG_BYTES} sealed bytes; got {len(data)}")
    try:
        return _cipher(file_key, replica).decrypt(_NONCE, data, _associated_data(chunk, size_bytes))
    except InvalidTag:
        raise Corrupt(f"replica {replica.hex} is not what was sealed for chunk {chunk.hex}: its tag is wrong") from None


def fingerprint(file_key: FileKey, plaintext: bytes | bytearray | memoryview) -> bytes:
    """32 bytes that say whether a chunk sent again is the same: BLAKE3 of the plaintext, keyed from the file key.

    The BLAKE3 key is HKDF-SHA256(file key, no salt, "fsn-plain-v1"), so that the catalogue alone confirms nobody's
    guess at a content.
    """
    return blake3(plaintext, key=_derive(file_key, _PLAIN)).digest()


def _cipher(file_key: FileKey, replica: ReplicaId) -> AESGCM:
    return AESGCM(_derive(file_key, _SEAL + replica.bytes))


def _associated_data(chunk: ChunkId, size_bytes: int) -> bytes:
    return _SEAL + chunk.bytes + size_bytes.to_bytes(4, "big")


def _derive(file_key: FileKey, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(file_key)
