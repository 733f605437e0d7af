"""Where peers of a memory network stand, and what the way between two of them does to bytes: delay, loss, narrow links, NAT."""

import math
from enum import Enum
from random import Random
from typing import Final

import attrs
import trio

from fsn.core.ids import PeerId

__all__ = ["DIAL_SECONDS", "NOTICE_SECONDS", "Nat", "Place", "Weather"]

NOTICE_SECONDS: Final = 10.0
"""A connection over a dead way is given up after so long: what TCP_USER_TIMEOUT and keep-alive of the real transport do (7-13 s)."""
DIAL_SECONDS: Final = 5.0
"""A dial into the void ends after so long, as the real transport's does."""
PACKET_BYTES: Final = 1400
RETRANSMIT_SECONDS: Final = 0.2
"""A lost packet costs at least so long: the smallest retransmission time-out of Linux."""


class Nat(Enum):
    """What stands between a peer and the others; all dial out, and a connection is used both ways."""

    OPEN = "open"
    """Everybody may dial it."""
    FULL_CONE = "full_cone"
    """Everybody may dial it as long as it has a connection to somebody."""
    RESTRICTED = "restricted"
    """Nobody gets in that it has not dialled itself; so with the two others, which differ for UDP only."""
    PORT_RESTRICTED = "port_restricted"
    SYMMETRIC = "symmetric"


@attrs.define(eq=False)
class Place:
    """A peer's spot in the network. The defaults are a perfect one; change it at any time, what is under way keeps its pace."""

    address: str = "127.0.0.1"
    """The IP address that others see."""
    nat: Nat = Nat.OPEN
    latency_seconds: float = 0.0
    """One way, to the middle of the network: two peers are as far apart as both together."""
    jitter_seconds: float = 0.0
    """Up to so much more, drawn for each piece of data; the order stays."""
    loss: float = 0.0
    """The share of packets lost; the stream is reliable, so each costs time."""
    bytes_per_second: float = math.inf
    """In each direction."""
    is_dark: bool = False
    """Nothing gets in or out, and nobody is told: the power is off, the cable is pulled."""
    is_paused: bool = False
    """The process stands still (SIGSTOP); its kernel holds the connections, so nobody gives them up."""
    _sent_until: float = attrs.field(init=False, default=0.0)
    _received_until: float = attrs.field(init=False, default=0.0)

    @property
    def is_silent(self) -> bool:
        """Whether no byte gets through."""
        return self.is_dark or self.is_paused

    def send(self, at: float, size_bytes: int) -> float:
        """When the last byte has left, begun at `at` at the earliest, behind what is being sent."""
        self._sent_until = max(at, self._sent_until) + size_bytes / self.bytes_per_second
        return self._sent_until

    def receive(self, at: float, size_bytes: int) -> float:
        """When the last byte is in."""
        self._received_until = max(at, self._received_until) + size_bytes / self.bytes_per_second
        return self._received_until


class Weather:
    """What the network is like now: where everybody stands, which ways are silent."""

    def __init__(self, rng: Random) -> None:
        self.sides: dict[PeerId, int] = {}
        """Of a partition; who is not in it is on side 0."""
        self.silenced: list[set[PeerId]] = []
        """Pairs between whom nothing gets through."""
        self._rng = rng
        self._places: dict[PeerId, Place] = {}

    def place(self, peer: PeerId) -> Place:
        """Where that peer stands: a perfect place unless it was changed."""
        return self._places.setdefault(peer, Place())

    def is_silent(self, a: PeerId, b: PeerId) -> bool:
        """Whether nothing gets through between two peers."""
        return self._is_apart(a, b) or self.place(a).is_silent or self.place(b).is_silent

    def is_paused(self, a: PeerId, b: PeerId) -> bool:
        """Whether nothing gets through only because a process stands still: no kernel gives the connection up."""
        is_dark = self.place(a).is_dark or self.place(b).is_dark
        return self.is_silent(a, b) and not is_dark and not self._is_apart(a, b)

    def arrival_time(self, sender: PeerId, receiver: PeerId, size_bytes: int) -> float:
        """When bytes that are sent now arrive, by trio's clock."""
        return _arrival_time(self.place(sender), self.place(receiver), size_bytes, self._rng)

    def _is_apart(self, a: PeerId, b: PeerId) -> bool:
        return self.sides.get(a, 0) != self.sides.get(b, 0) or {a, b} in self.silenced


def _arrival_time(sender: Place, receiver: Place, size_bytes: int, rng: Random) -> float:
    left = sender.send(trio.current_time(), size_bytes)
    arrived = receiver.receive(left + sender.latency_seconds + receiver.latency_seconds, size_bytes)
    return arrived + _jitter(sender, receiver, rng) + _retransmissions(sender, receiver, size_bytes, rng)


def _jitter(sender: Place, receiver: Place, rng: Random) -> float:
    most = sender.jitter_seconds + receiver.jitter_seconds
    return rng.random() * most if most else 0.0


def _retransmissions(sender: Place, receiver: Place, size_bytes: int, rng: Random) -> float:
    share = 1 - (1 - sender.loss) * (1 - receiver.loss)
    if not share:
        return 0.0
    lost = sum(rng.random() < share for _ in range(max(1, math.ceil(size_bytes / PACKET_BYTES))))
    return lost * max(RETRANSMIT_SECONDS, 2 * (sender.latency_seconds + receiver.latency_seconds))
