"""A running node but for its HTTP face: store, transport, handlers, reporting, opened in order and closed in reverse."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from random import Random

import attrs
import structlog
import trio

from fsn.core.errors import Conflict
from fsn.core.ids import NodeId, PeerId
from fsn.core.proofs import network_id
from fsn.core.version import VERSION
from fsn.node.chunkstore.base import ChunkStore
from fsn.node.chunkstore.disk import open_disk_store
from fsn.node.config import IDENTITY_NAME, NodeConfig
from fsn.node.declaring import Declaring
from fsn.node.discovering import LONGEST_LOOK_SECONDS, Discovering, open_discovering
from fsn.node.handlers import ChunkHandlers
from fsn.node.metrics import NodeMetrics
from fsn.node.proving import Proving
from fsn.node.reachability import AddressWatching, Reachability
from fsn.node.reporting import Reporting
from fsn.node.scrubbing import LossReporting, Scrubbing, TrashEmptying
from fsn.node.standing import NodeStanding, StandingFile
from fsn.p2p.announcing import quic_port_of, tcp_port_of
from fsn.p2p.client import open_requester
from fsn.p2p.config import P2pConfig
from fsn.p2p.gate import Gate
from fsn.p2p.server import serve_requests
from fsn.p2p.transport.base import Transport
from fsn.p2p.wire.messages import Heartbeat, ProveHeld
from fsn.runtime.clock import Clock, system_clock
from fsn.runtime.data_folder import forget_ports, locked_folder
from fsn.runtime.identity import Identity, load_identity
from fsn.runtime.stages import open_stage
from fsn.runtime.supervise import Bell, supervise

__all__ = ["NodeServices", "OpenStore", "OpenTransport", "open_services", "open_store"]

log = structlog.get_logger()

OpenTransport = Callable[[Identity, P2pConfig], AbstractAsyncContextManager[Transport]]
"""`open_libp2p_transport`, or a memory network's way in."""
OpenStore = Callable[[NodeConfig, Clock, NodeMetrics], AbstractAsyncContextManager[ChunkStore]]
"""`open_store`, or what a simulation has in place of a disk."""


@attrs.define(eq=False)
class NodeServices:
    """The parts of a running node."""

    config: NodeConfig
    store: ChunkStore
    transport: Transport
    reporting: Reporting
    declaring: Declaring
    reachability: Reachability
    discovering: Discovering
    started_at: float
    """By trio's clock."""
    metrics: NodeMetrics
    scrubbing: Scrubbing

    @property
    def peer(self) -> PeerId:
        """Our peer id."""
        return self.transport.peer

    @property
    def node_id(self) -> NodeId:
        """Our id at the coordinator."""
        return self.config.node_id

    @property
    def p2p_port(self) -> int | None:
        """The TCP port in force; None when the transport has none."""
        return tcp_port_of(self.transport.addresses)

    @property
    def quic_port(self) -> int | None:
        """The UDP port for QUIC in force; None without QUIC."""
        return quic_port_of(self.transport.addresses)


def open_store(config: NodeConfig, clock: Clock, metrics: NodeMetrics) -> AbstractAsyncContextManager[ChunkStore]:
    """The store on the disk, in the node's folder."""
    return open_disk_store(
        config.data_dir,
        capacity_bytes=config.capacity_bytes,
        reserve_bytes=config.reserve_bytes,
        clock=clock,
        note_batch=metrics.note_batch,
    )


