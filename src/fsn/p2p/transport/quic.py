"""QUIC for a transport: the socket that listens, others to dial from where that one cannot, and names to socket addresses.

Imports aioquic: only the door in `libp2p.py` imports this module, when a transport is opened.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, Final

import trio

from fsn.core.errors import Unreachable
from fsn.core.ids import PeerId
from fsn.p2p.transport.addresses import QUIC, PeerAddress, format_address
from fsn.p2p.transport.quic_connection import QuicConnection
from fsn.p2p.transport.quic_endpoint import QuicEndpoint
from fsn.p2p.transport.quic_identity import make_certificate
from fsn.p2p.transport.sockets import open_udp_socket
from fsn.runtime.identity import Identity

__all__ = ["QuicSockets", "dial_as_stranger", "quic_address"]

_EVERY_INTERFACE: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - to dial from
_RESOLVED_AT_MOST: Final = 4
_TRY_SECONDS: Final = 3.0
"""As for TCP (`sockets`): whoever is at the other end may have begun with a try whose answers were lost."""

OnConnection = Callable[[QuicConnection], Awaitable[None]]


def quic_address(listener: socket.socket) -> str:
    """The multiaddress that a UDP socket listens on."""
    host, port = listener.getsockname()[:2]
    return format_address(host, port, QUIC)


class QuicSockets:
    """All QUIC of a transport. One socket serves all peers of its kind; dials leave from the listening port where that is possible.

    `sockets` closes those that are opened to dial from; it must outlive the nursery, for connections say goodbye when they end.
    """

    def __init__(
        self,
        identity: Identity,
        listener: socket.socket,
        sockets: ExitStack,
        nursery: trio.Nursery,
        on_connection: OnConnection,
    ) -> None:
        self._sockets = sockets
        self._nursery = nursery
        self._certificate = make_certificate(identity)
        self._listener = listener
        self._listen_host = str(listener.getsockname()[0])
        self._listening = QuicEndpoint(listener, self._certificate, nursery, on_connection)
        nursery.start_soon(self._listening.receive)
        self._dialling: dict[socket.AddressFamily, QuicEndpoint] = {}
        if ipaddress.ip_address(self._listen_host).is_unspecified:
            self._dialling[listener.family] = self._listening

    @property
    def endpoints(self) -> list[QuicEndpoint]:
        """Every socket's connections."""
        return list(dict.fromkeys([self._listening, *self._dialling.values()]))

    async def dial(self, peer: PeerId, target: PeerAddress) -> QuicConnection:
        """A connection to that peer. Has no deadline. Raises `Unreachable`."""
        try:
            found = await _resolved(target)
        except OSError as error:
            raise Unreachable(str(error)) from error
        reasons = []
        for family, address in found:
            try:
                endpoint, reachable_as = self._endpoint_for(family, address)
                return await _proved(await _dialled(endpoint, reachable_as), peer)
            except (Unreachable, OSError) as error:
                reasons.append(str(error))
        raise Unreachable("; ".join(reasons) or "the name has no address")

    def _endpoint_for(self, family: socket.AddressFamily, address: Any) -> tuple[QuicEndpoint, Any]:
        """The endpoint to dial from, and the address as its socket says it. Raises `OSError`."""
        if family == socket.AF_INET and self._listen_host == "::":
            return self._listening, (f"::ffff:{address[0]}", address[1], 0, 0)
        if (endpoint := self._dialling.get(family)) is None:
            sock = self._sockets.enter_context(open_udp_socket(family, _EVERY_INTERFACE[family], 0))
            endpoint = self._dialling[family] = QuicEndpoint(sock, self._certificate, self._nursery, None)
            self._nursery.start_soon(endpoint.receive)
        return endpoint, address


async def dial_as_stranger(target: PeerAddress) -> PeerId:
    """Who answers at an address, asked over a socket and under an identity of its own. The caller sets the deadline.

    Raises `OSError` when the network does not get there, `Unreachable` when what is there does not prove itself.
    """
    family, address = (await _resolved(target))[0]
    with open_udp_socket(family, _EVERY_INTERFACE[family], 0) as sock:
        async with trio.open_nursery() as nursery:
            endpoint = QuicEndpoint(sock, make_certificate(Identity.generate()), nursery, None)
            nursery.start_soon(endpoint.receive)
            try:
                connection = await endpoint.dial(address)
                connection.close_nowait()
                return connection.peer
            finally:
                nursery.cancel_scope.cancel()


async def _resolved(target: PeerAddress) -> list[tuple[socket.AddressFamily, Any]]:
    """The first few socket addresses of a name, at least one. Raises `OSError`."""
    found = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
    if not found:
        raise OSError(f"{target.host} has no address")
    return [(family, address) for family, _, _, _, address in found[:_RESOLVED_AT_MOST]]


async def _dialled(endpoint: QuicEndpoint, address: Any) -> QuicConnection:
    """A connection, however often that must be tried."""
    while True:
        with trio.move_on_after(_TRY_SECONDS):
            return await endpoint.dial(address)


async def _proved(connection: QuicConnection, peer: PeerId) -> QuicConnection:
    """The connection, if that is its peer; else it is closed. Raises `Unreachable`."""
    if connection.peer != peer:
        await connection.aclose()
        raise Unreachable(f"the address answers as {connection.peer}")
    return connection
