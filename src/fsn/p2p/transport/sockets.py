"""Sockets: exclusive listeners, and the options by which the kernel notices a dead network."""

import ipaddress
import socket
from contextlib import suppress
from typing import Final

import trio

from fsn.core.errors import ConfigError

__all__ = ["open_listener", "open_stream", "open_udp_listener", "open_udp_socket", "tune"]

_BACKLOG: Final = 512
_TRY_SECONDS: Final = 3.0
"""A network that is back is used at once only if somebody knocks: the kernel repeats a lost SYN after 1, 3, 7, 15 s (since Linux 6.5 five
times each second, then likewise), a new try begins anew."""
_UDP_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Asked for; the kernel gives what `net.core.rmem_max` allows. What does not fit is lost and sent again."""

# With these an idle or busy connection over a silently cut network was given up after 7-10 s in a network-namespace laboratory;
# without them never. USER_TIMEOUT looks at progress, so that it spares a healthy but slow link, where a timed ping killed one
# that was busy with 6 MB on a 1 Mbit uplink.
_OPTIONS: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 7000),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 4),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 2),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
)


def tune(stream: trio.SocketStream) -> None:
    """Set what the platform has of the options above; a connection that is gone already is left alone."""
    for level, name, value in _OPTIONS:
        if (option := getattr(socket, name, None)) is not None:
            try:
                stream.setsockopt(level, option, value)
            except OSError:
                return


async def open_listener(host: str, port: int) -> trio.SocketListener:
    """Listen on one IP address. Raises `ConfigError` when the port is taken or the address is not ours.

    Ours, because py-libp2p's listener sets SO_REUSEPORT: two daemons on one port both start, and share the connections. Without
    it the kernel refuses, also when the other one has set it.
    """
    family = _family(host)
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        await sock.bind((host, port))
        sock.listen(_BACKLOG)
    except BaseException as error:
        sock.close()
        if not isinstance(error, OSError):
            raise
        raise ConfigError(f"cannot listen on TCP port {port} of {host}: {error.strerror or error}") from error
    return trio.SocketListener(sock)


async def open_stream(host: str, port: int) -> trio.SocketStream:
    """Connect, however often that must be tried; the caller sets the deadline. Raises OSError when somebody refuses."""
    while True:
        with trio.move_on_after(_TRY_SECONDS):
            return await trio.open_tcp_stream(host, port)


def open_udp_listener(host: str, port: int | None, like: int) -> socket.socket:
    """A UDP socket for QUIC on one IP address: on `port`, or, when that is None or 0, on the number `like` if it is free, else on any.

    Raises `ConfigError` when a port that was asked for is taken, or there is no UDP.
    """
    if not port:
        with suppress(OSError):
            return open_udp_socket(_family(host), host, like)
    try:
        return open_udp_socket(_family(host), host, port or 0)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on UDP port {port or 0} of {host} for QUIC: {error.strerror or error}; "
            "take another quic_port, or set quic = false"
        ) from error


def open_udp_socket(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    """A UDP socket for QUIC that does not block and shares its port with nobody. Raises `OSError`."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _UDP_BUFFER_BYTES)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
