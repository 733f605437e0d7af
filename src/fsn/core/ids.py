"""Identifiers as types of their own, so that the type checker catches a swapped argument."""

from typing import NewType
from uuid import UUID

from blake3 import blake3

__all__ = ["ChunkId", "FileId", "NodeId", "PeerId", "ReplicaId", "UploadId", "UserId", "chunk_id", "parse_uuid"]

UserId = NewType("UserId", UUID)
FileId = NewType("FileId", UUID)
UploadId = NewType("UploadId", UUID)
NodeId = NewType("NodeId", UUID)
ChunkId = NewType("ChunkId", UUID)
"""One 256 KiB piece of a file; derived, see `chunk_id`."""
ReplicaId = NewType("ReplicaId", UUID)
"""Sixteen random bytes drawn by `sealing.seal`; on the wire and on a node's disk its 32 lowercase hex digits."""
PeerId = NewType("PeerId", str)
"""A libp2p peer id in base58 text, e.g. `12D3KooW...`."""


def chunk_id(file: FileId, index: int) -> ChunkId:
    """The id of chunk `index` (from 0) of `file`: the first 16 bytes of BLAKE3("fsn-chunk-v1" | file id | index u32 big-endian).

    Derived rather than drawn, so that initiating an upload of a million chunks writes one row, not a million.
    """
    digest = blake3(b"fsn-chunk-v1" + file.bytes + index.to_bytes(4, "big")).digest(16)
    return ChunkId(UUID(bytes=digest))


def parse_uuid(text: str) -> UUID | None:
    """`text` as a UUID, or None when it is none: an id that cannot exist is not found, not an error of its own."""
    try:
        return UUID(text)
    except ValueError:
        return None
