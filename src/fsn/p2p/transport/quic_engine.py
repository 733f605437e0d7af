"""aioquic's QUIC state machine, with windows that follow the reader, a client certificate, and a record of when it heard of the peer.

aioquic doubles every window as bytes arrive, read or not, so that nothing bounds what a slow reader must keep: stock py-libp2p throws
away what is more than 2 MiB ahead of its reader (docs/decisions, "QUIC beside TCP"). Imports aioquic, and uses private names of it: the
version is checked with py-libp2p's (`hardening.VERSIONS`).
"""

import ssl
from typing import Any, Final

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicReceiveContext
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography import x509

from fsn.p2p.transport.quic_identity import Certificate

__all__ = ["CONNECTION_WINDOW_BYTES", "FIRST_WINDOW_BYTES", "MAX_STREAMS", "Engine", "configuration"]

FIRST_WINDOW_BYTES: Final = 64 * 1024
"""What a new stream may receive ahead of its reader."""
CONNECTION_WINDOW_BYTES: Final = 768 * 1024
"""What may be on the way to us on all streams of a connection together."""
MAX_STREAMS: Final = 256
"""Streams that the peer may have open at a time."""
_DATAGRAM_BYTES: Final = 1232
"""Fits the smallest IPv6 link (1280) with its headers, so that no tunnel on the way cuts or drops it."""
_IDLE_SECONDS: Final = 30.0
"""aioquic's own time-out, behind our liveness (`quic_connection`)."""
CONNECTION_ID_BYTES: Final = 8
ALPN: Final = "libp2p"


def configuration(certificate: Certificate, *, is_client: bool) -> QuicConfiguration:
    """Settings of one side. Who the peer is, is proved by `quic_identity.peer_of`, not by a chain of certificates."""
    return QuicConfiguration(
        alpn_protocols=[ALPN],
        certificate=certificate.certificate,
        private_key=certificate.key,
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=_IDLE_SECONDS,
        is_client=is_client,
        max_data=CONNECTION_WINDOW_BYTES,
        max_datagram_size=_DATAGRAM_BYTES,
        max_stream_data=FIRST_WINDOW_BYTES,
        supported_versions=[QuicProtocolVersion.VERSION_1],
        verify_mode=ssl.CERT_NONE,
    )


class Engine(QuicConnection):
    """One connection's state machine; without I/O."""

    def __init__(self, *, now: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.last_heard = now
        """When the last genuine packet came: not any datagram that somebody has sent to our port."""
        # Twice as many as are served: aioquic grants more only when the peer has used half, and ids that a peer has taken without
        # sending anything count here for nothing.
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = 2 * MAX_STREAMS
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = 0  # nobody opens any in libp2p

    # --- what aioquic keeps to itself

    @property
    def is_started(self) -> bool:
        """Whether a first packet was genuine. Until then there is nothing to answer."""
        return self._is_client or self._peer_cid.sequence_number is not None

    @property
    def is_ending(self) -> bool:
        """Whether either side has closed the connection; aioquic tells by an event only once the closing period is over."""
        return self._close_event is not None

    @property
    def end_reason(self) -> str:
        """Why, as the one who closed it says."""
        event = self._close_event
        return "" if event is None else event.reason_phrase or f"error {event.error_code:#x}"

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """What the peer has shown in the handshake and proved to have the key of."""
        return self.tls._peer_certificate

    @property
    def may_open_stream(self) -> bool:
        """Whether the peer takes one stream more just now."""
        return self.get_next_available_stream_id() // 4 < self._remote_max_streams_bidi

    def stream(self, stream_id: int) -> QuicStream | None:
        """aioquic's part of a stream; None before its first byte and after both its ends were acknowledged."""
        return self._streams.get(stream_id)

    def unsent_bytes(self, stream_id: int | None = None) -> int:
        """What was written and not acknowledged yet, on one stream or on all."""
        if stream_id is None:
            return sum(_pending(stream) for stream in self._streams.values())
        stream = self._streams.get(stream_id)
        return 0 if stream is None else _pending(stream)

    def sendable_bytes(self, stream_id: int) -> int:
        """How much more the peer's window of this stream takes."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.max_stream_data_remote - stream.sender._buffer_stop

    def grant(self, stream_id: int, limit: int) -> None:
        """Let the peer send up to this offset of a stream."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            stream.max_stream_data_local = max(stream.max_stream_data_local, limit)

    # --- what is different

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._request_client_certificate = not self._is_client

    def handle_timer(self, now: float) -> None:
        super().handle_timer(now)
        if self._is_client and not self._handshake_complete:
            # A network that is back is used at once only if somebody knocks: twice a second, not after 1, 2, 5 s and more.
            self._loss._pto_count = min(self._loss._pto_count, 1)

    def _payload_received(self, context: QuicReceiveContext, *args: Any, **arguments: Any) -> tuple[bool, bool]:
        self.last_heard = context.time
        return super()._payload_received(context, *args, **arguments)

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        # The window is raised by `grant` alone: aioquic would double it by what has arrived, so nothing has, for the moment.
        arrived, stream.receiver.highest_offset = stream.receiver.highest_offset, 0
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            stream.receiver.highest_offset = arrived

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        # The connection's window follows what has arrived and bounds what is on the way; what waits for readers is bounded by the
        # windows of the streams. Were it to follow the readers, a few streams that nobody reads would hold up all others.
        limit = self._local_max_data
        if limit.value - limit.used <= CONNECTION_WINDOW_BYTES // 2:
            limit.value = limit.used + CONNECTION_WINDOW_BYTES
        arrived, limit.used = limit.used, 0
        try:
            super()._write_connection_limits(builder, space)
        finally:
            limit.used = arrived


def _pending(stream: QuicStream) -> int:
    sender = stream.sender
    return 0 if sender._reset_error_code is not None else sender._buffer_stop - sender._buffer_start
