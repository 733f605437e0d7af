"""A node's admin API, for this machine only: health, status, chunks, metrics; draining and maintenance for who has the token."""

import hmac
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import attrs
import msgspec
import trio
from prometheus_client import generate_latest
from quart import Response

from fsn.core.errors import Invalid, Unauthorized
from fsn.core.ids import ReplicaId, parse_uuid
from fsn.core.version import VERSION
from fsn.node.chunkstore.base import StoredChunk
from fsn.node.services import NodeServices
from fsn.runtime.metrics import Readings
from fsn.web.admin.credit import EarningsStatus, EarningsView, ProofsStatus, told_of
from fsn.web.admin.metrics import METRICS_TYPE, READINGS
from fsn.web.admin.standing import Counted, counted_of, declare_standing
from fsn.web.admin.upkeep import Scrub, declare_upkeep, scrub_of
from fsn.web.bearer import bearer
from fsn.web.middleware import HttpMetrics, install_middleware
from fsn.web.operations import Guard, Operation, Operations, RequestModel
from fsn.web.problems import install_problems
from fsn.web.quart_front import FrontQuart, current_request

__all__ = ["admin_app"]

MAX_PAGE = 1000


class Health(msgspec.Struct, frozen=True):
    """`ok`, or `degraded` with a reason for each part that is."""

    status: str
    reasons: dict[str, str]


class CoordinatorStatus(msgspec.Struct, frozen=True):
    """How things stand with one coordinator; `transport` is what the connection goes over: `tcp`, `quic-v1`, or null without one."""

    peer_id: str
    addresses: tuple[str, ...]
    connected: bool
    transport: str | None
    seconds_since_heartbeat: float | None
    earned_micro_credits: int
    failure: str | None


class DialStatus(msgspec.Struct, frozen=True):
    """One address that a coordinator dialled: reached, refused, no_answer, wrong_peer, broken or not_tried, and more about it."""

    address: str
    outcome: str
    detail: str
    coordinator: str
    seconds_ago: float


class ReachabilityStatus(msgspec.Struct, frozen=True):
    """How others get to this node: `direct` (at `addresses`), `own_connection` (only through the connections that it makes itself),
    `untested` or `none` (no coordinator is connected); why; how each dial of the last test ended; and the IP addresses that
    coordinators see it come from."""

    reach: str
    reason: str
    addresses: tuple[str, ...]
    observed_addresses: tuple[str, ...]
    dials: tuple[DialStatus, ...]


class DhtStatus(msgspec.Struct, frozen=True):
    """This node in the DHT: peers that answered there, records kept for coordinators, the addresses that it published (none unless it is
    reachable directly), and when the DHT last led to a coordinator that had moved."""

    network: str
    peers: int
    records: int
    published: tuple[str, ...]
    coordinator_found_at: datetime | None


class RecoveryStatus(msgspec.Struct, frozen=True):
    """What the last start found; `lost_total` counts over all starts, `index_rebuilt`: the index was damaged and made anew."""

    temps_removed: int
    adopted: int
    lost: int
    foreign: int
    lost_total: int
    sums_corrected: bool
    index_rebuilt: bool


class Status(msgspec.Struct, frozen=True):
    """The node at a glance; sizes in bytes. `standing` is what it means to do (active, draining, maintenance, left), until when."""

    node_id: UUID
    name: str
    peer_id: str
    version: str
    uptime_seconds: float
    chunk_count: int
    used_bytes: int
    free_bytes: int
    capacity_bytes: int
    draining: bool
    standing: str
    standing_until: datetime | None
    counted: Counted
    p2p_addresses: tuple[str, ...]
    reachability: ReachabilityStatus
    dht: DhtStatus
    coordinators: tuple[CoordinatorStatus, ...]
    proofs: ProofsStatus | None
    earnings: EarningsStatus | None
    recovery: RecoveryStatus
    scrub: Scrub
    trash_count: int
    trash_bytes: int


class Chunk(msgspec.Struct, frozen=True):
    """One stored replica: its id (32 hex digits), Merkle root and when it came; when a coordinator challenged it last, and how that
    ended as this node sees it: `answered`, `gone`, `failed` (null: never)."""

    id: str
    size_bytes: int
    root: str
    stored_at: datetime
    challenged_at: datetime | None = None
    challenge_ended: str | None = None


class ChunkPage(msgspec.Struct, frozen=True):
    """Chunks in the order of their ids; `next_cursor` is null on the last page."""

    chunks: tuple[Chunk, ...]
    next_cursor: str | None


