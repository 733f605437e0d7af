"""Nodes over HTTP: anybody may look, nodes register."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated
from uuid import UUID

import attrs
import msgspec

from fsn.coord.catalog import NodeRecord, NodeStatus, NodeTransition
from fsn.coord.liveness.uptime import UptimeShares
from fsn.coord.registration import NodeApplication
from fsn.coord.services import Services
from fsn.core.errors import Conflict, Invalid, NotFound, Unauthorized, Unavailable
from fsn.core.ids import NodeId, UserId
from fsn.web.api.fields import NodeName, Region
from fsn.web.api.paging import Page, decode_cursor, encode_cursor
from fsn.web.operations import Coded, Operations, RequestModel
from fsn.web.quart_front import current_request

__all__ = ["declare_nodes"]

NODES = "/api/v1/nodes"
_REFUSED = Coded(Unauthorized, ("challenge_invalid", "signature_invalid", "token_invalid", "token_expired"))
Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$", description="32 bytes in hexadecimal")]
Addresses = Callable[[str], tuple[str, ...]]
"""Where nodes that came by this host name find the coordinator, as multiaddresses."""


class NodeView(msgspec.Struct):
    """A storage node as anybody may see it; sizes in bytes.

    `status_until` is when a declared maintenance ends, or by when a drain should be over. `uptime` is the share of the last 30 days for
    which it was there, `uptime_day` that of the last 24 hours: of the time in which a coordinator was there to hear it and it was not in
    declared maintenance; null when there was no such time. `reputation` and `vetted`: see its proofs.
    """

    id: UUID
    name: str
    status: NodeStatus
    status_since: datetime
    status_reason: str
    status_until: datetime | None
    peer_id: str
    region: str | None
    capacity_bytes: int
    used_bytes: int
    chunk_count: int
    version: str
    reputation: float
    vetted: bool
    uptime: float | None
    uptime_day: float | None
    registered_at: datetime
    last_seen_at: datetime | None


class ReachabilityView(msgspec.Struct):
    """Whether a fresh connection got through to the node when a coordinator last tried: `reach` is direct or own_connection, `outcome` the
    most telling of what the dials found (reached, refused, no_answer, wrong_peer, broken, not_tried)."""

    reach: str
    outcome: str
    tested_at: datetime


class NodeDetailsView(NodeView):
    """A storage node as anybody may see it. `reachability` is null until it has asked to be dialled."""

    reachability: ReachabilityView | None


class NodesView(msgspec.Struct):
    """A page of nodes."""

    nodes: list[NodeView]
    next_cursor: str | None


class TransitionView(msgspec.Struct):
    """A node passed from one state (null: before it registered) into another. `coordinator` is the peer id of the coordinator that saw or
    decided it, null for an administrator."""

    at: datetime
    from_status: NodeStatus | None
    to_status: NodeStatus
    reason: str
    until: datetime | None
    coordinator: str | None


class TransitionsView(msgspec.Struct):
    """A page of a node's transitions."""

    transitions: list[TransitionView]
    next_cursor: str | None


class ChallengeBody(RequestModel, frozen=True, kw_only=True):
    """The node's Ed25519 public key."""

    public_key: Hex32


class ChallengeView(msgspec.Struct):
    """A nonce to be signed, in hexadecimal."""

    nonce: str
    expires_at: datetime


class RegisterBody(RequestModel, frozen=True, kw_only=True):
    """A node's application. The signature is over "fsn-register-v1" | nonce | public key."""

    public_key: Hex32
    name: NodeName
    capacity_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**60)]
    nonce: Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{80}$")]
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{128}$")]
    region: Region | None = None
    operator_token: str | None = None


class CoordinatorView(msgspec.Struct):
    """A coordinator's libp2p identity and where it listens."""

    peer_id: str
    addresses: list[str]


class RegisteredView(msgspec.Struct):
    """What the node keeps. The API key is shown this once."""

    node_id: UUID
    api_key: str
    coordinator: CoordinatorView
    network: str


