"""What coordinators and nodes say to each other, as frozen values. `codec.py` turns them into bytes; nothing here knows protobuf."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Final
from uuid import UUID

import attrs

from fsn.core.ids import PeerId, ReplicaId
from fsn.core.proofs import Proof
from fsn.core.reachability import DialResult
from fsn.core.reconciliation import HeldReplica, PrefixSum

__all__ = [
    "DECLARE",
    "DELETE_CHUNK",
    "DIAL_BACK",
    "HEARTBEAT",
    "PROTOCOL_OF",
    "PROVE_HELD",
    "RECONCILE",
    "REPORT_LOSSES",
    "RETRIEVE_CHUNK",
    "STORE_CHUNK",
    "ChunkRetrieved",
    "ChunkStored",
    "ChunksDeleted",
    "Contact",
    "Declaration",
    "Declared",
    "DeleteChunks",
    "DialBack",
    "DialedBack",
    "Earnings",
    "Heartbeat",
    "HeartbeatAnswer",
    "HeldProof",
    "LossesReported",
    "Message",
    "ProofRecord",
    "ProveHeld",
    "Reconcile",
    "ReconcileLevel",
    "Reconciled",
    "Refusal",
    "RefusalCode",
    "ReportLosses",
    "Request",
    "Response",
    "RetrieveChunk",
    "Standing",
    "StoreChunk",
]

STORE_CHUNK: Final = "/federated-storage/1.0.0/store-chunk"
RETRIEVE_CHUNK: Final = "/federated-storage/1.0.0/retrieve-chunk"
PROVE_HELD: Final = "/federated-storage/1.0.0/proof-challenge"
DELETE_CHUNK: Final = "/federated-storage/1.0.0/delete-chunk"
RECONCILE: Final = "/federated-storage/1.0.0/reconcile"
REPORT_LOSSES: Final = "/federated-storage/1.0.0/report-losses"
HEARTBEAT: Final = "/federated-storage/1.0.0/heartbeat"
DECLARE: Final = "/federated-storage/1.0.0/declare"
DIAL_BACK: Final = "/federated-storage/1.0.0/dial-back"


class RefusalCode(StrEnum):
    """Why a peer says no. Answers, not losses: the connection is fine."""

    DRAINING = "DRAINING"
    FULL = "FULL"
    NOT_FOUND = "NOT_FOUND"
    CORRUPT = "CORRUPT"
    NOT_AUTHORISED = "NOT_AUTHORISED"
    BUSY = "BUSY"
    INVALID = "INVALID"
    INTERNAL = "INTERNAL"
    """The peer failed inside (a bug, a broken disk); its log says more."""


@attrs.frozen
class StoreChunk:
    """Keep these sealed bytes. `root` is their Merkle root (32 bytes), checked by the node before it answers."""

    replica: ReplicaId
    root: bytes
    data: bytes | memoryview = attrs.field(repr=False)


@attrs.frozen
class ChunkStored:
    """The chunk is synced to disk and indexed. The answer, too, to a repeated store of the same id with the same root."""

    replica: ReplicaId


@attrs.frozen
class RetrieveChunk:
    """Send `length` bytes from `offset` of a replica; everything from there when `length` is 0."""

    replica: ReplicaId
    offset: int = 0
    length: int = 0


@attrs.frozen
class ChunkRetrieved:
    """The bytes asked for and the size of the whole replica."""

    data: bytes | memoryview = attrs.field(repr=False)
    total_bytes: int


@attrs.frozen
class ProveHeld:
    """Prove that you hold a replica: a `fsn.core.proofs.Challenge`, but for what both sides know.

    `seed` has 32 bytes, `difficulty` is 1..64.
    """

    challenge_id: UUID
    replica: ReplicaId
    seed: bytes = attrs.field(repr=False)
    difficulty: int


@attrs.frozen
class HeldProof:
    """The proof, and how long making it took by the clock of the one under test: to be logged, never to be judged by."""

    challenge_id: UUID
    proof: Proof
    duration_ms: int


@attrs.frozen
class DeleteChunks:
    """Forget these replicas. Deleting what is not there is a success."""

    replicas: tuple[ReplicaId, ...]
    to_trash: bool = False
    """Nobody has asked for it: the node may keep the bytes aside for some days."""


@attrs.frozen
class ChunksDeleted:
    """The replicas that could not be deleted, each with the reason; all others are gone from the disk for good."""

    failed: Mapping[ReplicaId, str]


@attrs.frozen
class Heartbeat:
    """A node's word on itself, every ten seconds: sizes in bytes, addresses it listens on."""

    chunk_count: int
    used_bytes: int
    free_bytes: int
    version: str
    draining: bool = False
    addresses: tuple[str, ...] = ()


@attrs.frozen
class Contact:
    """A coordinator and where it listens."""

    peer: PeerId
    addresses: tuple[str, ...]


