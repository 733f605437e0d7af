"""What we tell others about where we listen."""

import ipaddress
import re
from collections.abc import Collection, Sequence

from fsn.core.errors import Invalid
from fsn.p2p.transport.addresses import QUIC, TCP, PeerAddress, parse_address

__all__ = ["announced_addresses", "published_addresses", "quic_port_of", "tcp_port_of"]

_BRACKETED = re.compile(r"\[([0-9a-fA-F:.]+)\](?::[0-9]*)?")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")


def announced_addresses(listening: Sequence[str], host: str) -> tuple[str, ...]:
    """Our addresses for somebody who reached us under `host` (a name or IP, perhaps with a port; "" when unknown).

    An address that means "every interface" is of no use to others: in its place comes `host`, or nothing.
    """
    found = []
    for text in listening:
        address = _address(text)
        if address is None or not _is_every_interface(address.host):
            found.append(text)
        elif kind_and_name := _told(host):
            found.append(f"/{kind_and_name}/" + text.removeprefix("/").split("/", 2)[2])
    return tuple(found)


def published_addresses(listening: Sequence[str], interfaces: Collection[str]) -> tuple[str, ...]:
    """Our addresses for anybody: one that means "every interface" becomes one for each address of `interfaces` that others could use."""
    usable = [ip for ip in map(_ip, sorted(interfaces)) if ip is not None and not (ip.is_loopback or ip.is_link_local)]
    found: list[str] = []
    for text in listening:
        address = _address(text)
        if address is None or (every := _ip(address.host)) is None or not every.is_unspecified:
            found.append(text)
        else:
            rest = text.removeprefix("/").split("/", 2)[2]
            found.extend(f"/ip{ip.version}/{ip}/{rest}" for ip in usable if every.version == 6 or ip.version == 4)
    return tuple(found)


def tcp_port_of(listening: Sequence[str]) -> int | None:
    """The port of the first TCP address; None for transports that have no ports."""
    return _port_of(listening, TCP)


def quic_port_of(listening: Sequence[str]) -> int | None:
    """The UDP port of the first QUIC address; None without one."""
    return _port_of(listening, QUIC)


def _port_of(listening: Sequence[str], transport: str) -> int | None:
    found = (address for address in map(_address, listening) if address is not None)
    return next((address.port for address in found if address.transport == transport), None)


def _address(text: str) -> PeerAddress | None:
    try:
        return parse_address(text)
    except Invalid:
        return None


def _is_every_interface(host: str) -> bool:
    ip = _ip(host)
    return ip is not None and ip.is_unspecified


def _told(host: str) -> str:
    """A Host header as the beginning of a multiaddress, e.g. "ip4/192.0.2.1" or "dns/example.org"; "" when it cannot be one.

    Whoever asks writes that header: nothing but an address or a name gets through. Names of containers have underscores.
    """
    bracketed = _BRACKETED.fullmatch(host)
    name = bracketed[1] if bracketed else host.partition(":")[0]
    if (ip := _ip(name)) is not None:
        return f"ip{ip.version}/{name}"
    return f"dns/{name}" if not bracketed and _NAME.fullmatch(name) else ""


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
