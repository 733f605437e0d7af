"""One TCP connection: reading with deadlines that fit what is awaited, sending with a deadline that moves with progress, closing."""

from collections.abc import Callable
from math import inf

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from fsn.web.front.config import FrontConfig
from fsn.web.front.protocol import FrontProtocol
from fsn.web.front.tasks import FrontTaskGroup
from fsn.web.front.tls import RecordStream

__all__ = ["FrontConnection"]

FIRST_READ_BYTES = (
    64 * 1024
)  # a request's head, and the first read of a body: memory is taken once bytes are known to come
TLS_PIECE_BYTES = 256 * 1024  # what is handed to TLS at once, so that its deadline moves too
CLOSE_SECONDS = 5.0  # for TLS's goodbye

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class FrontConnection(TCPServer):
    """Changes against Hypercorn 0.18's TCPServer:

    * a read deadline only while a body is owed (stock's `read_timeout` also kills a running download), and a least upload rate;
    * a write deadline that moves with progress (stock waits for ever for a client that does not read);
    * an early answer lingers, so that a client that still sends sees 401 or 413 and not a reset connection;
    * closing is shielded from the application's own cancellation (stock never closes after `Connection: close` under quart-trio).
    """

    stream: trio.SocketStream | RecordStream  # type: ignore[assignment]
    config: FrontConfig
    protocol: FrontProtocol  # type: ignore[assignment]

    def __init__(
        self, app: AppWrapper, config: FrontConfig, context: WorkerContext, stream: trio.SocketStream | RecordStream
    ) -> None:
        super().__init__(app, config, context, {}, stream)  # type: ignore[arg-type]
        self._socket = (stream.transport if isinstance(stream, RecordStream) else stream).socket
        self._discarding = False
        self._reader_ended = trio.Event()
        self._idle_scope = trio.CancelScope()  # around reading; its deadline is set while no request is under way

    def close_if_idle(self) -> None:
        """For a stop: end now what would wait for another request."""
        if self._idle_scope.deadline < inf:
            self._idle_scope.deadline = -inf

    def cut(self) -> None:
        """Close the socket at once; whoever waits for it is told. For the end of the grace of a stop."""
        self._socket.close()

    async def run(self) -> None:
        """Serve requests until either side closes. What the application raises is logged by Hypercorn and goes no further."""
        try:
            if await self._is_secured():
                await self._serve()
        except OSError:
            pass  # the client went away between two calls
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._close()
            await trio.aclose_forcefully(self.stream)

    async def _is_secured(self) -> bool:
        if not isinstance(self.stream, RecordStream):
            return True
        try:
            with trio.fail_after(self.config.ssl_handshake_timeout):
                await self.stream.do_handshake()
        except (*_GONE, trio.TooSlowError):
            return False
        return True

    async def _serve(self) -> None:
        self._task_group = group = FrontTaskGroup()
        async with group:
            self.protocol = self._make_protocol(group)
            group.before_body = self.protocol.send_continue
            self._note_idle(True)
            await self._read_data()
            self._reader_ended.set()

    def _note_idle(self, is_idle: bool) -> None:
        # Hypercorn has a task for it, which is started and cancelled for every request: 8 % of its CPU time here when it is small.
        if not is_idle:
            self._idle_scope.deadline = inf
        elif self.context.terminated.is_set():
            self._idle_scope.deadline = -inf
        else:
            self._idle_scope.deadline = trio.current_time() + self.config.keep_alive_timeout

    def _make_protocol(self, group: FrontTaskGroup) -> FrontProtocol:
        family = self._socket.family
        return FrontProtocol(
            self.app,
            self.config,
            self.context,
            group,
            ConnectionState({}),
            isinstance(self.stream, RecordStream),
            _pair(parse_socket_addr(family, self._socket.getpeername())),
            _pair(parse_socket_addr(family, self._socket.getsockname())),
            self.protocol_send,
        )

    # --- reading ---

    async def _read_data(self) -> None:
        pace = _Pace(self.config, trio.current_time)
        try:
            with self._idle_scope:
                while not pace.is_too_slow and await self._read_once(pace):
                    pass
        except (*_GONE, trio.TooSlowError):
            pass
        await self.protocol.handle(Closed())

    async def _read_once(self, pace: "_Pace") -> bool:
        """Take what the client has sent; False at the end of its stream, or when enough was thrown away."""
        if self._discarding:
            data = await self.stream.receive_some(FIRST_READ_BYTES)
            return bool(data) and pace.discard(len(data))
        if self.protocol.is_body_awaited:
            with trio.fail_after(self.config.body_timeout), pace.waiting():
                data = await self.stream.receive_some(pace.read_size)
            pace.add(len(data))
        else:
            pace.reset()
            data = await self.stream.receive_some(FIRST_READ_BYTES)
        await self.protocol.handle(RawData(bytes(data)))
        return bool(data)

    # --- sending ---

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            self._note_idle(event.idle)
        elif isinstance(event, Closed):
            with trio.CancelScope(shield=True):  # short: nothing in it waits for the client
                await self._begin_close()

    async def _send(self, data: bytes) -> None:
        """Send all of `data`, or close. Shielded, since half a message on the wire cannot be taken back; write_timeout bounds it."""
        if self.protocol.is_over:
            await trio.lowlevel.checkpoint()  # unshielded: an endless response must notice here that it is cancelled
            return
        with trio.CancelScope(shield=True):
            async with self.send_lock:
                if await self._is_sent(data):
                    return
                await trio.aclose_forcefully(self.stream)
            await self.protocol.handle(Closed())

    async def _is_sent(self, data: bytes) -> bool:
        try:
            with trio.CancelScope() as scope:
                await self._send_pieces(memoryview(data), scope)
        except _GONE:
            return False
        return not scope.cancelled_caught

    async def _send_pieces(self, rest: memoryview, scope: trio.CancelScope) -> None:
        while rest:
            scope.deadline = trio.current_time() + self.config.write_timeout
            sent = await self._send_piece(rest)
            rest = rest[sent:]

    async def _send_piece(self, rest: memoryview) -> int:
        if isinstance(self.stream, RecordStream):
            await self.stream.send_all(rest[:TLS_PIECE_BYTES])
            return min(len(rest), TLS_PIECE_BYTES)
        try:
            return await self._socket.send(rest)
        except OSError as error:
            raise trio.BrokenResourceError from error

    # --- closing ---

    async def _begin_close(self) -> None:
        if self._discarding:
            return
        if self.protocol.may_still_send:
            self._discarding = True
            await self._send_eof()
            self._task_group.spawn(self._linger)
        else:
            await self._close()
        await self.protocol.handle(Closed())

    async def _linger(self) -> None:
        """Leave the client time to read our answer; closing with unread bytes would reset the connection and destroy it."""
        with trio.move_on_after(self.config.linger_timeout):
            await self._reader_ended.wait()
        await trio.aclose_forcefully(self.stream)

    async def _send_eof(self) -> None:
        try:
            if isinstance(self.stream, trio.SocketStream):
                await self.stream.send_eof()
        except (*_GONE, trio.BusyResourceError):
            pass

    async def _close(self) -> None:
        await self._send_eof()
        try:
            with trio.move_on_after(CLOSE_SECONDS):
                await self.stream.aclose()
        except (*_GONE, trio.BusyResourceError):
            pass  # TLS could not say goodbye
        await trio.aclose_forcefully(self.stream)


