"""How a node's proofs have ended, over HTTP: anybody may look, and judge the evidence again."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from fsn.coord.database.proof_reports import FailureRecord, RoundRecord, list_failures, list_rounds
from fsn.coord.database.reputations import NodeProofs, ReputationEvent, list_events, node_proofs
from fsn.coord.services import Services
from fsn.core.errors import NotFound, Unavailable
from fsn.core.ids import NodeId
from fsn.core.reputation import DISQUALIFIED_BELOW, SUSPENDED_BELOW, VETTING_PROOFS, vetting_left
from fsn.web.api.paging import Page, decode_cursor, encode_cursor
from fsn.web.operations import Operations

__all__ = ["declare_node_proofs"]

ROUNDS = 42
"""A week of rounds of four hours."""
EVENTS = 50
Hex = Annotated[str, msgspec.Meta(description="In hexadecimal")]


class ReputationView(msgspec.Struct):
    """Two tracks, 0 to 1, in which the past fades: `score` falls with proofs that fail, `answering` with those that are missed or
    refused. Below their thresholds a node is disqualified, or suspended. A new node is vetted by so many proofs and days."""

    score: float
    disqualified_below: float
    answering: float
    suspended_below: float
    vetted: bool
    vetting_proofs: int
    vetting_proofs_wanted: int
    vetting_seconds_left: int
    suspended_at: datetime | None
    reason: str | None
    asked: int
    passed: int
    failed: int
    missed: int
    refused: int


class RoundView(msgspec.Struct):
    """What became of the node's challenges in a round. With a `suspicion` nobody was blamed; `judged_at` is null while it may grow.
    `quickest_ms` and `mean_ms`: how long the answers that passed took, by the coordinator's clock, with the way there and back; for
    information, never punished. A store far away from its node shows in the quickest, and so does a slow disk or a long way."""

    round: int
    begins_at: datetime
    judged_at: datetime | None
    suspicion: str | None
    asked: int
    passed: int
    failed: int
    missed: int
    refused: int
    offline: int
    quickest_ms: int | None
    mean_ms: int | None


class EventView(msgspec.Struct):
    """What moved the reputation: fault, vetted, suspended, resumed, disqualified, reinstated; both tracks after it."""

    at: datetime
    kind: str
    round: int | None
    score: float
    answering: float
    reason: str


class FailureView(msgspec.Struct):
    """A challenge that did not end well: bad (a wrong answer), gone (the node has not got the replica), missed (no answer in time, in
    `tries` tries), error (refused). With seed, difficulty, root and size anybody can judge an answer again."""

    challenge_id: UUID
    round: int
    replica_id: UUID
    outcome: str
    seed: Hex
    difficulty: int
    root: Hex
    sealed_bytes: int
    tries: int
    detail: str
    at: datetime


class NodeProofsView(msgspec.Struct):
    """The reputation with the last events that moved it, the last rounds, and a page of failures, the newest first."""

    reputation: ReputationView
    rounds: list[RoundView]
    events: list[EventView]
    failures: list[FailureView]
    next_cursor: str | None


def declare_node_proofs(api: Operations, services: Services) -> None:
    """Public, as is all that is known of nodes."""

    @api.operation(
        "GET", "/api/v1/nodes/<uuid:node_id>/proofs", summary="How a storage node's proofs have ended", tags=("nodes",),
        query=Page, ok=(200, NodeProofsView), errors=(NotFound, Unavailable),
    )  # fmt: skip
    async def get_node_proofs(node_id: UUID, query: Page) -> NodeProofsView:
        """Pages are of failures."""
        db, node = services.db, NodeId((await services.registrar.node(NodeId(node_id))).id)
        before = decode_cursor(query.cursor, tuple[datetime, UUID])
        failures = await list_failures(db, node, before, query.limit)
        is_full = len(failures) == query.limit
        return NodeProofsView(
            _reputation_view(await node_proofs(db, node), services.clock()),
            [_round_view(each) for each in await list_rounds(db, node, ROUNDS)],
            [_event_view(each) for each in await list_events(db, node, None, EVENTS)],
            [_failure_view(each) for each in failures],
            encode_cursor((failures[-1].at, failures[-1].challenge)) if is_full else None,
        )


def _reputation_view(found: NodeProofs, now: datetime) -> ReputationView:
    reputation = found.reputation
    left = 0.0 if found.vetted_at else vetting_left(reputation.first_passed_at, now.timestamp())
    return ReputationView(
        score=reputation.score,
        disqualified_below=DISQUALIFIED_BELOW,
        answering=reputation.answering,
        suspended_below=SUSPENDED_BELOW,
        vetted=found.vetted_at is not None,
        vetting_proofs=reputation.passed,
        vetting_proofs_wanted=VETTING_PROOFS,
        vetting_seconds_left=int(left),
        suspended_at=found.suspended_at,
        reason=found.reason,
        asked=found.asked,
        passed=found.passed,
        failed=found.failed,
        missed=found.missed,
        refused=found.errors,
    )


def _round_view(found: RoundRecord) -> RoundView:
    return RoundView(
        found.round, found.begins_at, found.judged_at, found.suspicion, found.asked, found.passed, found.failed, found.missed,
        found.errors, found.offline, found.quickest_ms, found.mean_ms,
    )  # fmt: skip


def _event_view(found: ReputationEvent) -> EventView:
    return EventView(found.at, found.kind, found.round, found.score, found.answering, found.reason)


def _failure_view(found: FailureRecord) -> FailureView:
    return FailureView(
        found.challenge, found.round, found.replica, found.outcome, found.seed.hex(), found.difficulty, found.root.hex(),
        found.sealed_bytes, found.tries, found.detail, found.at,
    )  # fmt: skip