def declare_nodes(api: Operations, services: Services, addresses: Addresses) -> None:
    """Add the operations on nodes."""
    registrar = services.registrar

    @api.operation(
        "GET", NODES, summary="List storage nodes", tags=("nodes",),
        query=Page, ok=(200, NodesView), errors=(Unavailable,),
    )  # fmt: skip
    async def list_nodes(query: Page) -> NodesView:
        """In the order of their ids."""
        after = decode_cursor(query.cursor, UUID)
        records = await registrar.nodes(NodeId(after) if after else None, query.limit)
        is_full = len(records) == query.limit
        shares = await services.uptimes.shares([record.id for record in records])
        views = [_view(services, record, shares[record.id]) for record in records]
        return NodesView(views, encode_cursor(records[-1].id) if is_full else None)

    @api.operation(
        "GET", f"{NODES}/<uuid:node_id>", summary="One storage node", tags=("nodes",),
        ok=(200, NodeDetailsView), errors=(NotFound, Unavailable),
    )  # fmt: skip
    async def get_node(node_id: UUID) -> NodeDetailsView:
        """As anybody may see it, and how it was reached when it was last dialled."""
        record = await registrar.node(NodeId(node_id))
        view = _view(services, record, (await services.uptimes.shares([record.id]))[record.id])
        dialed = await registrar.reachability(NodeId(node_id))
        return NodeDetailsView(
            **msgspec.structs.asdict(view), reachability=ReachabilityView(**attrs.asdict(dialed)) if dialed else None
        )

    @api.operation(
        "GET", f"{NODES}/<uuid:node_id>/transitions", summary="What a storage node went through", tags=("nodes",),
        query=Page, ok=(200, TransitionsView), errors=(NotFound, Unavailable),
    )  # fmt: skip
    async def list_transitions(node_id: UUID, query: Page) -> TransitionsView:
        """The newest first. Those of the last days are all there, of older ones the last thousand."""
        before = decode_cursor(query.cursor, int)
        found = await registrar.transitions(NodeId(node_id), before, query.limit)
        is_full = len(found) == query.limit
        return TransitionsView(
            [_transition_view(each) for each in found], encode_cursor(found[-1].id) if is_full else None
        )

    @api.operation(
        "POST", f"{NODES}/challenge", summary="Ask for a nonce to sign", tags=("nodes",),
        body=ChallengeBody, ok=(200, ChallengeView),
    )  # fmt: skip
    async def challenge(body: ChallengeBody) -> ChallengeView:
        """Good for one registration with this key, within five minutes."""
        given = registrar.challenge(bytes.fromhex(body.public_key))
        return ChallengeView(given.nonce.hex(), given.expires_at)

    @api.operation(
        "POST", f"{NODES}/register", summary="Register a storage node", tags=("nodes",),
        body=RegisterBody, ok=(201, RegisteredView), errors=(Invalid, _REFUSED, Coded(Conflict, ("challenge_used",)), Unavailable),
    )  # fmt: skip
    async def register_node(body: RegisterBody) -> RegisteredView:
        """Registering again with the same key is the same node with a new API key."""
        registered = await registrar.register(_application(services, body))
        found = addresses(current_request().host)
        return RegisteredView(
            registered.node,
            registered.api_key,
            CoordinatorView(services.transport.peer, list(found)),
            services.network,
        )


def _application(services: Services, body: RegisterBody) -> NodeApplication:
    operator: UserId | None = services.accounts.authenticate(body.operator_token) if body.operator_token else None
    return NodeApplication(
        public_key=bytes.fromhex(body.public_key),
        name=body.name,
        capacity_bytes=body.capacity_bytes,
        region=body.region,
        operator=operator,
        nonce=bytes.fromhex(body.nonce),
        signature=bytes.fromhex(body.signature),
    )


def _transition_view(transition: NodeTransition) -> TransitionView:
    return TransitionView(
        at=transition.at,
        from_status=transition.begin,
        to_status=transition.end,
        reason=transition.reason,
        until=transition.until,
        coordinator=transition.coordinator,
    )


def _view(services: Services, record: NodeRecord, shares: UptimeShares) -> NodeView:
    standing = services.membership.standing(record)
    return NodeView(
        id=record.id,
        name=record.name,
        status=standing.status,
        status_since=standing.since,
        status_reason=standing.reason,
        status_until=record.status_until,
        peer_id=record.peer_id,
        region=record.region,
        capacity_bytes=record.capacity_bytes,
        used_bytes=record.used_bytes,
        chunk_count=record.chunk_count,
        version=record.version,
        reputation=record.reputation,
        vetted=record.vetted_at is not None,
        uptime=shares.month,
        uptime_day=shares.day,
        registered_at=record.registered_at,
        last_seen_at=record.last_seen_at,
    )
