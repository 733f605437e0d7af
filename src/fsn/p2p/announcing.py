"""What we tell others about where we listen."""

import ipaddress
from collections.abc import Sequence

from fsn.core.errors import Invalid
from fsn.p2p.transport.addresses import TcpAddress, format_tcp_address, parse_tcp_address

__all__ = ["announced_addresses", "tcp_port_of"]


def announced_addresses(listening: Sequence[str], host: str) -> tuple[str, ...]:
    """Our addresses for somebody who reached us under `host` (a name or IP, perhaps with a port; "" when unknown).

    An address that means "every interface" is of no use to others: in its place comes `host`, or nothing.
    """
    found = []
    for text in listening:
        address = _tcp_address(text)
        if address is None or not ipaddress.ip_address(address.host).is_unspecified:
            found.append(text)
        elif name := _name_of(host):
            found.append(_format(name, address.port))
    return tuple(found)


def tcp_port_of(listening: Sequence[str]) -> int | None:
    """The port of the first TCP address; None for transports that have no ports."""
    return next((address.port for address in map(_tcp_address, listening) if address is not None), None)


def _tcp_address(text: str) -> TcpAddress | None:
    try:
        return parse_tcp_address(text)
    except Invalid:
        return None


def _name_of(host: str) -> str:
    """The host of an HTTP Host header, without its port and brackets; "" when it cannot be one."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name = host.partition(":")[0]
    return name if name.replace("-", "").replace(".", "").isalnum() and name.isascii() else ""


def _format(name: str, port: int) -> str:
    try:
        return format_tcp_address(name, port)
    except ValueError:
        return f"/dns/{name}/tcp/{port}"
