"""Reputations in the catalogue: made of a round's sums when it is judged; and what follows for a node, on record with its reason."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, LiteralString

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.node_states import change_status
from fsn.coord.database.pool import Pool
from fsn.coord.database.repair_scans import queue_node
from fsn.core.ids import NodeId
from fsn.core.reputation import (
    DISQUALIFIED_BELOW,
    SUSPENDED_BELOW,
    Reputation,
    RoundSums,
    Verdict,
    after_round,
    is_vetted,
    verdict,
)

__all__ = [
    "Judged",
    "NodeProofs",
    "ReputationEvent",
    "exclude",
    "judge_round",
    "list_events",
    "node_proofs",
    "start_anew",
]

_AGAIN: Final[LiteralString] = "2"
"""For so many rounds more what failed in one counts as failed again."""
_TRACKS: Final[LiteralString] = "alpha, beta, answer_alpha, answer_beta, vetting_passed, first_passed_at"


@attrs.frozen
class Judged:
    """What a round changed about a node: `kind` as in the table `reputation_events`."""

    node: NodeId
    kind: str
    score: float
    answering: float
    reason: str


@attrs.frozen
class NodeProofs:
    """A node's proofs since it was registered, its tracks, and what follows from them."""

    reputation: Reputation
    asked: int
    passed: int
    failed: int
    missed: int
    errors: int
    vetted_at: datetime | None
    suspended_at: datetime | None
    reason: str | None


@attrs.frozen
class ReputationEvent:
    """What moved a reputation. `round` is None where an administrator did it."""

    id: int
    at: datetime
    kind: str
    round: int | None
    score: float
    answering: float
    reason: str


@attrs.frozen
class _Node:
    node: NodeId
    sums: RoundSums
    before: Reputation
    is_vetted: bool
    is_suspended: bool


async def judge_round(connection: Connection, number: int, at: datetime) -> tuple[Judged, ...]:
    """Reckon a round into the reputations of its nodes, once; within the caller's transaction. What changed, for the log.

    A suspicious round, and one that is judged already or does not exist, changes no reputation. Several coordinators may call it.
    """
    cursor = await connection.execute(
        """update proof_rounds set judged_at = %s where round = %s and judged_at is null returning suspicion""",
        [at, number],
    )
    row = await cursor.fetchone()
    if row is None or row[0] is not None:
        return ()
    nodes = await _nodes_of(connection, number)
    judged = [(node, after_round(node.before, node.sums, at.timestamp())) for node in nodes]
    await _store(connection, number, judged)
    changes = [change for node, after in judged for change in _changes(node, after, at)]
    await _note(connection, number, changes, at)
    await _apply(connection, changes, at)
    return tuple(changes)


async def node_proofs(db: Pool, node: NodeId) -> NodeProofs:
    """Of one node; a new one's when nothing is on record."""
    row = await db.fetch_one(
        f"""select {_TRACKS}, coalesce(asked, 0), coalesce(passed, 0), coalesce(failed, 0), coalesce(missed, 0), coalesce(errors, 0),
                vetted_at, suspended_at, judged_because
            from nodes left join node_reputations on node_id = id where id = %s""",  # noqa: S608 - a constant
        [node],
    )
    if row is None:
        return NodeProofs(Reputation(), 0, 0, 0, 0, 0, None, None, None)
    return NodeProofs(_reputation(row[:6]), *row[6:])


async def list_events(db: Pool, node: NodeId, before: int | None, limit: int) -> Sequence[ReputationEvent]:
    """Up to `limit` events of a node, the newest first, those before event `before` only."""
    return await db.fetch_all(
        """select id, at, kind, round, score, answering, reason from reputation_events
           where node_id = %s and id < %s order by id desc limit %s""",
        [node, before or 2**62, limit],
        row=ReputationEvent,
    )


async def start_anew(connection: Connection, node: NodeId, *, reason: str, at: datetime) -> None:
    """Fresh tracks, vetting from the beginning, no suspension: an administrator's word. The caller changes the state."""
    new = Reputation()
    await connection.execute(
        """update node_reputations set alpha = %s, beta = 0, answer_alpha = %s, answer_beta = 0, vetting_passed = 0,
               first_passed_at = null where node_id = %s""",
        [new.alpha, new.answer_alpha, node],
    )
    await connection.execute(
        "update nodes set reputation = 1, vetted_at = null, suspended_at = null, judged_because = null where id = %s",
        [node],
    )
    await _note(connection, None, [Judged(node, "reinstated", new.score, new.answering, reason)], at)


