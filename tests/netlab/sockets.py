"""Plain sockets on hosts of a lab, for tests that ask what gets through."""

import socket
from contextlib import suppress

from scenarios.netlab.hosts import Host
from scenarios.netlab.machines import Machine

__all__ = ["listener", "reaches", "received", "udp_socket"]

PORT = 9000
PATIENCE_SECONDS = 5.0
"""For packets that should come; one that was lost is sent again meanwhile."""
SILENCE_SECONDS = 0.7
"""For packets that should not come."""


async def listener(host: Machine, port: int = PORT) -> socket.socket:
    """A TCP socket to which the kernel lets others connect."""
    return await host.in_thread(lambda: socket.create_server((host.address, port)))


async def reaches(host: Machine, address: str, port: int = PORT, *, within_seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether a TCP connection from `host` comes about."""

    def connect() -> bool:
        with suppress(OSError), socket.create_connection((address, port), within_seconds):
            return True
        return False

    return await host.in_thread(connect)


async def udp_socket(host: Host, port: int) -> socket.socket:
    """A UDP socket on a port of a host."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((host.address, port))
        return made

    return await host.in_thread(make)


def received(udp: socket.socket, within_seconds: float) -> tuple[str, int] | None:
    """Who sent the next packet; None when none comes."""
    udp.settimeout(within_seconds)
    try:
        sender: tuple[str, int] = udp.recvfrom(2000)[1]
    except TimeoutError:
        return None
    return sender