@attrs.frozen
class ProofRecord:
    """A node's proofs of storage, as the coordinators count them, and what follows.

    It is vetted until it has `vetted_proofs` of `vetting_proofs` and `vetting_seconds_left` are over. `score_millionths` (0..1,000,000) is
    its reputation; `reason` says why it is suspended or disqualified, and is empty when it is neither.
    """

    passed: int = 0
    missed: int = 0
    failed: int = 0
    vetted_proofs: int = 0
    vetting_proofs: int = 0
    vetting_seconds_left: int = 0
    score_millionths: int = 1_000_000
    is_suspended: bool = False
    reason: str = ""


@attrs.frozen
class Earnings:
    """What a node earns beside its total: today's estimate, what is not paid out, payouts under way, what is held back."""

    today_micro_credits: int = 0
    balance_micro_credits: int = 0
    pending_micro_credits: int = 0
    held_micro_credits: int = 0


@attrs.frozen
class HeartbeatAnswer:
    """What the coordinator tells the node: micro-credits earned so far, the coordinators to know, and how it stands with them.

    `state` is one of `fsn.core.node_states`, or one that a later version has; empty when it was not said. `proofs`, `earnings`: None then.
    """

    earned_micro_credits: int = 0
    coordinators: tuple[Contact, ...] = ()
    state: str = ""
    proofs: ProofRecord | None = None
    earnings: Earnings | None = None


class Standing(StrEnum):
    """What a node means to do."""

    ACTIVE = "ACTIVE"
    """To store and serve."""
    DRAINING = "DRAINING"
    """To leave, once every replica is on other nodes."""
    MAINTENANCE = "MAINTENANCE"
    """To be away for a while."""
    STOPPING = "STOPPING"
    """The node ends in this moment, and may come back."""


@attrs.frozen
class Declaration:
    """A node's standing: a state and no event, so repeating it changes nothing.

    `remaining_seconds`: to the end of the maintenance, or to the drain's deadline (at least 1); 0 = there is none.
    """

    standing: Standing | str
    remaining_seconds: int = 0
    reason: str = ""


@attrs.frozen
class Declared:
    """How the node stands with the network, as the coordinators count it, for how long, and why.

    In a drain: replicas that are still to be moved and their bytes, and how many of them are nowhere else; up to date but for some seconds.
    """

    state: str
    since_seconds: int = 0
    reason: str = ""
    remaining_seconds: int = 0
    replicas_left: int = 0
    bytes_left: int = 0
    replicas_only_here: int = 0


class ReconcileLevel(IntEnum):
    """How closely two sides compare."""

    FIRST_BYTE = 0
    TWO_BYTES = 1
    REPLICAS = 2


@attrs.frozen
class Reconcile:
    """What do you hold? `prefixes`: within which first bytes (TWO_BYTES) or first two bytes (REPLICAS), there only ids above `after`."""

    level: ReconcileLevel
    prefixes: tuple[int, ...] = ()
    after: ReplicaId | None = None


@attrs.frozen
class Reconciled:
    """Sums by prefix, or a page of replicas in order of id; `more`: there are others after the last."""

    sums: Mapping[int, PrefixSum] = attrs.field(factory=dict)
    replicas: tuple[HeldReplica, ...] = ()
    more: bool = False


@attrs.frozen
class ReportLosses:
    """A node's word that these replicas are lost there, each with what was found."""

    losses: Mapping[ReplicaId, str]


@attrs.frozen
class LossesReported:
    """All of them are written down."""


@attrs.frozen
class DialBack:
    """Dial the asker anew at these addresses and say whether it answers; an unspecified IP stands for the one it comes from."""

    addresses: tuple[str, ...]


@attrs.frozen
class DialedBack:
    """How each dial ended, and the IP address that the request came from (None: not known)."""

    observed_address: str | None
    results: tuple[DialResult, ...] = ()


@attrs.frozen
class Refusal:
    """No, and why. `retry_after_ms` is 0 when asking again later is no use."""

    code: RefusalCode | str
    message: str
    retry_after_ms: int = 0


Request = (
    StoreChunk
    | RetrieveChunk
    | ProveHeld
    | DeleteChunks
    | Heartbeat
    | Reconcile
    | ReportLosses
    | Declaration
    | DialBack
)
Response = (
    ChunkStored
    | ChunkRetrieved
    | HeldProof
    | ChunksDeleted
    | HeartbeatAnswer
    | Reconciled
    | LossesReported
    | Declared
    | DialedBack
    | Refusal
)
Message = Request | Response

PROTOCOL_OF: Final[Mapping[type[Request], str]] = {
    StoreChunk: STORE_CHUNK,
    RetrieveChunk: RETRIEVE_CHUNK,
    ProveHeld: PROVE_HELD,
    DeleteChunks: DELETE_CHUNK,
    Heartbeat: HEARTBEAT,
    Reconcile: RECONCILE,
    ReportLosses: REPORT_LOSSES,
    Declaration: DECLARE,
    DialBack: DIAL_BACK,
}