@asynccontextmanager
async def open_services(
    config: NodeConfig,
    *,
    open_transport: OpenTransport,
    open_store: OpenStore = open_store,
    clock: Clock = system_clock,
    rng: Random | None = None,
    own_addresses: Callable[[], frozenset[str]] | None = None,
    shortest_rest_seconds: float = 0.0,
    dht_refresh_seconds: float = LONGEST_LOOK_SECONDS,
    make_proving: Callable[..., Proving] = Proving,
) -> AsyncIterator[NodeServices]:
    """A node that serves its coordinators and reports to them for the length of the block.

    `own_addresses` tells the addresses of this machine, which are looked at once a second; without it nobody looks.
    `shortest_rest_seconds`: see `supervise`; it holds for the work on chunks. In the DHT we look around every `dht_refresh_seconds`.
    `make_proving` is called as `Proving` is: a simulation has nodes that cheat.

    Raises `Conflict` when another process uses the folder, `ConfigError` when it is not initialised or a port is taken, `StorageError`
    when the chunk store cannot be opened; `Conflict` (`left`), too, when the node has left the network. On leaving: requests under way
    may end, coordinators are told, connections close, what the store has begun is finished.
    """
    with locked_folder(config.data_dir):
        standing = StandingFile(config.data_dir)
        _check_not_left(config, standing.load())
        # A killed node has left its ports behind, and programs wait for this file to appear.
        forget_ports(config.data_dir)
        identity, metrics = load_identity(config.data_dir / IDENTITY_NAME), NodeMetrics()
        async with (
            open_store(config, clock, metrics) as store,
            open_transport(identity, config.p2p) as transport,
            open_requester(transport) as requester,
        ):
            rng = rng or Random()  # noqa: S311 - jitter, not a secret

            def addresses() -> tuple[str, ...]:
                return config.p2p.announce or tuple(transport.addresses)

            reporting = Reporting(
                transport,
                requester,
                describe=lambda: _description(store, declaring, addresses()),
                rng=rng,
                heartbeat_seconds=config.heartbeat_seconds,
            )
            declaring = Declaring(
                requester,
                lambda: reporting.links,
                standing,
                clock=clock,
                totals=store.totals,
                progress_seconds=config.heartbeat_seconds,
            )
            reporting.on_connected = declaring.wake
            handlers = ChunkHandlers(store, is_draining=lambda: not declaring.standing.takes_chunks, metrics=metrics)
            proving = make_proving(store, network_id(config.p2p.network), config.node_id, clock)
            reachability = Reachability(reporting, requester, addresses, rng=rng)
            lost, stopping = Bell(), trio.Event()
            scrubbing = Scrubbing(store, config.upkeep, clock, lost)
            losses = LossReporting(store, requester, reporting.connected, lost)
            gate = Gate()
            answering = {**handlers.by_request(), ProveHeld: metrics.counted("prove", proving.prove_held)}
            serve_requests(transport, answering, may_ask=reporting.knows, gate=gate)
            reporting.add(config.coordinator.contact)
            discovering = open_discovering(
                transport,
                identity,
                config.p2p.network,
                reporting=reporting,
                reachability=reachability,
                folder=config.data_dir,
                clock=clock,
                longest_look_seconds=dht_refresh_seconds,
            )
            async with open_stage("reporting", grace_seconds=0) as nursery:
                nursery.start_soon(reporting.run, name="reporting")
                nursery.start_soon(declaring.run, name="declaring")
                nursery.start_soon(reachability.run, name="reachability")
                nursery.start_soon(supervise, discovering, trio.Event())
                for worker in (scrubbing, losses, proving, TrashEmptying(store, config.upkeep, clock)):
                    nursery.start_soon(
                        partial(supervise, worker, stopping, shortest_rest_seconds=shortest_rest_seconds)
                    )
                if own_addresses is not None:
                    nursery.start_soon(supervise, AddressWatching(own_addresses, reporting.redial), trio.Event())
                log.info("node_started", node=str(config.node_id), peer=transport.peer, chunks=store.totals().count)
                yield NodeServices(
                    config,
                    store,
                    transport,
                    reporting,
                    declaring,
                    reachability,
                    discovering,
                    trio.current_time(),
                    metrics,
                    scrubbing,
                )
                stopping.set()
                await _finish(gate, config)
            await declaring.farewell()  # no heartbeat follows, which would take it back


async def _finish(gate: Gate, config: NodeConfig) -> None:
    """Let the requests under way end; heartbeats go on meanwhile."""
    gate.close()
    log.info("node_stopping", node=str(config.node_id), requests=gate.inside)
    with trio.move_on_after(config.shutdown_grace_seconds) as grace:
        await gate.wait_idle()
    if grace.cancelled_caught:
        log.warning("requests_cut", requests=gate.inside, grace_seconds=config.shutdown_grace_seconds)


def _check_not_left(config: NodeConfig, standing: NodeStanding) -> None:
    if standing.kind == "left":
        at = f" on {standing.since:%Y-%m-%d %H:%M} UTC" if standing.since else ""
        raise Conflict(
            f"the node in {config.data_dir} has left the network{at} and stores nothing any more: its folder can be deleted;"
            " to take part again, make a new node by `fsn node init` with another --data-dir",
            code="left",
        )


def _description(store: ChunkStore, declaring: Declaring, addresses: tuple[str, ...]) -> Heartbeat:
    totals = store.totals()
    return Heartbeat(
        chunk_count=totals.count,
        used_bytes=totals.size_bytes,
        free_bytes=store.free_bytes(),
        version=VERSION,
        draining=not declaring.standing.takes_chunks,
        addresses=addresses,
    )
