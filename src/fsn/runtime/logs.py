"""Structured logs by structlog: readable on a terminal, JSON for machines; what libraries log goes the same way."""

import logging
import sys
from typing import Any, Literal

import attrs
import structlog
import structlog.tracebacks

__all__ = ["LogConfig", "configure_logs"]

Level = Literal["debug", "info", "warning", "error"]
_NOISY = ("libp2p", "hypercorn", "httpx", "httpcore", "quart", "multiaddr")


@attrs.frozen
class LogConfig:
    """How and how much to log. Everything goes to stderr."""

    level: Level = "info"
    """The least severe level that is shown: debug, info, warning or error."""
    format: Literal["auto", "console", "json"] = "auto"
    """console for people, json for machines; auto = console on a terminal, json elsewhere."""


def configure_logs(config: LogConfig) -> None:
    """Set up structlog and the standard library's logging for this process; a second call replaces the first."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, *_rendering(config)],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, config.level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_foreign(config)))
    logging.basicConfig(handlers=[handler], level=config.level.upper(), force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _is_json(config: LogConfig) -> bool:
    return config.format == "json" or (config.format == "auto" and not sys.stderr.isatty())


def _rendering(config: LogConfig) -> list[Any]:
    """Tracebacks without the values of variables, which are structlog's (26.1) default: keys and passwords are among them."""
    if _is_json(config):
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer(default=str)]
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _foreign(config: LogConfig) -> list[Any]:
    return [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(config)]
