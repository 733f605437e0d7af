"""How often somebody may do something: a token bucket as one number, and who counts as one somebody."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import attrs
from attrs.validators import ge, gt

__all__ = ["Rate", "Taken", "give_back", "source_network", "take"]

IPV6_SOURCE_BITS = 64
"""What one customer is given at least (RFC 6177): its 2**64 addresses are one source."""
_ROUNDING_SECONDS = 1e-6


@attrs.frozen
class Rate:
    """`burst` at once after a rest, and `per_second` in the long run."""

    per_second: float = attrs.field(validator=gt(0.0))
    burst: int = attrs.field(validator=ge(1))

    @property
    def seconds_to_fill(self) -> float:
        """How long an empty bucket takes to be full again."""
        return self.burst / self.per_second


@attrs.frozen
class Taken:
    """The bucket afterwards, and how long to wait until the next try succeeds; 0: a token was taken."""

    full_at: float
    wait_seconds: float


def take(rate: Rate, full_at: float, now: float) -> Taken:
    """Take one token from the bucket that will be full at `full_at`, if there is one; else the bucket stays as it is.

    A bucket is known by the moment at which it is full (the generic cell rate algorithm, ITU-T I.371): one that was full before `now` is
    like one that was never used, and can be forgotten. Within any t seconds at most `burst + t * per_second` tokens are given.
    """
    after = max(full_at, now) + 1 / rate.per_second
    wait_seconds = after - now - rate.seconds_to_fill
    if wait_seconds > _ROUNDING_SECONDS:
        return Taken(full_at, wait_seconds)
    return Taken(after, 0.0)


def give_back(rate: Rate, full_at: float) -> float:
    """The bucket with one token more than it had."""
    return full_at - 1 / rate.per_second


def source_network(address: str) -> str:
    """What counts as one source: an IPv4 address, the /64 network of an IPv6 address; text that is no address stands for itself."""
    try:
        host = ip_address(address)
    except ValueError:
        return address
    mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    if isinstance(host, IPv4Address) or mapped is not None:
        return str(mapped or host)
    return str(ip_network((host.packed, IPV6_SOURCE_BITS), strict=False))
