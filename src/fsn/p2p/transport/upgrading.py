"""py-libp2p's interfaces around our Noise session, our Yamux and our QUIC: what its upgrader puts in place of its own.

The handshake is py-libp2p's; everything after it is ours. Imports py-libp2p (1.9 s, 83 MB): only the door in `libp2p.py`
imports this module, when a transport is opened.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol

import trio
from libp2p.abc import IMuxedConn, IMuxedStream, IRawConnection, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import IOException
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.base_session import BaseSession
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF, MuxedStreamReset
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from fsn.core.ids import PeerId
from fsn.p2p.transport.addresses import QUIC, TCP, format_address, format_tcp_address
from fsn.p2p.transport.noise import MAX_PLAINTEXT_BYTES, CipherState, NoiseSession
from fsn.p2p.transport.quic_connection import QuicConnection
from fsn.p2p.transport.quic_stream import QuicStream
from fsn.p2p.transport.yamux import YamuxConnection
from fsn.p2p.transport.yamux_stream import YamuxStream

__all__ = [
    "MuxedConnection",
    "MuxedStream",
    "Muxer",
    "NoiseUpgrade",
    "PeerStream",
    "QuicMuxedConnection",
    "RawStream",
    "SecuredConnection",
    "TcpConnection",
]

PeerStream = YamuxStream | QuicStream

_MAX_READ_BYTES: Final = 65_535
"""What py-libp2p may ask for at once: a Noise message. More is a stranger's word for the length of a line (defect B18)."""


class RawStream(TrioTCPStream):
    """A TCP connection as py-libp2p sees it until the handshake is over."""

    async def read(self, n: int | None = None) -> bytes:
        _check_wanted(n)
        return await super().read(n)


class NoiseUpgrade(NoiseTransport):
    """py-libp2p's Noise handshake, then our session."""

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        return SecuredConnection(await super().secure_inbound(conn), conn)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        return SecuredConnection(await super().secure_outbound(conn, peer_id), conn)


class SecuredConnection(BaseSession):
    """Our Noise session as py-libp2p sees it while it negotiates the multiplexer; then Yamux takes the session over."""

    def __init__(self, handshaken: ISecureConn, raw: IRawConnection) -> None:
        assert isinstance(handshaken, SecureSession)
        super().__init__(
            local_peer=handshaken.local_peer,
            local_private_key=handshaken.local_private_key,
            remote_peer=handshaken.remote_peer,
            remote_permanent_pubkey=handshaken.remote_permanent_pubkey,
            is_initiator=handshaken.is_initiator,
        )
        self._session = _session_after(handshaken, _tcp_stream(raw))
        self._remote = _remote_address(_tcp_stream(raw))
        self.local_address = _local_address(_tcp_stream(raw))
        self._unread: deque[bytes] = deque()

    def take_session(self) -> "BufferedSession":
        """The session with what was received and not read yet; this object must not be read from or written to afterwards."""
        return BufferedSession(self._session, self._unread)

    async def read(self, n: int | None = None) -> bytes:
        """Exactly `n` bytes (py-libp2p's contract for secure sessions); fewer only at the end. Without `n`, one message."""
        _check_wanted(n)
        if n is None or n < 0:
            return await self._next_message()
        data = b""
        while len(data) < n:
            message = await self._next_message()
            if not message:
                break
            missing = n - len(data)
            data += message[:missing]
            if len(message) > missing:
                self._unread.appendleft(message[missing:])
        return data

    async def _next_message(self) -> bytes:
        if not self._unread:
            try:
                self._unread.extend(await self._session.receive_messages())
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise IOException(str(error)) from error
        return self._unread.popleft() if self._unread else b""

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        parts = [view[start : start + MAX_PLAINTEXT_BYTES] for start in range(0, len(view), MAX_PLAINTEXT_BYTES)]
        try:
            await self._session.send_parts(parts)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise IOException(str(error)) from error

    async def close(self) -> None:
        await self._session.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._remote

    def get_transport_addresses(self) -> list[Multiaddr]:
        return [Multiaddr(format_tcp_address(*self._remote))] if self._remote else []

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT


class BufferedSession:
    """A `SecuredSession` that first yields messages received earlier."""

    def __init__(self, session: NoiseSession, unread: deque[bytes]) -> None:
        self._unread = unread
        self._session = session
        self.send_parts = session.send_parts
        self.aclose = session.aclose

    async def receive_messages(self) -> list[bytes]:
        """As `NoiseSession.receive_messages`."""
        if self._unread:
            await trio.lowlevel.checkpoint()
            messages = list(self._unread)
            self._unread.clear()
            return messages
        return await self._session.receive_messages()


class Muxer(MuxerMultistream):
    """py-libp2p's negotiation of the multiplexer, then ours. Needed because its `new_conn` builds its own Yamux whatever it is told."""

    def __init__(self) -> None:
        super().__init__({TProtocol(YAMUX_ID): TcpConnection})

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        return self._annotate_connection(TcpConnection(conn, peer_id), conn, protocol)


class Multiplexed(Protocol):
    """What carries streams to a peer: `yamux.YamuxConnection`, `quic_connection.QuicConnection`."""

    peer: PeerId
    closed: trio.Event

    @property
    def is_open(self) -> bool:
        """Whether streams can be opened."""

    async def run(self) -> None:
        """Stay until the connection is over."""

    async def open_stream(self) -> PeerStream:
        """A new stream to the peer."""

    async def accept_stream(self) -> PeerStream:
        """The next stream that the peer opened."""

    async def wait_idle(self) -> None:
        """Return when no stream is left on it, or it is gone."""

    async def aclose(self) -> None:
        """Send what is queued, then end the connection."""


