"""How a coordinator and a node find out where they disagree about replicas: sums over prefixes of the id, then lists where sums differ."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final

import attrs

from fsn.core.ids import ReplicaId

__all__ = [
    "DIGEST_BYTES",
    "Difference",
    "HeldReplica",
    "PrefixSum",
    "compare",
    "differing",
    "digest_words",
    "replica_digest",
    "sum_up",
]

DIGEST_BYTES: Final = 16
_HALF: Final = 2**64


def replica_digest(replica: ReplicaId, root: bytes, size_bytes: int) -> bytes:
    """16 bytes that stand for one replica: the first half of SHA-256(id | root | size u32 big-endian).

    SHA-256, because PostgreSQL has it without an extension (md5 is missing in FIPS builds), and over the row as a whole, so that two
    replicas whose roots were exchanged are noticed.
    """
    return sha256(replica.bytes + root + size_bytes.to_bytes(4, "big")).digest()[:DIGEST_BYTES]


def digest_words(digest: bytes) -> tuple[int, int]:
    """The two halves of a digest, each 0..2**64-1: they are summed apart, modulo 2**64."""
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


@attrs.frozen
class PrefixSum:
    """All replicas whose id begins alike: how many, their sealed bytes, and the sums of both halves of their digests modulo 2**64.

    The sums are independent of the order, and grow and shrink with each replica. They find what a broken disk, program or backup has
    changed (two different sets pass for one in 1 of 2**128 cases); they are no proof against one who looks for such sets.
    """

    count: int = 0
    size_bytes: int = 0
    high: int = 0
    low: int = 0

    def plus(self, other: "PrefixSum") -> "PrefixSum":
        """The sum over both sets."""
        return PrefixSum(
            self.count + other.count,
            self.size_bytes + other.size_bytes,
            (self.high + other.high) % _HALF,
            (self.low + other.low) % _HALF,
        )


@attrs.frozen
class HeldReplica:
    """A replica in an exact list."""

    replica: ReplicaId
    digest: bytes = attrs.field(repr=False)
    size_bytes: int


@attrs.frozen
class Difference:
    """Where two exact lists differ: held and not listed, listed and not held, and held with another root or size."""

    garbage: tuple[HeldReplica, ...] = ()
    lost: tuple[HeldReplica, ...] = ()
    damaged: tuple[HeldReplica, ...] = ()
    """As listed: what should be there."""
    agreed: PrefixSum = PrefixSum()
    """Of the replicas in both lists, alike."""


NOTHING: Final = PrefixSum()


def sum_up(replicas: Iterable[HeldReplica]) -> PrefixSum:
    """The sum over `replicas`."""
    total = NOTHING
    for each in replicas:
        total = total.plus(PrefixSum(1, each.size_bytes, *digest_words(each.digest)))
    return total


def differing(ours: Mapping[int, PrefixSum], theirs: Mapping[int, PrefixSum]) -> tuple[list[int], PrefixSum]:
    """The prefixes to descend into, in order, and the sum over those that agree. A prefix that is missing is empty."""
    agreed, found = NOTHING, []
    for prefix in sorted(ours.keys() | theirs.keys()):
        mine = ours.get(prefix, NOTHING)
        if mine == theirs.get(prefix, NOTHING):
            agreed = agreed.plus(mine)
        else:
            found.append(prefix)
    return found, agreed


def compare(listed: Iterable[HeldReplica], held: Iterable[HeldReplica]) -> Difference:
    """Where the catalogue's list and the node's differ; an id stands once in each. Everything in order of id."""
    here = {each.replica: each for each in held}
    lost: list[HeldReplica] = []
    damaged: list[HeldReplica] = []
    agreed: list[HeldReplica] = []
    for each in sorted(listed, key=_id):
        found = here.pop(each.replica, None)
        (lost if found is None else agreed if found == each else damaged).append(each)
    return Difference(tuple(sorted(here.values(), key=_id)), tuple(lost), tuple(damaged), sum_up(agreed))


def _id(each: HeldReplica) -> int:
    return each.replica.int
