"""Two QUIC connections joined by a wire inside the process, which loses what it is told to: no sockets, any clock."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from fsn.p2p.transport.quic_connection import QuicConnection
from fsn.p2p.transport.quic_engine import Engine, configuration
from fsn.p2p.transport.quic_identity import Certificate, make_certificate
from fsn.runtime.identity import Identity

CLIENT, SERVER = ("192.0.2.1", 1), ("192.0.2.2", 2)
Verdict = Callable[[bytes], bool]


def everything(data: bytes) -> bool:
    """Let every datagram through."""
    return True


@attrs.define(eq=False)
class Wire:
    """The two ends, and what gets through in each direction."""

    nursery: trio.Nursery
    client: QuicConnection = attrs.field(init=False)
    server: QuicConnection = attrs.field(init=False)
    lets_up: Verdict = everything
    lets_down: Verdict = everything
    sent: list[int] = attrs.field(factory=lambda: [0, 0])
    """Datagrams up (to the server) and down."""

    def cut(self) -> None:
        """From now on nothing arrives anywhere, and nobody is told."""
        self.lets_up = self.lets_down = lambda data: False

    def up(self, datagrams: Iterable[tuple[bytes, Any]]) -> None:
        """What the client sends."""
        for data, _ in datagrams:
            self.sent[0] += 1
            if self.lets_up(data):
                self.nursery.start_soon(self._arrive, "server", data, CLIENT)

    def down(self, datagrams: Iterable[tuple[bytes, Any]]) -> None:
        """What the server sends."""
        for data, _ in datagrams:
            self.sent[1] += 1
            if self.lets_down(data):
                self.nursery.start_soon(self._arrive, "client", data, SERVER)

    async def _arrive(self, end: str, data: bytes, address: Any) -> None:
        connection: QuicConnection = getattr(self, end)
        connection.on_datagram(data, address)
        connection.take_events()


@asynccontextmanager
async def open_wire(
    client: Certificate | None = None, server: Certificate | None = None, *, is_driven: bool = True
) -> AsyncIterator[Wire]:
    """Two ends that know nothing of each other yet; driven, the handshake begins at once."""
    async with trio.open_nursery() as nursery:
        wire, now = Wire(nursery), trio.current_time()
        client = client or make_certificate(Identity.generate())
        server = server or make_certificate(Identity.generate())
        dialling = Engine(configuration=configuration(client, is_client=True), now=now)
        listening = Engine(
            configuration=configuration(server, is_client=False),
            now=now,
            original_destination_connection_id=dialling.original_destination_connection_id,
        )
        wire.client = QuicConnection(dialling, wire.up, is_initiator=True)
        wire.server = QuicConnection(listening, wire.down, is_initiator=False)
        dialling.connect(SERVER, now)
        if is_driven:
            nursery.start_soon(wire.client.drive)
            nursery.start_soon(wire.server.drive)
        yield wire
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_connected() -> AsyncIterator[Wire]:
    """The same, with both ends proved to each other."""
    async with open_wire() as wire:
        await wire.client.wait_established()
        await wire.server.wait_established()
        yield wire