async def exclude(connection: Connection, node: NodeId, *, reason: str, at: datetime) -> None:
    """Put a disqualification by an administrator on record. The caller changes the state."""
    await connection.execute("update nodes set judged_because = %s where id = %s", [reason, node])
    cursor = await connection.execute(f"select {_TRACKS} from node_reputations where node_id = %s", [node])  # noqa: S608 - a constant
    row = await cursor.fetchone()
    stands = Reputation() if row is None else _reputation(row)
    await _note(connection, None, [Judged(node, "disqualified", stands.score, stands.answering, reason)], at)


async def _nodes_of(connection: Connection, number: int) -> list[_Node]:
    """The nodes of a round, in the order of their ids, as they stood before it. Their rows are held.

    What failed is lost and is not asked for again; it is reckoned as if it were, and failed again, in the two rounds that follow: a node
    that threw everything away would else be asked nothing, and keep its score. Not what failed before an administrator's new start.
    """
    cursor = await connection.execute(
        f"""with asked as (
                select node_id, sum(asked) filter (where round = %(round)s) as asked,
                       sum(passed) filter (where round = %(round)s) as passed,
                       sum(failed) filter (where round = %(round)s) as failed, sum(missed) filter (where round = %(round)s) as missed,
                       sum(errors) filter (where round = %(round)s) as errors, sum(offline) filter (where round = %(round)s) as offline,
                       coalesce(sum(failed) filter (where round < %(round)s and not exists (
                           select from reputation_events e where e.node_id = s.node_id and e.kind = 'reinstated'
                               and e.at >= o.judged_at)), 0) as again
                from proof_sums s join proof_rounds o using (round)
                where round between %(round)s - {_AGAIN} and %(round)s and o.suspicion is null group by node_id)
            select s.node_id, coalesce(s.asked, 0) + again, coalesce(s.passed, 0), coalesce(s.failed, 0) + again, coalesce(s.missed, 0),
                   coalesce(s.errors, 0), coalesce(s.offline, 0), {_TRACKS}, n.vetted_at is not null, n.suspended_at is not null
            from asked s join nodes n on n.id = s.node_id and n.status <> 'disqualified'
                left join node_reputations r on r.node_id = s.node_id
            where coalesce(s.asked, 0) + again > 0 order by n.id for no key update of n""",  # noqa: S608 - constants
        {"round": number},
    )
    return [
        _Node(NodeId(row[0]), RoundSums(*(int(each) for each in row[1:7])), _reputation(row[7:13]), row[13], row[14])
        for row in await cursor.fetchall()
    ]


def _reputation(row: Sequence[object]) -> Reputation:
    if row[0] is None:
        return Reputation()
    alpha, beta, answer_alpha, answer_beta, passed, first = row
    seconds = first.timestamp() if isinstance(first, datetime) else None
    return Reputation(alpha, beta, answer_alpha, answer_beta, passed, seconds)  # type: ignore[arg-type]


