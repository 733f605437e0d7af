"""The kernel's table of connections, read and emptied by netlink: the file in /proc is for root alone, also in a namespace of one's own."""

import socket
import struct
from collections.abc import Iterator
from typing import Final

import attrs

__all__ = ["Flow", "flows", "flush"]

_NETLINK_NETFILTER: Final = 12
_CTNETLINK: Final = 1 << 8
_GET, _DELETE = _CTNETLINK | 1, _CTNETLINK | 2
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_FAMILY: Final = bytes(4)
"""Any address family, version 0, resource 0."""
# numbers of attributes, each within the one before
_TUPLE_ORIGINAL, _TUPLE_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_IP_SOURCE, _IP_TARGET = 1, 2
_PROTOCOL_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3

Endpoint = tuple[str, int]


@attrs.frozen
class Flow:
    """A connection that a router keeps track of: from whom to whom, and as whom the sender appears outside."""

    protocol: int
    """17 for UDP, 6 for TCP."""
    source: Endpoint
    target: Endpoint
    outside: Endpoint


def flush() -> None:
    """`conntrack -F` for the calling thread's namespace, without that program. Raises OSError."""
    for _ in _ask(_DELETE, _REQUEST | _ACK):
        pass


def flows() -> list[Flow]:
    """What the calling thread's namespace keeps track of. Raises OSError."""
    return [_flow(dict(_attributes(message[len(_FAMILY) :]))) for message in _ask(_GET, _REQUEST | _DUMP)]


def _ask(kind: int, flags: int) -> Iterator[bytes]:
    """The messages of the answer, without their headers, to the end."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(10.0)
        netlink.send(_HEADER.pack(_HEADER.size + len(_FAMILY), kind, flags, 1, 0) + _FAMILY)
        while True:
            for answer, message in _messages(netlink.recv(1 << 17)):
                if answer == _ERROR and (error := struct.unpack_from("=i", message)[0]):
                    raise OSError(-error, "the kernel refuses its table of connections")
                if answer in (_ERROR, _DONE):
                    return
                yield message


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        size, kind, *_ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : size]
        data = data[_aligned(size) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        size, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : size]  # without the flags "nested" and "big endian"
        data = data[_aligned(size) :]


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def _flow(found: dict[int, bytes]) -> Flow:
    protocol, source, target = _tuple(found[_TUPLE_ORIGINAL])
    _, _, outside = _tuple(found[_TUPLE_REPLY])  # answers go to the sender's outside address
    return Flow(protocol, source, target, outside)


def _tuple(data: bytes) -> tuple[int, Endpoint, Endpoint]:
    parts = dict(_attributes(data))
    ip, protocol = dict(_attributes(parts[_TUPLE_IP])), dict(_attributes(parts[_TUPLE_PROTOCOL]))
    source, target = (
        (socket.inet_ntoa(ip[address]), int.from_bytes(protocol.get(port, b"")))
        for address, port in ((_IP_SOURCE, _SOURCE_PORT), (_IP_TARGET, _TARGET_PORT))
    )
    return protocol[_PROTOCOL_NUMBER][0], source, target
