"""Multiaddresses as text: `/ip4/192.0.2.1/tcp/4001`, `/dns4/example.org/udp/4001/quic-v1`, with or without `/p2p/<peer id>` behind."""

import ipaddress
from typing import Final

import attrs

from fsn.core.errors import Invalid
from fsn.core.ids import PeerId

__all__ = [
    "QUIC",
    "TCP",
    "Host",
    "PeerAddress",
    "format_address",
    "format_tcp_address",
    "host_of",
    "is_peer_address",
    "parse_address",
    "parse_tcp_address",
    "with_host",
]

TCP: Final = "tcp"
QUIC: Final = "quic-v1"
_HOST_PROTOCOLS: Final = frozenset({"ip4", "ip6", "dns", "dns4", "dns6"})


@attrs.frozen
class PeerAddress:
    """Where to dial: a host (IP text or name), a port, the peer id that the address promises, if it does, and over what."""

    host: str
    port: int
    peer: PeerId | None = None
    transport: str = TCP
    """`TCP` or `QUIC`."""


@attrs.frozen
class Host:
    """The machine that a multiaddress begins with: an IP text or a name."""

    name: str
    is_ip: bool


def host_of(text: str) -> Host | None:
    """The host at the beginning of a multiaddress of any transport; None where it begins with something else (`/memory/...`)."""
    match text.split("/", 3):
        case ["", kind, host, *_] if kind in _HOST_PROTOCOLS:
            return Host(host, is_ip=kind in ("ip4", "ip6"))
    return None


def with_host(text: str, ip: str) -> str:
    """The multiaddress with that IP address in the place of its host."""
    rest = text.split("/", 3)[3]
    return f"/ip{ipaddress.ip_address(ip).version}/{ip}/{rest}"


def parse_address(text: str) -> PeerAddress:
    """The parts of a TCP or QUIC multiaddress. Raises `Invalid` for every other kind (relays, websockets) and for malformed text."""
    if text.startswith("/"):
        match text.removeprefix("/").split("/"):
            case [kind, host, "tcp", port, *rest] if _is_end(rest):
                return _parsed(kind, host, port, rest, TCP, text)
            case [kind, host, "udp", port, "quic-v1", *rest] if _is_end(rest):
                return _parsed(kind, host, port, rest, QUIC, text)
    raise Invalid(
        f"an address such as /ip4/192.0.2.1/tcp/4001 or /ip4/192.0.2.1/udp/4001/quic-v1 was wanted; got {text!r}"
    )


def parse_tcp_address(text: str) -> PeerAddress:
    """The parts of a TCP multiaddress. Raises `Invalid` for every other kind."""
    address = parse_address(text)
    if address.transport != TCP:
        raise Invalid(f"a TCP address such as /ip4/192.0.2.1/tcp/4001 was wanted; got {text!r}")
    return address


def is_peer_address(text: str) -> bool:
    """Whether `parse_address` understands it."""
    try:
        parse_address(text)
    except Invalid:
        return False
    return True


def format_address(host: str, port: int, transport: str) -> str:
    """The multiaddress of an IP address and a port."""
    middle = f"tcp/{port}" if transport == TCP else f"udp/{port}/{QUIC}"
    return f"/ip{ipaddress.ip_address(host).version}/{host}/{middle}"


def format_tcp_address(host: str, port: int) -> str:
    """The TCP multiaddress of an IP address and a port."""
    return format_address(host, port, TCP)


def _is_end(rest: list[str]) -> bool:
    """Whether this is nothing, or the promise of a peer id."""
    return not rest or (len(rest) == 2 and rest[0] == "p2p" and rest[1] != "")


def _parsed(kind: str, host: str, port: str, rest: list[str], transport: str, text: str) -> PeerAddress:
    peer = PeerId(rest[1]) if rest else None
    return PeerAddress(_checked_host(kind, host, text), _checked_port(port, text), peer, transport)


def _checked_host(kind: str, host: str, text: str) -> str:
    if kind not in _HOST_PROTOCOLS or not host:
        raise Invalid(f"an address must begin with /ip4/, /ip6/ or /dns/; got {text!r}")
    if kind in ("ip4", "ip6") and not _is_ip(host, version=int(kind[-1])):
        raise Invalid(f"{host!r} is no {kind} address, in {text!r}")
    return host


def _is_ip(host: str, *, version: int) -> bool:
    try:
        return ipaddress.ip_address(host).version == version
    except ValueError:
        return False


def _checked_port(port: str, text: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise Invalid(f"a port must be 0..65535; got {text!r}")
    return int(port)
