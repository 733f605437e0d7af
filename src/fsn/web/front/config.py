"""Hypercorn's configuration with the limits that it lacks, and its log turned over to structlog."""

from typing import Any

import structlog
from hypercorn.config import Config
from hypercorn.logging import Logger

from fsn.web.client_address import Network

__all__ = ["FrontConfig"]

log = structlog.get_logger(__name__)


class FrontLog(Logger):
    """What Hypercorn has to say, as structlog events. Its access log is left out: `fsn.web.middleware` writes one."""

    def __init__(self, config: Config) -> None:
        self.access_logger = None
        self.error_logger = None

    async def access(self, request: Any, response: Any, request_time: float) -> None:
        """Nothing: see the class."""

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        """The application raised to the server: a bug, or an error in the middle of a response body."""
        log.exception("http_application_failed", reason=message)

    async def warning(self, message: str, *args: Any, **kwargs: Any) -> None:
        log.warning("http_server_warning", reason=message)

    async def error(self, message: str, *args: Any, **kwargs: Any) -> None:
        log.error("http_server_error", reason=message)


class FrontConfig(Config):
    """Sizes in bytes, times in seconds. One instance serves one listener; `fsn.web.server` fills it from `HttpConfig`."""

    logger_class = FrontLog
    include_server_header = False
    alpn_protocols: list[str] = ["http/1.1"]  # noqa: RUF012 - Hypercorn's way. HTTP/2 in pure Python costs 10-20 times the CPU
    backlog = 1024
    h11_max_incomplete_size = 32 * 1024
    keep_alive_timeout: float = 30.0  # also the time that a request's head may take to arrive
    ssl_handshake_timeout: float = 10.0
    graceful_timeout: float = 30.0

    read_size = (
        256 * 1024
    )  # per recv. Measured on uploads: 64 KiB (Hypercorn's) costs twice the CPU; 1 MiB is no better
    inbox_bytes = 1024 * 1024  # unread body held for one request
    body_timeout: float = 30.0  # without one byte of a body that is owed
    min_rate: float = (
        1024.0  # bytes a second, averaged over the time spent waiting for the body, once that exceeds min_rate_grace
    )
    min_rate_grace: float = 30.0
    write_timeout: float = 30.0  # without progress in sending
    linger_timeout: float = 3.0  # how long an early answer waits for a client that still sends
    linger_bytes = 64 * 1024 * 1024  # ... and how much of that is thrown away
    max_connections = 1000
    max_connections_per_address = 0  # 0: no limit
    trusted_proxies: tuple[Network, ...] = ()  # which that limit does not hold for
