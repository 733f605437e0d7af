"""Kademlia's rules: distances between keys, the routing table, and one lookup as a machine that is told answers and says whom to ask.

Maymounkov and Mazieres, "Kademlia: A Peer-to-peer Information System Based on the XOR Metric" (2002); keys as libp2p's kad-dht has them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from fsn.core.ids import PeerId

__all__ = ["ALPHA", "BUCKET_PEERS", "Located", "Lookup", "RoutingTable", "key_of"]

BUCKET_PEERS: Final = 20
"""k: peers in a bucket, and in an answer."""
ALPHA: Final = 3
"""Questions of one lookup under way together."""
MOST_ASKED: Final = 60
"""Peers that one lookup asks at most, whatever it is told."""
_CANDIDATES: Final = 4 * BUCKET_PEERS


def key_of(name: bytes) -> int:
    """Where a peer id (its bytes) or a record's key lies: SHA-256, as a number of 256 bits."""
    return int.from_bytes(hashlib.sha256(name).digest(), "big")


@attrs.frozen
class Located:
    """A peer, where it lies, where it listens; `told_from` is the IP address of who told us of it, None for our own knowledge."""

    peer: PeerId
    key: int
    addresses: tuple[str, ...] = ()
    told_from: str | None = None


class RoutingTable:
    """Peers that have answered, at most twenty for each length of the prefix that they share with us.

    Full buckets keep whom they have: who has been there for long will stay longer, and newcomers, however many, push nobody out.
    """

    def __init__(self, own: int) -> None:
        self._own = own
        self._buckets: dict[int, dict[PeerId, Located]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def __contains__(self, peer: object) -> bool:
        return any(peer in bucket for bucket in self._buckets.values())

    def add(self, found: Located) -> bool:
        """Keep the peer, or its new addresses; False when its bucket is full or it is ourselves."""
        if found.key == self._own:
            return False
        bucket = self._buckets.setdefault((found.key ^ self._own).bit_length(), {})
        if found.peer not in bucket and len(bucket) >= BUCKET_PEERS:
            return False
        bucket[found.peer] = found
        return True

    def remove(self, peer: PeerId) -> None:
        """It does not answer; harmless for one that is not there."""
        for bucket in self._buckets.values():
            bucket.pop(peer, None)

    def closest(self, key: int, count: int = BUCKET_PEERS) -> Sequence[Located]:
        """Up to `count` peers, the nearest to `key` first."""
        peers = (found for bucket in self._buckets.values() for found in bucket.values())
        return sorted(peers, key=lambda found: found.key ^ key)[:count]


class Lookup:
    """The search for the peers nearest to a key. Ends when the twenty nearest that answer have been asked, or sixty peers in all.

    Without waiting and without a network: `to_ask` names whom to ask now, and is told of each by `answered` or `failed`.
    """

    def __init__(self, target: int, start: Iterable[Located], *, own: PeerId) -> None:
        self._target = target
        self._own = own
        self._new: dict[PeerId, Located] = {}
        self._asked: set[PeerId] = set()
        self._asking: set[PeerId] = set()
        self._answered: dict[PeerId, Located] = {}
        self._take(start)

    @property
    def closest(self) -> Sequence[Located]:
        """Those that answered, nearest first."""
        return sorted(self._answered.values(), key=self._distance)[:BUCKET_PEERS]

    @property
    def asked(self) -> int:
        """How many peers have been asked."""
        return len(self._asked)

    @property
    def is_done(self) -> bool:
        """Nobody is being asked, and nobody is left whose answer could matter."""
        return not self._asking and not self._worth_asking()

    def to_ask(self) -> Sequence[Located]:
        """Whom to ask now, in addition to those being asked: nobody while three are, or when it is done."""
        chosen = self._worth_asking()[: max(0, ALPHA - len(self._asking))]
        for found in chosen:
            del self._new[found.peer]
            self._asked.add(found.peer)
            self._asking.add(found.peer)
        return chosen

    def answered(self, found: Located, closer: Iterable[Located]) -> None:
        """A peer that was to be asked has answered, and named others."""
        self._asking.discard(found.peer)
        self._answered[found.peer] = found
        self._take(closer)

    def failed(self, found: Located) -> None:
        """A peer that was to be asked did not answer."""
        self._asking.discard(found.peer)

    def _worth_asking(self) -> list[Located]:
        left = MOST_ASKED - len(self._asked)
        nearest = self.closest
        limit = self._distance(nearest[-1]) if len(nearest) == BUCKET_PEERS else None
        worth = [found for found in self._new.values() if limit is None or self._distance(found) < limit]
        return sorted(worth, key=self._distance)[:left]

    def _take(self, told: Iterable[Located]) -> None:
        """Remember whom we were told of; of too many the nearest."""
        for found in told:
            if found.peer != self._own and found.peer not in self._asked:
                self._new.setdefault(found.peer, found)
        if len(self._new) > _CANDIDATES:
            self._new = {found.peer: found for found in sorted(self._new.values(), key=self._distance)[:_CANDIDATES]}

    def _distance(self, found: Located) -> int:
        return found.key ^ self._target
