"""Accepting connections up to a limit, and stopping: accept no more, let requests in flight end, then cut."""

import ssl
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIFramework

from fsn.core.rates import source_network
from fsn.web.client_address import is_trusted
from fsn.web.front.config import FrontConfig
from fsn.web.front.connection import FrontConnection
from fsn.web.front.tls import RecordStream

__all__ = ["Waitable", "serve"]

log = structlog.get_logger(__name__)


class Waitable(Protocol):
    """What `trio.Event` is, as far as a server cares."""

    async def wait(self) -> object:
        """Return when it has happened."""


async def serve(
    app: ASGIFramework,
    config: FrontConfig,
    listeners: Sequence[trio.SocketListener],
    *,
    shutdown: Waitable,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve `app` on `listeners` until `shutdown` happens; returns when the last connection has ended.

    Then listeners close, idle connections close, and requests in flight have `graceful_timeout` seconds; what is left is cut.
    Cancelling cuts at once. ASGI's lifespan is not spoken: what an application needs is opened around this call.
    """
    server = _Server(ASGIWrapper(app), config, tls)
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as connections:
            nursery.start_soon(server.cut_after_grace, connections.cancel_scope)
            await server.accept_until(shutdown, listeners, connections)
        nursery.cancel_scope.cancel()


class _Server:
    def __init__(self, app: AppWrapper, config: FrontConfig, tls: ssl.SSLContext | None) -> None:
        self._app = app
        self._config = config
        self._tls = tls
        self._context = WorkerContext(None)
        self._free = trio.Semaphore(config.max_connections)
        self._open: set[FrontConnection] = set()
        self._by_source: Counter[str] = Counter()

    async def accept_until(
        self, shutdown: Waitable, listeners: Sequence[trio.SocketListener], connections: trio.Nursery
    ) -> None:
        limited = [_LimitedListener(listener, self._free) for listener in listeners]
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(trio.serve_listeners, self._accept, limited, handler_nursery=connections))
                await shutdown.wait()
                nursery.cancel_scope.cancel()
        finally:
            await self._context.terminated.set()
            for connection in self._open:
                connection.close_if_idle()

    async def cut_after_grace(self, connections: trio.CancelScope) -> None:
        """Sending is shielded (see FrontConnection), so that only closing the sockets ends it at once."""
        try:
            await self._context.terminated.wait()
            await trio.sleep(self._config.graceful_timeout)
            connections.cancel()
        finally:
            for connection in self._open:
                connection.cut()

    async def _accept(self, stream: trio.SocketStream) -> None:
        source = self._source(stream)
        self._by_source[source] += 1
        try:
            if self._may_have_another(source):
                await self._connect(stream)
            else:
                log.info("http_connection_refused", reason="too many from one address")
                await trio.aclose_forcefully(stream)
        finally:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]
            self._free.release()

    def _source(self, stream: trio.SocketStream) -> str:
        """Who counts as one client; empty for who may have any number."""
        try:
            peer = stream.socket.getpeername()[0]
        except OSError:  # gone already
            return ""
        return "" if is_trusted(peer, self._config.trusted_proxies) else source_network(peer)

    def _may_have_another(self, source: str) -> bool:
        limit = self._config.max_connections_per_address
        return not source or not limit or self._by_source[source] <= limit

    async def _connect(self, stream: trio.SocketStream) -> None:
        connection = FrontConnection(self._app, self._config, self._context, self._secure(stream))
        self._open.add(connection)
        try:
            await connection.run()
        except* Exception:  # the barrier: a fault in serving one connection must not end the others
            log.exception("http_connection_failed")
        finally:
            self._open.discard(connection)

    def _secure(self, stream: trio.SocketStream) -> trio.SocketStream | RecordStream:
        return stream if self._tls is None else RecordStream(stream, self._tls, self._config.read_size)


class _LimitedListener(trio.abc.Listener[trio.SocketStream]):
    """At the limit, further clients wait in the kernel's backlog."""

    def __init__(self, listener: trio.SocketListener, free: trio.Semaphore) -> None:
        self._listener = listener
        self._free = free

    async def accept(self) -> trio.SocketStream:
        await self._free.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self._free.release()
            raise

    async def aclose(self) -> None:
        await self._listener.aclose()
