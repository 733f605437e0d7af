"""TCP multiaddresses as text: `/ip4/192.0.2.1/tcp/4001`, `/dns4/example.org/tcp/4001`, with or without `/p2p/<peer id>` behind."""

import ipaddress
from typing import Final

import attrs

from fsn.core.errors import Invalid
from fsn.core.ids import PeerId

__all__ = ["TcpAddress", "format_tcp_address", "is_tcp_address", "parse_tcp_address"]

_HOST_PROTOCOLS: Final = frozenset({"ip4", "ip6", "dns", "dns4", "dns6"})


@attrs.frozen
class TcpAddress:
    """Where to dial: a host (IP text or name), a port, and the peer id that the address promises, if it does."""

    host: str
    port: int
    peer: PeerId | None = None


def parse_tcp_address(text: str) -> TcpAddress:
    """The parts of a TCP multiaddress. Raises `Invalid` for every other kind (QUIC, relays, websockets) and for malformed text."""
    match text.removeprefix("/").split("/"):
        case [kind, host, "tcp", port] if text.startswith("/"):
            return TcpAddress(_checked_host(kind, host, text), _checked_port(port, text))
        case [kind, host, "tcp", port, "p2p", peer] if text.startswith("/") and peer:
            return TcpAddress(_checked_host(kind, host, text), _checked_port(port, text), PeerId(peer))
    raise Invalid(f"a TCP address such as /ip4/192.0.2.1/tcp/4001 was wanted; got {text!r}")


def is_tcp_address(text: str) -> bool:
    """Whether `parse_tcp_address` understands it."""
    try:
        parse_tcp_address(text)
    except Invalid:
        return False
    return True


def format_tcp_address(host: str, port: int) -> str:
    """The multiaddress of an IP address and a port."""
    return f"/ip{ipaddress.ip_address(host).version}/{host}/tcp/{port}"


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
