"""What challenges came to, and how it is written: inside the transaction of whoever writes it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.repairs import mark_lost
from fsn.core.ids import NodeId, ReplicaId

__all__ = ["AskedReplica", "Failure", "NotOurs", "Retry", "Sums", "Written", "unjudged", "write"]


@attrs.frozen
class AskedReplica:
    """A replica to be proved, and what its proof is checked against."""

    replica: ReplicaId
    node: NodeId
    root: bytes = attrs.field(repr=False)
    sealed_bytes: int


@attrs.define
class Sums:
    """What became of a node's challenges; see the table `proof_sums`."""

    asked: int = 0
    passed: int = 0
    failed: int = 0
    missed: int = 0
    errors: int = 0
    offline: int = 0
    timeouts: int = 0
    answer_ms: int = 0
    quickest_ms: int | None = None

    def note_passed(self, milliseconds: int) -> None:
        """One passed, and took so long."""
        self.asked += 1
        self.passed += 1
        self.answer_ms += milliseconds
        self.quickest_ms = milliseconds if self.quickest_ms is None else min(self.quickest_ms, milliseconds)

    def take_back(self, failure: "Failure") -> None:
        """As if it had not been asked for."""
        self.asked -= 1
        if failure.outcome == "missed":
            self.missed -= 1
        elif failure.outcome == "error":
            self.errors -= 1
        else:
            self.failed -= 1


@attrs.frozen
class Failure:
    """A challenge that did not end well, with its evidence: the replica is lost. `outcome`: bad, gone, missed or error."""

    challenge: UUID
    asked: AskedReplica
    outcome: str
    seed: bytes = attrs.field(repr=False)
    difficulty: int
    tries: int
    detail: str


@attrs.frozen
class Retry:
    """A challenge without an answer so far; `tries` counts those that were made."""

    challenge: UUID
    round: int
    asked: AskedReplica
    seed: bytes = attrs.field(repr=False)
    difficulty: int
    tries: int


@attrs.frozen
class Written:
    """What some parts, or some repeated challenges, came to."""

    sums: Mapping[NodeId, Sums]
    failures: Sequence[Failure] = ()
    retries: Sequence[Retry] = ()


class NotOurs(Exception):
    """Nothing is to be written: a lease is over, or there is no round to write it to."""


async def unjudged(connection: Connection, number: int) -> int:
    """The first round from `number` on that is not judged, held so until the transaction ends. Raises `NotOurs` without one."""
    cursor = await connection.execute(
        "select round from proof_rounds where round >= %s and judged_at is null order by round limit 1 for share",
        [number],
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotOurs
    return int(row[0])


async def write(connection: Connection, number: int, written: Written, at: datetime, retry_at: datetime) -> None:
    """Sums, failures with the losses that follow (queued for repair), and what is asked again from `retry_at` on."""
    await _add_sums(connection, number, written.sums)
    await _note_failures(connection, number, written.failures, at)
    by_reason: dict[str, list[ReplicaId]] = {}
    for failure in written.failures:
        by_reason.setdefault(failure.outcome, []).append(failure.asked.replica)
    for outcome, replicas in sorted(by_reason.items()):
        await mark_lost(connection, replicas, reason=f"proof: {outcome}", at=at)
    await _note_retries(connection, written.retries, retry_at)


async def _add_sums(connection: Connection, number: int, sums: Mapping[NodeId, Sums]) -> None:
    ordered = sorted(sums.items())
    columns = {
        name: [getattr(each, name) for _, each in ordered]
        for name in ("asked", "passed", "failed", "missed", "errors", "offline", "timeouts", "answer_ms", "quickest_ms")
    }
    await connection.execute(
        """insert into proof_sums as s (round, node_id, asked, passed, failed, missed, errors, offline, timeouts, answer_ms, quickest_ms)
           select %(round)s, * from unnest(%(nodes)s::uuid[], %(asked)s::int[], %(passed)s::int[], %(failed)s::int[], %(missed)s::int[],
                                           %(errors)s::int[], %(offline)s::int[], %(timeouts)s::int[], %(answer_ms)s::bigint[],
                                           %(quickest_ms)s::int[])
           on conflict (round, node_id) do update set asked = s.asked + excluded.asked, passed = s.passed + excluded.passed,
               failed = s.failed + excluded.failed, missed = s.missed + excluded.missed, errors = s.errors + excluded.errors,
               offline = s.offline + excluded.offline, timeouts = s.timeouts + excluded.timeouts,
               answer_ms = s.answer_ms + excluded.answer_ms, quickest_ms = least(s.quickest_ms, excluded.quickest_ms)""",
        {"round": number, "nodes": [node for node, _ in ordered], **columns},
    )


async def _note_failures(connection: Connection, number: int, failures: Sequence[Failure], at: datetime) -> None:
    if failures:
        await connection.execute(
            """insert into proof_failures (challenge_id, round, node_id, replica_id, outcome, seed, difficulty, root, sealed_bytes, tries,
                                           detail, at)
               select f.challenge, %(round)s, f.node, f.replica, f.outcome::proof_failure, f.seed, f.difficulty, f.root, f.bytes, f.tries,
                      f.detail, %(at)s
               from unnest(%(challenges)s::uuid[], %(nodes)s::uuid[], %(replicas)s::uuid[], %(outcomes)s::text[], %(seeds)s::bytea[],
                           %(difficulties)s::smallint[], %(roots)s::bytea[], %(bytes)s::int[], %(tries)s::smallint[], %(details)s::text[])
                   as f (challenge, node, replica, outcome, seed, difficulty, root, bytes, tries, detail)
               on conflict do nothing""",
            {
                "round": number,
                "at": at,
                "challenges": [each.challenge for each in failures],
                "nodes": [each.asked.node for each in failures],
                "replicas": [each.asked.replica for each in failures],
                "outcomes": [each.outcome for each in failures],
                "seeds": [each.seed for each in failures],
                "difficulties": [each.difficulty for each in failures],
                "roots": [each.asked.root for each in failures],
                "bytes": [each.asked.sealed_bytes for each in failures],
                "tries": [each.tries for each in failures],
                "details": [each.detail for each in failures],
            },
        )


async def _note_retries(connection: Connection, retries: Sequence[Retry], retry_at: datetime) -> None:
    if retries:
        await connection.execute(
            """insert into proof_retries (challenge_id, round, node_id, replica_id, seed, difficulty, tries, due_at)
               select n.challenge, n.round, r.node_id, r.id, n.seed, n.difficulty, n.tries, %(due)s
               from unnest(%(challenges)s::uuid[], %(rounds)s::bigint[], %(replicas)s::uuid[], %(seeds)s::bytea[],
                           %(difficulties)s::smallint[], %(tries)s::smallint[])
                   as n (challenge, round, replica, seed, difficulty, tries)
                   join replicas r on r.id = n.replica
               order by r.id for key share of r
               on conflict do nothing""",
            {
                "due": retry_at,
                "challenges": [each.challenge for each in retries],
                "rounds": [each.round for each in retries],
                "replicas": [each.asked.replica for each in retries],
                "seeds": [each.seed for each in retries],
                "difficulties": [each.difficulty for each in retries],
                "tries": [each.tries for each in retries],
            },
        )