class MuxedConnection(IMuxedConn):
    """A connection of ours as py-libp2p's swarm sees it."""

    on_close: Callable[[], Awaitable[None]] | None = None
    """Set by the swarm: how it hears of the end."""

    def __init__(self, session: Multiplexed, peer_id: ID, *, is_initiator: bool) -> None:
        self.session = session
        self.peer_id = peer_id
        self.event_started = trio.Event()
        self.opened_at = trio.current_time()
        self._is_initiator = is_initiator

    @property
    def is_initiator(self) -> bool:
        return self._is_initiator

    @property
    @abstractmethod
    def carrier(self) -> str:
        """`addresses.TCP` or `addresses.QUIC`."""

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and self.session.is_open

    @property
    def is_closed(self) -> bool:
        return self.session.closed.is_set()

    async def start(self) -> None:
        """Runs as a task of the swarm, whose nursery must never see an exception (defect B1)."""
        self.event_started.set()
        try:
            await self.session.run()
        finally:
            with trio.move_on_after(5, shield=True):
                if self.on_close is not None:
                    await self.on_close()

    async def close(self) -> None:
        await self.session.aclose()

    async def wait_idle(self) -> None:
        """Return when no stream is left on it, or it is gone."""
        await self.session.wait_idle()

    async def open_stream(self) -> IMuxedStream:
        return MuxedStream(await self.session.open_stream(), self)

    async def accept_stream(self) -> IMuxedStream:
        try:
            return MuxedStream(await self.session.accept_stream(), self)
        except trio.EndOfChannel as error:
            raise MuxedConnUnavailable("the connection is closed") from error

    @abstractmethod
    def get_remote_address(self) -> tuple[str, int] | None:
        """IP text and port of the other side."""

    @abstractmethod
    def get_local_address(self) -> str | None:
        """IP text of our side; None when the connection hangs on none."""

    def get_transport_addresses(self) -> list[Multiaddr]:
        remote = self.get_remote_address()
        return [Multiaddr(format_address(*remote, self.carrier))] if remote else []

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT


class TcpConnection(MuxedConnection):
    """Yamux over Noise over TCP."""

    def __init__(self, conn: ISecureConn, peer_id: ID) -> None:
        assert isinstance(conn, SecuredConnection)
        session = YamuxConnection(conn.take_session(), peer=PeerId(str(peer_id)), is_initiator=conn.is_initiator)
        super().__init__(session, peer_id, is_initiator=conn.is_initiator)
        self.secured_conn = conn

    @property
    def carrier(self) -> str:
        return TCP

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.secured_conn.get_remote_address()

    def get_local_address(self) -> str | None:
        return self.secured_conn.local_address


class QuicMuxedConnection(MuxedConnection):
    """QUIC, which is secured and multiplexed by itself."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic, ID.from_string(quic.peer), is_initiator=quic.is_initiator)
        self.quic = quic

    @property
    def carrier(self) -> str:
        return QUIC

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.quic.remote

    def get_local_address(self) -> str | None:
        return None  # it goes on from whatever address the machine has


class MuxedStream(IMuxedStream):
    """A stream of ours as py-libp2p's own protocols see it (negotiation, identify, ping)."""

    def __init__(self, stream: PeerStream, connection: MuxedConnection) -> None:
        self.stream = stream
        self.muxed_conn: MuxedConnection = connection

    async def read(self, n: int | None = None) -> bytes:
        _check_wanted(n)
        if n == 0:
            return b""
        try:
            data = await self.stream.receive_some(n if n is not None and n > 0 else None)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise MuxedStreamReset(str(error)) from error
        if not data:
            raise MuxedStreamEOF("the peer has ended the stream")
        return data

    async def write(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise MuxedStreamReset(str(error)) from error

    async def close(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.send_eof()

    async def reset(self) -> None:
        # The swarm resets the streams of a lost connection; their users are to hear that they broke, not that they closed them.
        if self.muxed_conn.session.is_open:
            self.stream.close_nowait()
        await trio.lowlevel.checkpoint()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("deadlines are trio's cancel scopes")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.muxed_conn.get_remote_address()

    async def __aenter__(self) -> IMuxedStream:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()


def _check_wanted(size: int | None) -> None:
    if size is not None and size > _MAX_READ_BYTES:
        raise IOException(f"at most {_MAX_READ_BYTES} bytes may be announced here; got {size}")


def _session_after(handshaken: SecureSession, stream: trio.SocketStream) -> NoiseSession:
    noise: Any = handshaken.conn  # a NoiseTransportReadWriter; its state is no public interface (pinned: libp2p==0.8.1)
    protocol = noise.noise_state.noise_protocol
    return NoiseSession(
        stream,
        sending=_cipher_state(protocol.cipher_state_encrypt),
        receiving=_cipher_state(protocol.cipher_state_decrypt),
    )


def _cipher_state(state: Any) -> CipherState:
    return CipherState(bytes(state.k), state.n)


def _tcp_stream(raw: IRawConnection) -> trio.SocketStream:
    """The socket under a raw connection; past py-libp2p's two layers, which add a lock and a try block per call."""
    assert isinstance(raw, RawConnection)
    assert isinstance(raw.stream, TrioTCPStream)
    return raw.stream.stream


def _remote_address(stream: trio.SocketStream) -> tuple[str, int] | None:
    """IP text and port; py-libp2p's own says None for every IPv6 peer (it expects two fields, IPv6 has four)."""
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return None
    return str(host).removeprefix("::ffff:"), int(port)


def _local_address(stream: trio.SocketStream) -> str | None:
    """IP text; None when the socket is closed already."""
    try:
        return str(stream.socket.getsockname()[0]).removeprefix("::ffff:")
    except OSError:
        return None