async def _store(connection: Connection, number: int, judged: Sequence[tuple[_Node, Reputation]]) -> None:
    await connection.execute(
        """insert into node_reputations as r (node_id, alpha, beta, answer_alpha, answer_beta, vetting_passed, first_passed_at, last_round,
                                              asked, passed, failed, missed, errors, offline)
           select n.node, n.alpha, n.beta, n.answer_alpha, n.answer_beta, n.vetting, n.first, %(round)s,
                  coalesce(s.asked, 0), coalesce(s.passed, 0), coalesce(s.failed, 0), coalesce(s.missed, 0), coalesce(s.errors, 0),
                  coalesce(s.offline, 0)
           from unnest(%(nodes)s::uuid[], %(alpha)s::float8[], %(beta)s::float8[], %(answer_alpha)s::float8[], %(answer_beta)s::float8[],
                       %(vetting)s::bigint[], %(first)s::timestamptz[])
               as n (node, alpha, beta, answer_alpha, answer_beta, vetting, first)
               left join proof_sums s on s.round = %(round)s and s.node_id = n.node
           on conflict (node_id) do update set alpha = excluded.alpha, beta = excluded.beta, answer_alpha = excluded.answer_alpha,
               answer_beta = excluded.answer_beta, vetting_passed = excluded.vetting_passed, first_passed_at = excluded.first_passed_at,
               last_round = excluded.last_round, asked = r.asked + excluded.asked, passed = r.passed + excluded.passed,
               failed = r.failed + excluded.failed, missed = r.missed + excluded.missed, errors = r.errors + excluded.errors,
               offline = r.offline + excluded.offline""",
        {
            "round": number,
            "nodes": [node.node for node, _ in judged],
            "alpha": [after.alpha for _, after in judged],
            "beta": [after.beta for _, after in judged],
            "answer_alpha": [after.answer_alpha for _, after in judged],
            "answer_beta": [after.answer_beta for _, after in judged],
            "vetting": [after.passed for _, after in judged],
            "first": [_time(after.first_passed_at) for _, after in judged],
        },
    )
    changed = [(node.node, after.score) for node, after in judged if after.score != node.before.score]
    await connection.execute(
        """update nodes set reputation = c.score from unnest(%s::uuid[], %s::float8[]) as c (node, score) where id = c.node""",
        [[node for node, _ in changed], [score for _, score in changed]],
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _changes(node: _Node, after: Reputation, at: datetime) -> list[Judged]:
    """In the order in which they are to be read."""
    sums, judged = node.sums, verdict(after)
    facts = (
        f"of {sums.asked} asked {sums.passed} passed, {sums.failed} failed, {sums.missed} missed, {sums.errors} refused"
    )

    def change(kind: str, reason: str) -> Judged:
        return Judged(node.node, kind, after.score, after.answering, reason)

    found = [change("fault", facts)] if sums.failed or sums.missed or sums.errors else []
    found += [change(kind, reason) for kind, reason in _verdict_changes(node, judged, after)]
    if not node.is_vetted and is_vetted(after.passed, after.first_passed_at, at.timestamp()):
        found.append(change("vetted", f"{after.passed} proofs passed, the first of them seven days ago or more"))
    return found


def _verdict_changes(node: _Node, judged: Verdict, after: Reputation) -> list[tuple[str, str]]:
    if judged == "disqualified":
        return [("disqualified", f"reputation {after.score:.4f} is below {DISQUALIFIED_BELOW}: too many proofs failed")]
    if judged == "suspended" and not node.is_suspended:
        why = f"{after.answering:.2f} of its challenges answered is below {SUSPENDED_BELOW}: misses and refusals"
        return [("suspended", why)]
    if judged == "fine" and node.is_suspended:
        return [("resumed", f"{after.answering:.2f} of its challenges answered is {SUSPENDED_BELOW} or more again")]
    return []


async def _note(connection: Connection, number: int | None, changes: Sequence[Judged], at: datetime) -> None:
    if changes:
        await connection.execute(
            """insert into reputation_events (node_id, at, kind, round, score, answering, reason)
               select c.node, %s, c.kind, %s, c.score, c.answering, c.reason
               from unnest(%s::uuid[], %s::text[], %s::float8[], %s::float8[], %s::text[]) with ordinality
                   as c (node, kind, score, answering, reason, turn) order by c.turn""",
            [
                at, number, [each.node for each in changes], [each.kind for each in changes], [each.score for each in changes],
                [each.answering for each in changes], [each.reason for each in changes],
            ],
        )  # fmt: skip


async def _apply(connection: Connection, changes: Sequence[Judged], at: datetime) -> None:
    """What follows for the nodes: one statement a kind, but for the few that are disqualified."""

    def of(kind: str) -> list[Judged]:
        return [each for each in changes if each.kind == kind]

    for change in of("disqualified"):
        if await change_status(connection, change.node, "disqualified", reason=change.reason, at=at):
            await queue_node(connection, change.node, reason="the node is disqualified", at=at)
    if judged := [*of("disqualified"), *of("suspended")]:
        await connection.execute(
            """update nodes set judged_because = c.reason from unnest(%s::uuid[], %s::text[]) as c (node, reason) where id = c.node""",
            [[each.node for each in judged], [each.reason for each in judged]],
        )
    if suspended := [each.node for each in of("suspended")]:
        await connection.execute("update nodes set suspended_at = %s where id = any (%s::uuid[])", [at, suspended])
    if resumed := [each.node for each in of("resumed")]:
        await connection.execute(
            "update nodes set suspended_at = null, judged_because = null where id = any (%s::uuid[])", [resumed]
        )
    if vetted := [each.node for each in of("vetted")]:
        await connection.execute("update nodes set vetted_at = %s where id = any (%s::uuid[])", [at, vetted])
