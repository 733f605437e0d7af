"""Proofs of storage: a chain of hashes over the leaves of a sealed replica, which a verifier can follow without holding the replica.

    h[0] = H("fsn-proof-v1" | network id | node id | challenge id | replica id | seed)
    h[i] = H(h[i-1] | leaf[h[i-1] mod leaf count])          for i in 1..difficulty

H is BLAKE3-256; h is read as a big-endian integer; ids are 16 bytes, the seed 32. Which leaf is next is unknown before the hash before
it, so the chain can be neither computed beforehand nor split; node and challenge are in its beginning, so an answer serves nobody else
and no second time. The proof is h[difficulty] and, for each step, the leaf with its Merkle path: the verifier needs root and size.
"""

from enum import Enum
from typing import Final
from uuid import UUID

import attrs
from blake3 import blake3

from fsn.core.ids import NodeId, ReplicaId
from fsn.core.merkle import LEAF_BYTES, Opening, leaf_count, open_leaves, opens

__all__ = [
    "DEFAULT_DIFFICULTY",
    "MAX_DIFFICULTY",
    "SEED_BYTES",
    "Challenge",
    "Proof",
    "Verdict",
    "network_id",
    "prove",
    "verify",
]

DEFAULT_DIFFICULTY: Final = 4
"""Leaves a proof visits: 17 KB on the wire."""
MAX_DIFFICULTY: Final = 64
SEED_BYTES: Final = 32

_DOMAIN: Final = b"fsn-proof-v1"
_NETWORK_DOMAIN: Final = b"fsn-network-v1"


@attrs.frozen
class Challenge:
    """What a node is asked. `seed` (32 bytes) must be unpredictable; the same challenge may be asked again, and has the same answer."""

    network: UUID
    node: NodeId
    challenge: UUID
    replica: ReplicaId
    seed: bytes = attrs.field(repr=False)
    difficulty: int = DEFAULT_DIFFICULTY

    def __attrs_post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes; got {len(self.seed)}")
        if not 1 <= self.difficulty <= MAX_DIFFICULTY:
            raise ValueError(f"a difficulty is 1..{MAX_DIFFICULTY}; got {self.difficulty}")


@attrs.frozen
class Proof:
    """An answer: the last hash of the chain (32 bytes), and an opening for each step, in order."""

    proof_hash: bytes
    openings: tuple[Opening, ...] = attrs.field(repr=False)


class Verdict(Enum):
    """What a proof is worth."""

    PASSED = "passed"
    BAD = "bad"
    """It is no proof for this challenge and replica; nothing more can be said of it."""


def network_id(name: str) -> UUID:
    """What stands for the network called `name` in a challenge: the first 16 bytes of BLAKE3("fsn-network-v1" | name)."""
    return UUID(bytes=blake3(_NETWORK_DOMAIN + name.encode()).digest()[:16])


def prove(challenge: Challenge, data: bytes | memoryview) -> Proof:
    """The proof over `data`, the sealed bytes of the replica as they lie on the disk. Raises ValueError when there are none.

    Takes one Merkle tree over the data (0.35 ms for 256 KiB) and `difficulty` leaves.
    """
    if not len(data):
        raise ValueError("a replica has at least one byte")
    link, count, visited = _begin(challenge), leaf_count(len(data)), []
    for _ in range(challenge.difficulty):
        index = _next_leaf(link, count)
        link = _step(link, data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES])
        visited.append(index)
    return Proof(link, open_leaves(data, visited))


def verify(challenge: Challenge, proof: Proof, *, root: bytes, size_bytes: int) -> Verdict:
    """Whether `proof` answers `challenge` for the replica with this Merkle root and size. Never raises, whatever the proof holds."""
    if len(proof.openings) != challenge.difficulty:
        return Verdict.BAD
    link, count = _begin(challenge), leaf_count(size_bytes)
    for opening in proof.openings:
        if not opens(opening, index=_next_leaf(link, count), root=root, size_bytes=size_bytes):
            return Verdict.BAD
        link = _step(link, opening.leaf)
    return Verdict.PASSED if link == proof.proof_hash else Verdict.BAD


def _begin(challenge: Challenge) -> bytes:
    ids = (challenge.network, challenge.node, challenge.challenge, challenge.replica)
    return blake3(_DOMAIN + b"".join(each.bytes for each in ids) + challenge.seed).digest()


def _next_leaf(link: bytes, count: int) -> int:
    return int.from_bytes(link, "big") % count


def _step(link: bytes, leaf: bytes | memoryview) -> bytes:
    return blake3(link + leaf).digest()