class PageQuery(RequestModel, frozen=True):
    """How many, and from where on."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100
    cursor: str | None = None


def admin_app(node: NodeServices, token: str) -> FrontQuart:
    """The application over a running node; it must listen on loopback only. `token` is wanted for what changes something."""
    app = FrontQuart(__name__)
    install_problems(app)
    _operations(node, token).install(app)
    node.metrics.registry.register(Readings(node, READINGS))
    install_middleware(app, metrics=HttpMetrics(node.metrics.registry))
    return app


def _guard_with(token: str) -> Guard:
    async def guard(operation: Operation) -> None:
        if operation.security:
            given = bearer(
                current_request().headers.get("Authorization", ""), "the token is in admin.token in the node's folder"
            )
            if not hmac.compare_digest(given.encode(), token.encode()):
                raise Unauthorized("that is not the token in admin.token in the node's folder", code="token_invalid")

    return guard


def _operations(node: NodeServices, token: str = "") -> Operations:
    operations = Operations(_guard_with(token), guard_errors=())

    @operations.operation("GET", "/health", summary="Is the node in good health?", ok=(200, Health))
    async def get_health() -> Health:
        return health_of(node)

    @operations.operation("GET", "/status", summary="The node at a glance", ok=(200, Status))
    async def get_status() -> Status:
        return status_of(node)

    @operations.operation(
        "GET", "/chunks", summary="What is stored here", query=PageQuery, ok=(200, ChunkPage), errors=(Invalid,)
    )
    async def list_chunks(query: PageQuery) -> ChunkPage:
        return await chunk_page(node, query)

    @operations.operation("GET", "/earnings", summary="What coordinators have told of its pay", ok=(200, EarningsView))
    async def get_earnings() -> EarningsView:
        earned = max((link.earned_micro_credits for link in node.reporting.links), default=0)
        return EarningsView(earned, told_of(node.reporting)[1])

    @operations.operation("GET", "/metrics", summary="For Prometheus", produces="text/plain")
    async def get_metrics() -> Response:
        return Response(generate_latest(node.metrics.registry), content_type=METRICS_TYPE)

    declare_standing(operations, node)
    declare_upkeep(operations, node)
    return operations


def health_of(node: NodeServices) -> Health:
    """Degraded without a coordinator, without room, while the disk fails, and after losses or a damaged index at this start.

    A node that drains, is in maintenance or has left is as its operator wants it.
    """
    reasons = {}
    if not any(link.is_connected for link in node.reporting.links):
        failures = [link.failure for link in node.reporting.links if link.failure]
        reasons["coordinator"] = failures[0] if failures else "not connected yet"
    if node.store.free_bytes() == 0:
        reasons["space"] = "the allowance or the disk is full"
    if node.store.failure:
        reasons["disk"] = node.store.failure
    if lost := node.store.recovery.lost:
        reasons["chunks"] = f"{lost} chunks were found missing or damaged at start-up"
    if node.store.recovery.index_rebuilt:
        reasons["index"] = "the chunk index was damaged at start-up, and made anew from the chunks that are there"
    return Health("degraded" if reasons else "ok", reasons)


def status_of(node: NodeServices) -> Status:
    """Read from memory; one `statvfs`."""
    totals, recovery = node.store.totals(), node.store.recovery
    proofs, earnings = told_of(node.reporting)
    return Status(
        node_id=node.node_id,
        name=node.config.name,
        peer_id=node.peer,
        version=VERSION,
        uptime_seconds=round(trio.current_time() - node.started_at, 1),
        chunk_count=totals.count,
        used_bytes=totals.size_bytes,
        free_bytes=node.store.free_bytes(),
        capacity_bytes=node.config.capacity_bytes,
        draining=not node.declaring.standing.takes_chunks,
        standing=node.declaring.standing.kind,
        standing_until=node.declaring.standing.until,
        counted=counted_of(node),
        p2p_addresses=tuple(node.transport.addresses),
        reachability=_reachability(node),
        dht=_dht(node),
        coordinators=_coordinators(node),
        proofs=proofs,
        earnings=earnings,
        recovery=RecoveryStatus(**attrs.asdict(recovery)),
        scrub=scrub_of(node),
        trash_count=node.store.trash_totals().count,
        trash_bytes=node.store.trash_totals().size_bytes,
    )


def _reachability(node: NodeServices) -> ReachabilityStatus:
    verdict, told, now = node.reachability.verdict, node.reachability.told, trio.current_time()
    return ReachabilityStatus(
        reach=verdict.reach,
        reason=verdict.reason,
        addresses=verdict.addresses,
        observed_addresses=tuple(dict.fromkeys(each.observed for each in told if each.observed)),
        dials=tuple(
            DialStatus(result.address, result.outcome, result.detail, each.coordinator, round(now - each.at, 1))
            for each in told
            for result in each.results
        ),
    )


def _dht(node: NodeServices) -> DhtStatus:
    discovery = node.discovering.discovery
    return DhtStatus(
        network=node.config.p2p.network,
        peers=len(discovery.table),
        records=len(discovery.store),
        published=discovery.published.addresses if discovery.published else (),
        coordinator_found_at=node.discovering.found_at,
    )


def _coordinators(node: NodeServices) -> tuple[CoordinatorStatus, ...]:
    now = trio.current_time()
    return tuple(
        CoordinatorStatus(
            peer_id=link.contact.peer,
            addresses=link.contact.addresses,
            connected=link.is_connected,
            transport=node.transport.carrier(link.contact.peer),
            seconds_since_heartbeat=None if link.heartbeat_at is None else round(now - link.heartbeat_at, 1),
            earned_micro_credits=link.earned_micro_credits,
            failure=link.failure,
        )
        for link in node.reporting.links
    )


async def chunk_page(node: NodeServices, query: PageQuery) -> ChunkPage:
    """One page. Raises `Invalid` for a cursor that is none."""
    after = parse_uuid(query.cursor) if query.cursor is not None else None
    if query.cursor is not None and after is None:
        raise Invalid(f"cursor: the next_cursor of the page before is wanted; got {query.cursor[:40]!r}")
    found = await node.store.list(None if after is None else ReplicaId(after), query.limit + 1)
    shown = found[: query.limit]
    return ChunkPage(tuple(map(_chunk, shown)), shown[-1].replica.hex if len(found) > query.limit else None)


def _chunk(chunk: StoredChunk) -> Chunk:
    ended = chunk.challenged
    return Chunk(
        chunk.replica.hex,
        chunk.size_bytes,
        chunk.root.hex(),
        datetime.fromtimestamp(chunk.stored_at, UTC),
        datetime.fromtimestamp(ended.at, UTC) if ended else None,
        ended.how if ended else None,
    )
