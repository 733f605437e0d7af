"""What stands in the catalogue, as frozen values; `database/` reads and writes them."""

from datetime import datetime
from typing import Literal

import attrs

from fsn.core.chunking import chunk_count, chunk_size
from fsn.core.ids import ChunkId, FileId, NodeId, PeerId, ReplicaId, UploadId, UserId
from fsn.core.keys import FileKey
from fsn.core.node_states import NodeState
from fsn.core.units import MicroCredits

__all__ = [
    "ChunkRecord",
    "FileStatus",
    "NodeRecord",
    "NodeStatus",
    "NodeTransition",
    "PlacedReplica",
    "StoredChunk",
    "StoredFile",
    "Upload",
    "UploadState",
    "User",
    "WholeFile",
]

FileStatus = Literal["uploading", "ready", "deleted"]
UploadState = Literal["open", "completed", "aborted", "expired"]
NodeStatus = NodeState


@attrs.frozen
class User:
    """Somebody who stores files."""

    id: UserId
    email: str
    password_hash: str = attrs.field(repr=False)
    created_at: datetime


@attrs.frozen
class StoredFile:
    """A file. `size_bytes` is None while a stream of unknown length comes in."""

    id: FileId
    user_id: UserId
    name: str = attrs.field(repr=False)
    size_bytes: int | None
    chunk_bytes: int
    pieces: int
    status: FileStatus
    master_key_id: str
    wrapped_key: bytes | None = attrs.field(repr=False)
    wrap_secret: bytes | None = attrs.field(repr=False)
    created_at: datetime
    ready_at: datetime | None

    @property
    def chunk_count(self) -> int:
        """Chunks of the whole file; 0 while the size is unknown."""
        return chunk_count(self.size_bytes or 0)

    def chunk_size(self, index: int) -> int:
        """Bytes of chunk `index`."""
        return chunk_size(self.size_bytes or 0, index)


@attrs.frozen
class Upload:
    """An upload under way or ended, with its file and the file's key."""

    id: UploadId
    file: StoredFile
    key: FileKey = attrs.field(repr=False)
    state: UploadState
    expires_at: datetime


@attrs.frozen
class PlacedReplica:
    """One sealed copy, durable on its node."""

    id: ReplicaId
    number: int
    node: NodeId
    root: bytes = attrs.field(repr=False)
    sealed_bytes: int


@attrs.frozen
class ChunkRecord:
    """A chunk whose replicas are all durable, on its way into the catalogue."""

    file: FileId
    index: int
    id: ChunkId
    size_bytes: int
    fingerprint: bytes = attrs.field(repr=False)
    replicas: tuple[PlacedReplica, ...]


@attrs.frozen
class WholeFile:
    """A small file whose chunks are all durable, on its way into the catalogue in one piece; `file` is ready. `cost`, in micro-credits,
    is for its first 30 days."""

    file: StoredFile
    chunks: tuple[ChunkRecord, ...]
    cost: MicroCredits = MicroCredits(0)


@attrs.frozen
class StoredChunk:
    """A chunk as a download needs it: where its live replicas are, and those that count as lost, to be tried last."""

    index: int
    id: ChunkId
    size_bytes: int
    replicas: tuple[tuple[ReplicaId, NodeId], ...]
    lost: tuple[tuple[ReplicaId, NodeId], ...] = ()


@attrs.frozen
class NodeRecord:
    """A storage node as the catalogue knows it; sizes in bytes, as its last heartbeat told."""

    id: NodeId
    peer_id: PeerId
    name: str
    operator_id: UserId | None
    region: str | None
    status: NodeStatus
    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    chunk_count: int
    version: str
    addresses: tuple[str, ...]
    observed_address: str | None
    reputation: float
    registered_at: datetime
    last_seen_at: datetime | None
    status_since: datetime
    status_reason: str
    status_until: datetime | None
    """When a declared maintenance ends, or by when a drain should be over."""
    absent_since: datetime | None
    """Since when no living coordinator hears it; None while one does."""
    vetted_at: datetime | None = None
    """Since when it is no new node any more."""
    suspended_at: datetime | None = None
    """Since when it gets no new replicas, for it does not answer challenges; None when it is not suspended."""
    judged_because: str | None = None
    """Why it is suspended or disqualified."""


@attrs.frozen
class NodeTransition:
    """A node passed from one state to another; `begin` is None for its registration, `coordinator` for the command line."""

    id: int
    node: NodeId
    at: datetime
    begin: NodeStatus | None
    end: NodeStatus
    reason: str
    until: datetime | None
    coordinator: PeerId | None
