"""What a chunk store promises. `disk.py` keeps it on a file system, `memory.py` for as long as the process lives."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from fsn.core.errors import Invalid, TooLarge
from fsn.core.ids import ReplicaId
from fsn.core.merkle import merkle_root
from fsn.core.reconciliation import PrefixSum

__all__ = ["MAX_CHUNK_BYTES", "ChunkStore", "Ended", "RecoveryReport", "StoredChunk", "Totals", "check_chunk", "cut"]

MAX_CHUNK_BYTES: Final = 1024 * 1024
"""The largest replica that a store takes: a frame on the wire holds no more (a sealed chunk has 262,160 bytes)."""


@attrs.frozen
class Ended:
    """How the last challenge of a replica ended, as the node sees it ("answered", "gone", "failed"), and when (unix seconds)."""

    at: int
    how: str


@attrs.frozen
class StoredChunk:
    """One line of the index: what is kept, its Merkle root (32 bytes), its size and when it came (unix seconds).

    `challenged`: None when it never was, and where that is not asked of the index (what is deleted, what is put back).
    """

    replica: ReplicaId
    root: bytes = attrs.field(repr=False)
    size_bytes: int
    stored_at: int
    challenged: Ended | None = None


@attrs.frozen
class TrashedChunk:
    """A replica in the trash, and since when (unix seconds)."""

    chunk: StoredChunk
    trashed_at: int


@attrs.frozen
class Totals:
    """How many chunks a store holds and how many bytes they have together."""

    count: int
    size_bytes: int


@attrs.frozen
class RecoveryReport:
    """What the last start found. `lost_total` counts the losses of all starts since the store was made."""

    temps_removed: int = 0
    adopted: int = 0
    lost: int = 0
    foreign: int = 0
    lost_total: int = 0
    sums_corrected: bool = False
    """The sums that coordinators compare were not those of the chunks (a bug, or a changed index): they were computed anew."""
    index_rebuilt: bool = False
    """The index was damaged, and made anew from the chunks: what it knew of losses is not known any more."""


class ChunkStore(ABC):
    """Keeps sealed replicas by id. Every method may be called by many tasks at once."""

    @abstractmethod
    async def store(self, replica: ReplicaId, root: bytes, data: bytes | memoryview) -> None:
        """Keep `data`, whose Merkle root is `root` (32 bytes). When it returns, the chunk survives a power cut.

        The same id with the same root again is a success and changes nothing. A cancelled call has stored the whole chunk or
        nothing. `data` must never change. Raises `Invalid` (empty, or the root is not that of the bytes), `TooLarge`
        (above 1 MiB), `Conflict` (the id is there with another root), `DiskFull` (allowance or disk), `StorageError` otherwise; in all
        these cases nothing was stored.
        """

    @abstractmethod
    async def retrieve(self, replica: ReplicaId, offset: int = 0, length: int = 0) -> tuple[bytes, int]:
        """The `length` bytes from `offset` (all from there when `length` is 0; fewer at the end), and the size of the whole replica.

        Raises `NotFound`; `Invalid` for a range that begins outside the replica; `Corrupt` when the bytes are gone, cut short or
        unreadable. Bits that flipped are not looked for here: whoever reads a whole replica checks its GCM tag, which costs him
        nothing more.
        """

    @abstractmethod
    async def delete(self, replicas: Iterable[ReplicaId]) -> Mapping[ReplicaId, str]:
        """Forget replicas, for good when it returns. What is not there counts as deleted. Returns those that failed, with the reason."""

    @abstractmethod
    async def list(self, after: ReplicaId | None = None, limit: int = 100) -> Sequence[StoredChunk]:
        """Up to `limit` chunks with ids above `after`, in the order of their ids."""

    @abstractmethod
    async def sums(self, within: Sequence[int] | None = None) -> Mapping[int, PrefixSum]:
        """Sums of what is stored, by the first byte of the id; or, `within` these first bytes, by its first two (0..65535).

        Empty ones are left out. What is stored or deleted meanwhile counts or not, each chunk as a whole.
        """

    @abstractmethod
    async def list_within(
        self, prefixes: Sequence[int], after: ReplicaId | None = None, limit: int = 100
    ) -> Sequence[StoredChunk]:
        """As `list`, of the chunks whose ids begin with one of these two bytes (0..65535)."""

    @abstractmethod
    def totals(self) -> Totals:
        """What is stored now; asks no disk."""

    @abstractmethod
    def free_bytes(self) -> int:
        """How many bytes more would be taken: what is left of the allowance, or of the disk above its reserve if that is less."""

    async def trash(self, replicas: Iterable[ReplicaId]) -> Mapping[ReplicaId, str]:
        """As `delete`, but the bytes may be kept aside for a while, from where `restore` gets them. A store without a trash deletes."""
        return await self.delete(replicas)

    async def list_trash(self, after: ReplicaId | None = None, limit: int = 100) -> Sequence[TrashedChunk]:
        """Up to `limit` replicas in the trash with ids above `after`, in the order of their ids."""
        return ()

    async def restore(self, replicas: Iterable[ReplicaId]) -> Mapping[ReplicaId, str]:
        """Store again what lies in the trash, durably. Returns those that failed, with the reason. Raises `DiskFull`."""
        return dict.fromkeys(replicas, "it is not in the trash")

    async def empty_trash(self, before: int | None = None) -> Totals:
        """Remove some of what was put there before `before` (unix seconds; all without): what was removed, nothing when none is left."""
        return Totals(0, 0)

    def trash_totals(self) -> Totals:
        """What the trash holds; not counted in `totals`, and removed as soon as its room is wanted."""
        return Totals(0, 0)

    async def check(self, replica: ReplicaId) -> str | None:
        """Read a replica and compare it with its root: None when it is right, or not here.

        Else what is wrong: it is put aside then, is no longer here, and is one of `losses`.
        """
        return None

    async def losses(self, limit: int) -> Mapping[ReplicaId, str]:
        """Up to `limit` replicas that were lost here, each with what was found, until `forget_losses`; they survive a power cut."""
        return {}

    async def forget_losses(self, replicas: Iterable[ReplicaId]) -> None:  # noqa: B027 - a store need not notice losses
        """They have been reported."""

    async def note_challenges(self, ended: Mapping[ReplicaId, Ended]) -> None:  # noqa: B027 - nor keep a record
        """`list` tells it from now on, of those that are here. Survives a power cut where chunks do."""

    async def recall(self, key: str) -> str | None:
        """What was remembered under `key`; None when nothing was, or nothing is remembered here."""
        return None

    async def remember(self, key: str, value: str) -> None:  # noqa: B027 - nor remember
        """Keep a small note beside the chunks, durably where they are durable."""

    @property
    def queued_bytes(self) -> int:
        """Bytes of chunks that wait to be written."""
        return 0

    @property
    def failure(self) -> str | None:
        """Why nothing can be stored any more until the next start; None as long as all is well."""
        return None

    @property
    def recovery(self) -> RecoveryReport:
        """What the last start found."""
        return RecoveryReport()


def check_chunk(root: bytes, data: bytes | memoryview) -> None:
    """Refuse what no store may keep. Raises `Invalid` or `TooLarge`.

    Runs inline in the caller's task: 0.2 ms for 256 KiB, about as much as a hop to a thread and back costs under load.
    """
    if len(data) > MAX_CHUNK_BYTES:
        raise TooLarge(f"a chunk has at most {MAX_CHUNK_BYTES} bytes; got {len(data)}")
    if len(data) == 0:
        raise Invalid("a chunk has at least one byte; got none")
    found = merkle_root(data)
    if found != root:
        raise Invalid(f"the bytes received have the Merkle root {found.hex()}; announced was {root.hex()}")


def cut(size_bytes: int, offset: int, length: int) -> tuple[int, int]:
    """The range to read, as offset and length, of a replica of `size_bytes`. Raises `Invalid` when it begins outside."""
    if offset < 0 or length < 0 or offset >= size_bytes:
        raise Invalid(
            f"a range must begin within the {size_bytes} bytes of the replica; got offset {offset}, length {length}"
        )
    left = size_bytes - offset
    return offset, min(length, left) if length else left
