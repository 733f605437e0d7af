"""What people see of proofs: rounds, failures with their evidence."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import attrs

from fsn.coord.database.pool import Pool
from fsn.core.ids import NodeId

__all__ = ["FailureRecord", "RoundRecord", "last_proved", "list_failures", "list_rounds", "told_to_nodes"]


@attrs.frozen
class RoundRecord:
    """A round and what became of its challenges, of one node or of all. `judged_at` is None while it may still grow."""

    round: int
    begins_at: datetime
    judged_at: datetime | None
    suspicion: str | None
    asked: int
    passed: int
    failed: int
    missed: int
    errors: int
    offline: int
    quickest_ms: int | None = None
    """The quickest answer of those that passed, by the coordinator's clock; None when none did."""
    mean_ms: int | None = None
    """Their mean."""


@attrs.frozen
class FailureRecord:
    """A challenge that did not end well, with what anybody needs to judge it again: see `fsn.core.proofs`."""

    challenge: UUID
    round: int
    node: NodeId
    replica: UUID
    outcome: str
    seed: bytes = attrs.field(repr=False)
    difficulty: int
    root: bytes = attrs.field(repr=False)
    sealed_bytes: int
    tries: int
    detail: str
    at: datetime


async def list_rounds(db: Pool, node: NodeId | None, limit: int) -> Sequence[RoundRecord]:
    """The last rounds, the newest first: of one node those in which it was asked, or of all."""
    if node is None:
        return await db.fetch_all(
            """select r.round, r.begins_at, r.judged_at, r.suspicion, s.* from proof_rounds r cross join lateral (
                   select coalesce(sum(asked), 0)::bigint as asked, coalesce(sum(passed), 0)::bigint as passed,
                          coalesce(sum(failed), 0)::bigint as failed, coalesce(sum(missed), 0)::bigint as missed,
                          coalesce(sum(errors), 0)::bigint as errors, coalesce(sum(offline), 0)::bigint as offline,
                          min(quickest_ms) as quickest_ms, (sum(answer_ms) / nullif(sum(passed), 0))::bigint as mean_ms
                   from proof_sums where round = r.round) s
               order by r.round desc limit %s""",
            [limit],
            row=RoundRecord,
        )
    return await db.fetch_all(
        """select r.round, r.begins_at, r.judged_at, r.suspicion, s.asked, s.passed, s.failed, s.missed, s.errors, s.offline,
                  s.quickest_ms, case when s.quickest_ms is not null then s.answer_ms / nullif(s.passed, 0) end as mean_ms
           from proof_sums s join proof_rounds r on r.round = s.round where s.node_id = %s order by s.round desc limit %s""",
        [node, limit],
        row=RoundRecord,
    )


async def list_failures(
    db: Pool, node: NodeId, before: tuple[datetime, UUID] | None, limit: int
) -> Sequence[FailureRecord]:
    """Up to `limit` failures of a node, the newest first; those before this time and challenge only."""
    at, challenge = before if before is not None else ("infinity", UUID(int=2**128 - 1))
    return await db.fetch_all(
        """select challenge_id as challenge, round, node_id as node, replica_id as replica, outcome::text as outcome, seed, difficulty,
                  root, sealed_bytes, tries, detail, at
           from proof_failures where node_id = %s and (at, challenge_id) < (%s::timestamptz, %s)
           order by at desc, challenge_id desc limit %s""",
        [node, at, challenge, limit],
        row=FailureRecord,
    )


async def last_proved(db: Pool, since: datetime) -> datetime | None:
    """When the last round began that is judged, and not under suspicion, of those that began at `since` or later."""
    row = await db.fetch_one(
        """select begins_at from proof_rounds where begins_at >= %s and judged_at is not null and suspicion is null
           order by round desc limit 1""",
        [since],
    )
    return row[0] if row else None


async def told_to_nodes(db: Pool, nodes: Sequence[NodeId]) -> Sequence[tuple[object, ...]]:
    """For each node that is known: id, passed, missed, failed, proofs since vetting began, the first of them when, vetted since,
    suspended since, why it was judged, score."""
    return await db.fetch_all(
        """select n.id, coalesce(r.passed, 0), coalesce(r.missed, 0), coalesce(r.failed, 0), coalesce(r.vetting_passed, 0),
                  r.first_passed_at, n.vetted_at, n.suspended_at, n.judged_because, n.reputation
           from nodes n left join node_reputations r on r.node_id = n.id where n.id = any (%s::uuid[])""",
        [list(nodes)],
    )
