"""Repairs that py-libp2p 0.8.1 needs in a daemon, put on from outside. Each names its defect of docs/decisions/0004.

Imports py-libp2p: only the door in `libp2p.py` imports this module, when a transport is opened.
"""

import importlib.metadata
import logging
from collections.abc import Mapping
from typing import Final

import libp2p.network.connection.swarm_connection as swarm_connection
import structlog
import trio
from libp2p.abc import IHost, INetStream
from libp2p.network.config import RetryConfig
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.swarm import Swarm

from fsn.core.errors import ConfigError

__all__ = ["VERSIONS", "check_library", "check_names", "harden", "swarm_of"]

VERSIONS: Final[Mapping[str, str]] = {"libp2p": "0.8.1", "noiseprotocol": "0.3.1", "aioquic": "1.7.2"}
_SILENCED: Final = (
    # They log what our own errors say already, some with a stack trace per failed dial or refused stream (B17).
    "libp2p.host.basic_host",
    "libp2p.network.swarm",
    "libp2p.protocol_muxer",
    "libp2p.transport.tcp",
)

_log = structlog.get_logger("fsn.p2p")


def check_library(versions: Mapping[str, str] = VERSIONS) -> None:
    """Raise `ConfigError` unless exactly these versions are installed: we lean on private names of theirs."""
    for package, wanted in versions.items():
        found = importlib.metadata.version(package)
        if found != wanted:
            raise ConfigError(f"{package} {wanted} is needed, for private names of it are used; {found} is installed")


def check_names(host: IHost) -> None:
    """Raise `ConfigError` when a private name that we lean on is not where it was (a patched or vendored library)."""
    swarm = swarm_of(host)
    for owner, names in (
        (
            swarm,
            ("connections", "notifees", "upgrader", "retry_config", "common_stream_handler", "_negative_peer_cache"),
        ),
        (swarm.upgrader, ("muxer_multistream", "security_multistream")),
        (swarm.upgrader.muxer_multistream, ("_selector", "_annotate_connection", "negotiate_timeout")),
        (swarm._negative_peer_cache, ("_ttl",)),
        (swarm_connection, ("logging",)),
    ):
        for name in names:
            if not hasattr(owner, name):
                raise ConfigError(f"py-libp2p {VERSIONS['libp2p']} has no {name} in {owner!r}; its files were changed")


def harden(host: IHost) -> None:
    """Put all repairs on a host that is not running yet. Raises `ConfigError` when it is not as it should be."""
    check_names(host)
    _quiet_logs()
    _guard_streams(swarm_of(host))
    _stop_identifying(swarm_of(host))
    _stop_waiting(swarm_of(host))


def swarm_of(host: IHost) -> Swarm:
    """The host's network, which must be py-libp2p's own."""
    network = host.get_network()
    if not isinstance(network, Swarm):
        raise ConfigError(f"py-libp2p's Swarm was expected; got {type(network).__name__}")
    return network


def _guard_streams(swarm: Swarm) -> None:
    """B1, B2: what any stream handler or the negotiation before it raises would end the whole host.

    `05 ff fe fd fc 0a` on a new stream was enough: a UnicodeDecodeError inside the negotiation.
    """
    inner = swarm.common_stream_handler

    async def guarded(stream: INetStream) -> None:
        try:
            await inner(stream)
        except Exception as error:  # noqa: BLE001 - the barrier: a peer's bytes must not end the daemon
            level = logging.DEBUG if isinstance(error, StreamError) else logging.WARNING
            _log.log(level, "libp2p_stream_failed", peer=str(stream.muxed_conn.peer_id), reason=repr(error))
            with trio.move_on_after(2, shield=True):
                await stream.reset()

    swarm.set_stream_handler(guarded)


def _stop_identifying(swarm: Swarm) -> None:
    """B17, and dials that nobody asked for: no identify of our own on each connection.

    It fills the peer store with addresses for two hours and floods the log on connections that are closing. Others' identify
    requests are answered. It comes back with the DHT, which needs it.
    """
    for notifee in list(swarm.notifees):
        if type(notifee).__module__ == "libp2p.host.basic_host":
            swarm.remove_notifee(notifee)


def _stop_waiting(swarm: Swarm) -> None:
    """B12, B14: no negative cache (60 s after one failed dial) and no retries below us; redialling is decided above."""
    swarm.retry_config = RetryConfig(max_retries=0)
    swarm._negative_peer_cache._ttl = 0.0
    # The resource manager counts a connection twice while it is set up and queues streams above its limit until they time out;
    # what bounds us is max_connections in the swarm and the streams per connection in our Yamux.
    swarm.set_resource_manager(None)


def _quiet_logs() -> None:
    """Warnings and above go where the program's logs go, nothing to stderr directly.

    py-libp2p's logger has no handler and does not propagate, so that Python writes its warnings raw to stderr; SwarmConn logs
    through the root logger's functions, which install a stderr handler when there is none.
    """
    root = logging.getLogger("libp2p")
    root.propagate = True
    root.setLevel(logging.WARNING)
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    for name in _SILENCED:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("libp2p.network.auto_connector").setLevel(logging.WARNING)
    logging.getLogger("quic").setLevel(logging.CRITICAL)  # aioquic's: a warning for each thing a stranger sends
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")  # type: ignore[attr-defined, assignment]
