"""A whole storage node: its services and its admin API, for the length of a block or of a process."""

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import attrs
import structlog
import trio

from fsn.core.ids import NodeId, PeerId
from fsn.node.admin_token import make_admin_token
from fsn.node.chunkstore.base import ChunkStore
from fsn.node.config import NodeConfig
from fsn.node.proving import Proving
from fsn.node.services import NodeServices, OpenTransport, open_services
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.runtime.clock import Clock, system_clock
from fsn.runtime.data_folder import published_ports
from fsn.runtime.garbage import settle_garbage_collector
from fsn.runtime.groups import sole_error
from fsn.runtime.interfaces import interface_addresses
from fsn.runtime.stages import open_signals, open_stage
from fsn.web.admin.app import Health, Status, admin_app, health_of, status_of
from fsn.web.config import HttpConfig
from fsn.web.server import serve_http

__all__ = ["Node", "open_node", "run_node"]

log = structlog.get_logger()

ADMIN_GRACE_SECONDS = 5.0
"""For requests to the admin API that are under way when the node stops."""


@attrs.frozen(eq=False)
class Node:
    """A running node, as a library user sees it."""

    _services: NodeServices
    admin_port: int
    """The TCP port of the admin API, in force."""

    @property
    def peer(self) -> PeerId:
        """Its libp2p peer id."""
        return self._services.peer

    @property
    def node_id(self) -> NodeId:
        """Its id at the coordinator."""
        return self._services.node_id

    @property
    def p2p_port(self) -> int | None:
        """The TCP port it takes peers on; None with a transport that has no ports."""
        return self._services.p2p_port

    @property
    def quic_port(self) -> int | None:
        """The UDP port it takes peers on by QUIC; None without QUIC."""
        return self._services.quic_port

    @property
    def store(self) -> ChunkStore:
        """Its chunks."""
        return self._services.store

    def health(self) -> Health:
        """What `/health` says."""
        return health_of(self._services)

    def status(self) -> Status:
        """What `/status` says."""
        return status_of(self._services)


@asynccontextmanager
async def open_node(
    config: NodeConfig,
    *,
    open_transport: OpenTransport = open_libp2p_transport,
    clock: Clock = system_clock,
    rng: Random | None = None,
    make_proving: Callable[..., Proving] = Proving,
) -> AsyncIterator[Node]:
    """A node that runs as long as the block. On entering everything listens and `ports.json` says where. `make_proving`: see
    `fsn.node.services.open_services`.

    Raises `Conflict` (another process uses the folder), `ConfigError` (not initialised, a port is taken), `StorageError`. On leaving,
    the admin API ends first, then requests under way, heartbeats, connections; what the store has begun is finished. What goes wrong
    while the block runs cancels it and is raised from it, as itself when it is one error.
    """
    with sole_error():
        async with (
            open_services(
                config,
                open_transport=open_transport,
                clock=clock,
                rng=rng,
                own_addresses=interface_addresses,
                make_proving=make_proving,
            ) as services,
            open_stage("admin", grace_seconds=ADMIN_GRACE_SECONDS) as nursery,
        ):
            stopping, token = trio.Event(), make_admin_token(config.data_dir)
            http = HttpConfig(
                host=config.admin.host, port=config.admin.port, graceful_timeout_seconds=ADMIN_GRACE_SECONDS
            )
            serving = functools.partial(serve_http, admin_app(services, token), http, shutdown=stopping)
            node = Node(services, admin_port=await nursery.start(serving))
            try:
                with published_ports(config.data_dir, _ports(node)):
                    yield node
            finally:
                stopping.set()


async def run_node(
    config: NodeConfig,
    *,
    announce: Callable[[Node], None] = lambda node: None,
    make_proving: Callable[..., Proving] = Proving,
) -> None:
    """Run until SIGTERM or SIGINT; a second signal ends at once. `announce` is called when everything listens. `make_proving`: see
    `open_node`."""
    async with open_signals() as stopping, open_node(config, make_proving=make_proving) as node:
        announce(node)
        settle_garbage_collector()
        await stopping.wait()


def _ports(node: Node) -> dict[str, int | None]:
    return {"admin": node.admin_port, "p2p_tcp": node.p2p_port, "p2p_quic": node.quic_port}
