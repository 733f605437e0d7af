"""Where a request comes from: the other end of the connection, or what a proxy that we trust says of it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from fsn.core.errors import ConfigError

__all__ = ["Network", "client_address", "is_trusted", "parse_networks"]

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """`10.0.0.0/8`, `2001:db8::/32`, or single addresses. Raises ConfigError for what is none."""
    return tuple(_parse_network(text) for text in texts)


def _parse_network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigError(f"an address or a network like 10.0.0.0/8 is wanted; got {text!r}: {error}") from error


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The address that asks: `peer`, unless that is a trusted proxy; then the last one in X-Forwarded-For that is none.

    Each proxy appends the address that it was asked from, so the list is read from its end, and no further than the first address that we
    do not trust: what stands before it, the client may have written itself. So is an entry that is no address; its writer is taken.
    """
    found = _parse(peer)
    if found is None or not _is_trusted(found, trusted):
        return peer
    for entry in reversed(forwarded_for.split(",")):
        said = _parse(entry.strip())
        if said is None:
            break
        found = said
        if not _is_trusted(found, trusted):
            break
    return str(found)


def is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    """Whether the other end of a connection is one of these proxies."""
    found = _parse(address) if trusted else None
    return found is not None and _is_trusted(found, trusted)


def _is_trusted(address: _Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _parse(text: str) -> _Address | None:
    """An address, also with a port (`192.0.2.1:4711`, `[2001:db8::1]:4711`), which some proxies add."""
    host = text
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
