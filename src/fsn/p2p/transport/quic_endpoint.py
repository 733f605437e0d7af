"""A UDP socket and the QUIC connections on it: many peers, told apart by the connection ids in their packets."""

import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final

import structlog
import trio
from aioquic._buffer import Buffer
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from fsn.core.errors import Unreachable
from fsn.p2p.transport.quic_connection import QuicConnection
from fsn.p2p.transport.quic_engine import CONNECTION_ID_BYTES, Engine, configuration
from fsn.p2p.transport.quic_identity import Certificate

__all__ = ["QuicEndpoint"]

MAX_HANDSHAKES: Final = 1024
"""Inbound connections that have not proved who they are yet; the first packets of more are dropped."""
FREE_HANDSHAKES: Final = 64
"""So many need not show first that they receive what is sent to their address; that costs the others a round trip (a Retry packet)."""
HANDSHAKE_SECONDS: Final = 5.0
_BATCH: Final = 64
"""Datagrams taken before their connections answer."""
_FIRST_DATAGRAM_BYTES: Final = 1200
"""RFC 9000, section 14.1: a client's first datagrams are at least so long, so that nobody can have us send more than he does."""
_LONG_HEADER: Final = 0x80
_ERROR_SECONDS: Final = 0.05

_log = structlog.get_logger("fsn.p2p")


class QuicEndpoint:
    """Connections over one socket. `receive` must be running; the connections run in the nursery that is given."""

    def __init__(
        self,
        sock: socket.socket,
        certificate: Certificate,
        nursery: trio.Nursery,
        on_connection: Callable[[QuicConnection], Awaitable[None]] | None,
    ) -> None:
        self._socket = sock
        self._nursery = nursery
        self._on_connection = on_connection
        self._client = configuration(certificate, is_client=True)
        self._server = configuration(certificate, is_client=False)
        self._by_id: dict[bytes, QuicConnection] = {}
        self._handshakes = 0
        self._retries = QuicRetryTokenHandler()

    @property
    def connection_ids(self) -> int:
        """How many ids lead to a connection now; none when there is no connection."""
        return len(self._by_id)

    async def receive(self) -> None:
        """Take datagrams until cancelled. An error of the socket is the network's; it ends nothing."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                self._take_batch()
            except OSError as error:
                _log.debug("quic_receive_failed", reason=str(error))
                await trio.sleep(_ERROR_SECONDS)

    def _take_batch(self) -> None:
        heard: set[QuicConnection] = set()
        try:
            for _ in range(_BATCH):
                data, address = self._socket.recvfrom(65_535)
                if (connection := self._connection_for(data, address)) is not None:
                    connection.on_datagram(data, address)
                    heard.add(connection)
        except BlockingIOError:
            pass
        finally:
            for connection in heard:
                connection.take_events()
                if not connection.engine.is_started:  # a first packet that was none: nothing to wait for
                    connection.close_nowait()

    def _send(self, datagrams: Iterable[tuple[bytes, Any]]) -> OSError | None:
        failure = None
        for data, address in datagrams:
            try:
                self._socket.sendto(data, address)
            except BlockingIOError:
                pass  # lost, as in any full buffer on the way
            except OSError as error:
                failure = failure or error
        return failure

    # --- dialling

    async def dial(self, address: Any) -> QuicConnection:
        """A connection to whoever proves himself at that socket address. Has no deadline. Raises `Unreachable`, `OSError`."""
        now = trio.current_time()
        engine = Engine(configuration=self._client, now=now)
        connection = self._start(engine, is_initiator=True, ids=[engine.host_cid])
        engine.connect(address, now)
        try:
            await connection.wait_established()
        except BaseException:
            connection.close_nowait()
            raise
        return connection

    # --- being dialled

    def _connection_for(self, data: bytes, address: Any) -> QuicConnection | None:
        if (
            data and not data[0] & _LONG_HEADER
        ):  # nearly all packets: a first byte, then our id (RFC 9000, section 17.3)
            return self._by_id.get(data[1 : 1 + CONNECTION_ID_BYTES])
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CONNECTION_ID_BYTES)
        except ValueError:
            return None
        known = self._by_id.get(header.destination_cid)
        if known is not None or self._on_connection is None or len(data) < _FIRST_DATAGRAM_BYTES:
            return known
        if header.version is not None and header.version not in self._server.supported_versions:
            self._say_versions(header, address)
        elif header.packet_type == QuicPacketType.INITIAL:
            return self._accepted(header, address)
        return None

    def _say_versions(self, header: QuicHeader, address: Any) -> None:
        if header.packet_type != QuicPacketType.VERSION_NEGOTIATION:
            answer = encode_quic_version_negotiation(
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=self._server.supported_versions,
            )
            self._send([(answer, address)])

    def _accepted(self, header: QuicHeader, address: Any) -> QuicConnection | None:
        """A new connection, unless the other side must show its address first, or there are too many."""
        if self._handshakes >= MAX_HANDSHAKES:
            return None
        original = header.destination_cid
        if header.token:
            try:
                original = self._retries.validate_token(
                    address=address,
                    destination_cid=header.destination_cid,
                    token=header.token,
                    now=trio.current_time(),
                )
            except ValueError:
                return None
        elif self._handshakes >= FREE_HANDSHAKES:
            self._ask_for_address(header, address)
            return None
        engine = Engine(
            configuration=self._server,
            now=trio.current_time(),
            original_destination_connection_id=original,
            retry_source_connection_id=header.destination_cid if header.token else None,
        )
        connection = self._start(engine, is_initiator=False, ids=[header.destination_cid, engine.host_cid])
        self._handshakes += 1
        self._nursery.start_soon(self._serve, connection)
        return connection

    def _ask_for_address(self, header: QuicHeader, address: Any) -> None:
        assert header.version is not None
        source = os.urandom(CONNECTION_ID_BYTES)
        token = self._retries.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source,
            now=trio.current_time(),
        )
        retry = encode_quic_retry(
            version=header.version,
            source_cid=source,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self._send([(retry, address)])

    async def _serve(self, connection: QuicConnection) -> None:
        assert self._on_connection is not None
        try:
            with trio.move_on_after(HANDSHAKE_SECONDS):
                await connection.wait_established()
        except (Unreachable, OSError) as error:
            _log.debug("inbound_connection_failed", reason=str(error))
        finally:
            self._handshakes -= 1
            if not connection.established.is_set():
                connection.close_nowait()
        if connection.is_open:
            await self._on_connection(connection)

    # --- both

    def _start(self, engine: Engine, *, is_initiator: bool, ids: Iterable[bytes]) -> QuicConnection:
        connection = QuicConnection(engine, self._send, is_initiator=is_initiator)
        connection.on_ids = partial(self._note_id, connection)
        for each in ids:
            self._by_id[each] = connection
        self._nursery.start_soon(self._drive, connection)
        return connection

    def _note_id(self, connection: QuicConnection, connection_id: bytes, is_ours: bool) -> None:
        if is_ours:
            self._by_id[connection_id] = connection
        elif self._by_id.get(connection_id) is connection:
            del self._by_id[connection_id]

    async def _drive(self, connection: QuicConnection) -> None:
        try:
            await connection.drive()
        finally:
            for each in [each for each, owner in self._by_id.items() if owner is connection]:
                del self._by_id[each]