class _Pace:
    """How fast the bytes of one body come, measured over the time that we waited for them (not the time that we kept the client)."""

    def __init__(self, config: FrontConfig, now: Callable[[], float]) -> None:
        self._config = config
        self._now = now
        self._waited_seconds = 0.0
        self._got_bytes = 0
        self._discarded_bytes = 0
        self._since = 0.0
        self.read_size = FIRST_READ_BYTES

    def reset(self) -> None:
        self._waited_seconds = 0.0
        self._got_bytes = 0
        self.read_size = FIRST_READ_BYTES

    def waiting(self) -> "_Pace":
        return self

    def __enter__(self) -> None:
        self._since = self._now()

    def __exit__(self, *_: object) -> None:
        self._waited_seconds += self._now() - self._since

    def add(self, count: int) -> None:
        self._got_bytes += count
        self.read_size = self._config.read_size

    def discard(self, count: int) -> bool:
        """Count bytes thrown away; False when that is enough."""
        self._discarded_bytes += count
        return self._discarded_bytes <= self._config.linger_bytes

    @property
    def is_too_slow(self) -> bool:
        return (
            self._waited_seconds > self._config.min_rate_grace
            and self._got_bytes < self._waited_seconds * self._config.min_rate
        )


def _pair(address: tuple[str, int] | str | None) -> tuple[str, int] | None:
    return None if address is None or isinstance(address, str) else (address[0], address[1])
