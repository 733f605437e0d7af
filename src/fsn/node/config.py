"""A node's settings. `fsn node init` writes them to `config.toml` in the data folder; `config/node.example.toml` explains them."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import attrs
from attrs.validators import ge, gt, le

from fsn.core.errors import ConfigError
from fsn.core.ids import NodeId, PeerId
from fsn.core.names import check_node_name
from fsn.node.chunkstore.base import MAX_CHUNK_BYTES
from fsn.node.chunkstore.quota import DEFAULT_RESERVE_BYTES
from fsn.p2p.config import P2pConfig
from fsn.p2p.wire.messages import Contact
from fsn.runtime.config import ByteSize
from fsn.runtime.logs import LogConfig

__all__ = [
    "API_KEY_NAME",
    "CONFIG_NAME",
    "DEFAULT_CAPACITY",
    "IDENTITY_NAME",
    "AdminConfig",
    "CoordinatorConfig",
    "NodeConfig",
    "UpkeepConfig",
]

CONFIG_NAME: Final = "config.toml"
"""In the data folder, as the next two."""
IDENTITY_NAME: Final = "node.key"
API_KEY_NAME: Final = "api.key"

DEFAULT_CAPACITY: Final = ByteSize(10 * 10**9)


def _check_url(_: object, attribute: "attrs.Attribute[str]", url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{attribute.name} must look like http://localhost:8080; found {url!r}")


def _check_uuid(_: object, attribute: "attrs.Attribute[str]", text: str) -> None:
    try:
        UUID(text)
    except ValueError as error:
        raise ConfigError(f"{attribute.name} must be a UUID; found {text!r}") from error


def _check_name(_: object, attribute: "attrs.Attribute[str]", name: str) -> None:
    check_node_name(name)


def _check_loopback(_: object, attribute: "attrs.Attribute[str]", host: str) -> None:
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(
            f"{attribute.name} must be 127.0.0.1, ::1 or localhost: the admin API is not for others; found {host!r}"
        )


@attrs.frozen(kw_only=True)
class CoordinatorConfig:
    """The coordinator that this node is registered with; written by `fsn node init`."""

    url: str = attrs.field(validator=_check_url)
    """Its HTTP address, e.g. http://localhost:8080."""
    peer_id: str
    """Its peer id, pinned: nobody else may store here, whatever address answers."""
    addresses: tuple[str, ...]
    """Multiaddresses to dial, in this order, e.g. /ip4/127.0.0.1/tcp/4001."""
    node_id: str = attrs.field(validator=_check_uuid)
    """What it calls this node."""

    @property
    def contact(self) -> Contact:
        """Whom to dial and where."""
        return Contact(PeerId(self.peer_id), self.addresses)


@attrs.frozen(kw_only=True)
class AdminConfig:
    """The admin API, for this machine only."""

    host: str = attrs.field(default="127.0.0.1", validator=_check_loopback)
    """A loopback address."""
    port: int = attrs.field(default=8090, validator=[ge(0), le(65535)])
    """0 takes any free port, which is printed and written to ports.json."""


@attrs.frozen(kw_only=True)
class UpkeepConfig:
    """What a node does for the chunks that it has."""

    scrub_days: float = attrs.field(default=30.0, validator=gt(0))
    """Each chunk is read, and compared with what was stored, once in so long."""
    scrub_bytes_per_second: ByteSize = attrs.field(default=ByteSize(8 << 20), validator=gt(ByteSize(0)))
    """No faster than that, and only while nothing waits to be stored."""
    trash_days: float = attrs.field(default=7.0, validator=ge(0))
    """Replicas that the coordinator found to be garbage can be taken back so long, or until their room is needed."""


@attrs.frozen(kw_only=True)
class NodeConfig:
    """All settings of a storage node."""

    data_dir: Path
    """Chunks, index, keys: everything of this node. `fsn node start --data-dir` sets it, so that a folder can be moved."""
    name: str = attrs.field(validator=_check_name)
    """For people; shown in lists."""
    region: str | None = None
    """Where the node stands, e.g. eu-north; replicas of a chunk are spread over regions."""
    capacity_bytes: ByteSize = attrs.field(default=DEFAULT_CAPACITY, validator=ge(ByteSize(MAX_CHUNK_BYTES)))
    """How much may be stored, e.g. "100GB"."""
    reserve_bytes: ByteSize = attrs.field(default=ByteSize(DEFAULT_RESERVE_BYTES), validator=ge(ByteSize(0)))
    """Stays free on the disk whatever the capacity says."""
    heartbeat_seconds: float = attrs.field(default=10.0, validator=gt(0))
    """How often the coordinator hears from us; after 30 s of silence it counts the node as offline."""
    shutdown_grace_seconds: float = attrs.field(default=10.0, validator=ge(0.0))
    """After SIGTERM, stores and reads under way may take so long to end; new ones are refused at once."""
    coordinator: CoordinatorConfig
    p2p: P2pConfig = attrs.field(factory=lambda: P2pConfig(tcp_port=0))
    admin: AdminConfig = attrs.field(factory=AdminConfig)
    upkeep: UpkeepConfig = UpkeepConfig()
    log: LogConfig = attrs.field(factory=LogConfig)

    @property
    def node_id(self) -> NodeId:
        """Our id at the coordinator."""
        return NodeId(UUID(self.coordinator.node_id))
