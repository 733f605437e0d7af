"""Serving an ASGI application over HTTP, as the daemons do it: from configuration to a listening port, to a graceful stop."""

import errno
import socket
import ssl

import structlog
import trio
from hypercorn.typing import ASGIFramework

from fsn.core.errors import ConfigError
from fsn.web.client_address import parse_networks
from fsn.web.config import HttpConfig
from fsn.web.front.config import FrontConfig
from fsn.web.front.serve import Waitable, serve

__all__ = ["serve_http"]

log = structlog.get_logger(__name__)


async def serve_http(
    app: ASGIFramework,
    config: HttpConfig,
    *,
    shutdown: Waitable,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until `shutdown` (a trio.Event, say) happens and the requests in flight have ended or their grace has.

    `task_status.started(port)` once connections are accepted, with the port in force. Raises ConfigError when the address cannot be
    listened on or the certificate cannot be used. Cancelling cuts every connection at once.
    """
    tls = _tls_context(config)
    listeners = await _listen(config)
    port = listeners[0].socket.getsockname()[1]
    log.info("http_listening", host=config.host, port=port, tls=tls is not None)
    task_status.started(port)
    await serve(app, _front_config(config), listeners, shutdown=shutdown, tls=tls)
    log.info("http_stopped", port=port)


async def _listen(config: HttpConfig) -> list[trio.SocketListener]:
    """Listeners on one port. A name with several addresses gets all of them, unless the port is any: then the first."""
    try:
        listeners = await trio.open_tcp_listeners(config.port, host=config.host, backlog=FrontConfig.backlog)
    except OSError as error:
        raise ConfigError(_why_not(config, error)) from error
    if config.port == 0:
        for listener in listeners[1:]:
            await listener.aclose()
        del listeners[1:]
    return listeners


def _why_not(config: HttpConfig, error: OSError) -> str:
    where = f"port {config.port} of {config.host}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"http.port: {where} is in use by another program; stop it, or choose another port (0 takes any free one)"
        )
    if error.errno == errno.EACCES:
        return f"http.port: {where} may not be used by this account; choose a port from 1024 up"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"http.host: {config.host!r} is not an address or name of this machine"
    return f"http: cannot listen on {where}: {error.strerror or error}"


def _tls_context(config: HttpConfig) -> ssl.SSLContext | None:
    if config.tls_certificate is None or config.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(FrontConfig.alpn_protocols)
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"http.tls_certificate, http.tls_key: {config.tls_certificate} and {config.tls_key} cannot be used: {error}"
        ) from error
    return context


def _front_config(config: HttpConfig) -> FrontConfig:
    front = FrontConfig()
    front.max_connections = config.max_connections
    front.max_connections_per_address = config.max_connections_per_address
    front.trusted_proxies = parse_networks(config.trusted_proxies)
    front.keep_alive_timeout = config.idle_timeout_seconds
    front.body_timeout = config.body_timeout_seconds
    front.min_rate = config.min_upload_bytes_per_second
    front.write_timeout = config.write_timeout_seconds
    front.graceful_timeout = config.graceful_timeout_seconds
    return front
