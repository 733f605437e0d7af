"""fsn, a federated storage network: its library face.

    async with fsn.open_coordinator(config) as coordinator, fsn.open_node(node_config) as node: ...
    async with fsn.Client(url, token) as client: file = await client.upload(path)
    async with fsn.Network(nodes=5, seed=7) as net: ...     # simulated, in virtual time: fsn.simulate(main)

Names are imported when they are first used: a program that only needs `Client` never pays for libp2p (1.9 s, 83 MB) or PostgreSQL.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from fsn.core.errors import (
    ConfigError,
    Conflict,
    Corrupt,
    DiskFull,
    Forbidden,
    FsnError,
    InsufficientCredits,
    Invalid,
    NotFound,
    PeerError,
    PeerRefused,
    PeerTimeout,
    ProtocolViolation,
    QuotaExceeded,
    RateLimited,
    Refused,
    StorageError,
    TooFewCopies,
    TooFewNodes,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from fsn.core.version import VERSION

if TYPE_CHECKING:
    from fsn.client import Client
    from fsn.daemon.coordinator import Coordinator, CoordinatorConfig, DatabaseConfig, open_coordinator
    from fsn.daemon.node import Node, open_node
    from fsn.node.config import NodeConfig
    from fsn.node.registration import Application, initialise
    from fsn.p2p.config import P2pConfig
    from fsn.sim import Network, simulate
    from fsn.web.config import HttpConfig

__version__ = VERSION

__all__ = [
    "Application",
    "Client",
    "ConfigError",
    "Conflict",
    "Coordinator",
    "CoordinatorConfig",
    "Corrupt",
    "DatabaseConfig",
    "DiskFull",
    "Forbidden",
    "FsnError",
    "HttpConfig",
    "InsufficientCredits",
    "Invalid",
    "Network",
    "Node",
    "NodeConfig",
    "NotFound",
    "P2pConfig",
    "PeerError",
    "PeerRefused",
    "PeerTimeout",
    "ProtocolViolation",
    "QuotaExceeded",
    "RateLimited",
    "Refused",
    "StorageError",
    "TooFewCopies",
    "TooFewNodes",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "__version__",
    "initialise",
    "open_coordinator",
    "open_node",
    "simulate",
]

_PLACES = {
    "Client": "fsn.client",
    "Coordinator": "fsn.daemon.coordinator",
    "CoordinatorConfig": "fsn.daemon.coordinator",
    "DatabaseConfig": "fsn.daemon.coordinator",
    "open_coordinator": "fsn.daemon.coordinator",
    "Node": "fsn.daemon.node",
    "open_node": "fsn.daemon.node",
    "NodeConfig": "fsn.node.config",
    "Application": "fsn.node.registration",
    "initialise": "fsn.node.registration",
    "P2pConfig": "fsn.p2p.config",
    "HttpConfig": "fsn.web.config",
    "Network": "fsn.sim",
    "simulate": "fsn.sim",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'fsn' has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
