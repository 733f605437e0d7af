"""`fsn node init`: a key, a registration at the coordinator, and the files that `fsn node start` needs.

Order: key, registration, API key, `config.toml` last. A crash before that line leaves a folder that a second init finishes, with the
same key: the coordinator then knows the same node and gives it a new API key. After it, a second init changes nothing.
"""

from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import msgspec
import structlog
import trio

from fsn.client.connection import Connection, Timeouts
from fsn.client.retrying import Retrying
from fsn.core.errors import Invalid, PeerTimeout, ProtocolViolation
from fsn.core.names import check_node_name
from fsn.node.chunkstore.base import MAX_CHUNK_BYTES
from fsn.node.config import API_KEY_NAME, CONFIG_NAME, IDENTITY_NAME, AdminConfig, CoordinatorConfig, NodeConfig
from fsn.p2p.config import P2pConfig
from fsn.runtime.config import ByteSize, config_as_toml, load_config
from fsn.runtime.data_folder import locked_folder
from fsn.runtime.identity import Identity, load_or_create_identity
from fsn.runtime.private_files import replace_private_file

__all__ = ["SIGNED_PREFIX", "Application", "Initialised", "initialise", "load_node_config"]

log = structlog.get_logger()

T = TypeVar("T")

SIGNED_PREFIX: Final = b"fsn-register-v1"
"""What is signed: this, then the nonce, then the public key. The prefix keeps the signature from meaning anything elsewhere."""

WITHIN_SECONDS: Final = 60.0
_TIMEOUTS: Final = Timeouts(connect_seconds=10.0, answer_seconds=20.0, send_seconds=20.0)


@attrs.frozen(kw_only=True)
class Application:
    """What the operator wants: a node of this name in this folder, at that coordinator. Sizes in bytes."""

    data_dir: Path
    name: str
    coordinator_url: str
    capacity_bytes: int
    region: str | None = None
    operator_token: str | None = attrs.field(default=None, repr=False)
    """A user's token, whose account the node belongs to."""
    p2p: P2pConfig = attrs.field(factory=lambda: P2pConfig(tcp_port=0))
    admin: AdminConfig = attrs.field(factory=AdminConfig)


@attrs.frozen
class Initialised:
    """A folder that a node can be started from; `is_new` is False when it was so before."""

    config: NodeConfig
    is_new: bool


class _Challenge(msgspec.Struct):
    nonce: str


class _Contact(msgspec.Struct):
    peer_id: str
    addresses: tuple[str, ...]


class _Registered(msgspec.Struct):
    node_id: str
    api_key: str
    coordinator: _Contact
    network: str = "main"


async def initialise(application: Application) -> Initialised:
    """Make the folder ready; durable on return, harmless to repeat.

    Raises `Invalid`, `Conflict` (the folder is in use), `ConfigError` (it cannot be used), `Unreachable`, `PeerTimeout` and whatever
    the coordinator refuses with.
    """
    # Asked before the lock, which a running node holds, and again inside, where nobody else can be initialising the folder.
    if (before := _initialised_before(application.data_dir)) is not None:
        return before
    with locked_folder(application.data_dir):
        if (before := _initialised_before(application.data_dir)) is not None:
            return before
        _check(application)
        identity = load_or_create_identity(application.data_dir / IDENTITY_NAME)
        registered = await _register(application, identity)
        replace_private_file(application.data_dir / API_KEY_NAME, registered.api_key.encode() + b"\n")
        config = _config(application, registered)
        _write_config(config)
        log.info(
            "node_registered", node=registered.node_id, peer=identity.peer, coordinator=application.coordinator_url
        )
        return Initialised(config, is_new=True)


def _initialised_before(data_dir: Path) -> Initialised | None:
    """The configuration is written last, in one step: where it is, nothing is missing."""
    return Initialised(load_node_config(data_dir), is_new=False) if (data_dir / CONFIG_NAME).exists() else None


def load_node_config(data_dir: Path, **sources: Any) -> NodeConfig:
    """The configuration in `data_dir`, with `environment` and `overrides` as `load_config` takes them. Raises `ConfigError`."""
    overrides = {**(sources.get("overrides") or {}), "data_dir": data_dir}
    return load_config(
        NodeConfig, file=data_dir / CONFIG_NAME, environment=sources.get("environment"), overrides=overrides
    )


def _check(application: Application) -> None:
    check_node_name(application.name)
    if application.capacity_bytes < MAX_CHUNK_BYTES:
        raise Invalid(f"a node offers at least {MAX_CHUNK_BYTES} bytes; got {application.capacity_bytes}")


async def _register(application: Application, identity: Identity) -> _Registered:
    url = application.coordinator_url
    with trio.move_on_after(WITHIN_SECONDS):
        async with Connection(url, None, _TIMEOUTS, Retrying(attempts=3)) as connection:
            body = {"public_key": identity.public_key.hex()}
            challenge = await _post(connection, "/api/v1/nodes/challenge", body, _Challenge)
            body = _signed(application, identity, challenge)
            return await _post(connection, "/api/v1/nodes/register", body, _Registered)
    raise PeerTimeout(f"{url} did not register this node within {WITHIN_SECONDS:g} s")


def _signed(application: Application, identity: Identity, challenge: _Challenge) -> dict[str, Any]:
    try:
        nonce = bytes.fromhex(challenge.nonce)
    except ValueError as error:
        raise ProtocolViolation("the coordinator's nonce is not hexadecimal") from error
    facts = {
        "public_key": identity.public_key.hex(),
        "name": application.name,
        "capacity_bytes": application.capacity_bytes,
        "region": application.region,
        "operator_token": application.operator_token,
        "nonce": challenge.nonce,
        "signature": identity.sign(SIGNED_PREFIX + nonce + identity.public_key).hex(),
    }
    return {key: value for key, value in facts.items() if value is not None}


async def _post(connection: Connection, path: str, body: object, kind: type[T]) -> T:
    answer = await connection.call("POST", path, body=body)
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise ProtocolViolation(
            f"{connection.url}{path} answered unexpectedly: {error}; is this a coordinator?"
        ) from error


def _config(application: Application, registered: _Registered) -> NodeConfig:
    return NodeConfig(
        data_dir=application.data_dir,
        name=application.name,
        region=application.region,
        capacity_bytes=ByteSize(application.capacity_bytes),
        coordinator=CoordinatorConfig(
            url=application.coordinator_url,
            peer_id=registered.coordinator.peer_id,
            addresses=registered.coordinator.addresses,
            node_id=registered.node_id,
        ),
        p2p=attrs.evolve(application.p2p, network=registered.network),
        admin=application.admin,
    )


def _write_config(config: NodeConfig) -> None:
    # The folder may be moved: what says where it is, is the place it is read from.
    text = config_as_toml(attrs.evolve(config, data_dir=Path()))
    replace_private_file(config.data_dir / CONFIG_NAME, text.encode())
