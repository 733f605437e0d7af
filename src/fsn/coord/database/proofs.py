"""Rounds of proofs in the catalogue: parts that coordinators share by leases, sums, failures with evidence, challenges to be repeated.

Rows are locked in this order: proof_rounds, proof_parts, proof_sums, then as for repair (files, replicas, repairs), proof_retries last.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.coord.database.repairs import mark_lost
from fsn.core.audit import PARTS, Turnout
from fsn.core.ids import NodeId, PeerId, ReplicaId

__all__ = [
    "AskedReplica",
    "Failure",
    "Retry",
    "Sampled",
    "Sums",
    "Written",
    "add_endings",
    "claim_parts",
    "claim_retries",
    "drop_retries",
    "extend_parts",
    "forget_retries",
    "forget_rounds",
    "held_counts",
    "open_round",
    "postpone_retries",
    "replicas_in_slots",
    "suspect",
    "suspicious_before",
    "turnouts",
    "unjudged_rounds",
    "without_let_go",
    "write_parts",
]

ROUNDS_AT_ONCE: Final = 16


@attrs.frozen
class AskedReplica:
    """A replica to be proved, and what its proof is checked against."""

    replica: ReplicaId
    node: NodeId
    root: bytes = attrs.field(repr=False)
    sealed_bytes: int


@attrs.frozen
class Sampled:
    """A node of which this round asks for one class of slots only."""

    node: NodeId
    classes: int
    chosen: int


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
    """A challenge that did not end well, with its evidence. `outcome`: bad, gone, missed or error; all but an error lose the replica."""

    challenge: UUID
    asked: AskedReplica
    outcome: str
    seed: bytes = attrs.field(repr=False)
    difficulty: int
    tries: int
    detail: str

    @property
    def loses(self) -> bool:
        """Whether the replica counts as lost."""
        return self.outcome != "error"


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


# --- rounds and their parts


async def open_round(db: Pool, number: int, begins_at: datetime) -> None:
    """There is this round, with all its parts; again is harmless."""
    async with db.transaction() as connection:
        cursor = await connection.execute(
            "insert into proof_rounds (round, begins_at) values (%s, %s) on conflict do nothing returning round",
            [number, begins_at],
        )
        if await cursor.fetchone():
            await connection.execute(
                "insert into proof_parts (round, part) select %s, n from generate_series(0, %s) n", [number, PARTS - 1]
            )


async def held_counts(db: Pool) -> Mapping[NodeId, int]:
    """How many replicas each node holds, as it and the catalogue agreed when they were last compared."""
    rows = await db.fetch_all("select node_id, agreed_count from reconciliations where agreed_count > 0")
    return {NodeId(node): count for node, count in rows}


async def claim_parts(
    db: Pool, number: int, parts: Sequence[int], by: PeerId, *, now: datetime, lease: timedelta, limit: int
) -> list[int]:
    """Take on up to `limit` of `parts`, the first ones first, that are neither done nor leased; nobody else gets them meanwhile.

    A lease that ends later than any could was given when the clock was ahead, and is over.
    """
    rows = await db.fetch_all(
        """update proof_parts p set leased_by = %(by)s, leased_until = %(until)s from (
               select p.round, p.part from unnest(%(parts)s::smallint[]) with ordinality as due (part, turn)
                   join proof_parts p on p.round = %(round)s and p.part = due.part
               where p.done_at is null and (p.leased_until is null or p.leased_until <= %(now)s or p.leased_until > %(until)s)
               order by due.turn limit %(limit)s for update of p skip locked) taken
           where p.round = taken.round and p.part = taken.part returning p.part""",
        {"round": number, "parts": list(parts), "by": by, "now": now, "until": now + lease, "limit": limit},
    )
    return [int(row[0]) for row in rows]


async def extend_parts(db: Pool, number: int, parts: Sequence[int], by: PeerId, until: datetime) -> bool:
    """Keep a lease; False when one of them is not ours any more."""
    count = await db.execute(
        """update proof_parts set leased_until = %s
           where round = %s and part = any (%s::smallint[]) and leased_by = %s and done_at is null""",
        [until, number, list(parts), by],
    )
    return count == len(parts)


async def replicas_in_slots(
    db: Pool, slots: Sequence[range], sampled: Sequence[Sampled], stored_before: datetime
) -> list[AskedReplica]:
    """The live replicas of ready files in `slots`, but for those of `sampled` nodes whose slot is in another class than the chosen one."""
    rows = await db.fetch_all(
        """select r.id, r.node_id, r.root, r.sealed_bytes
           from unnest(%(first)s::smallint[], %(last)s::smallint[]) as p (first, last)
               join replicas r on r.slot between p.first and p.last
               join files f on f.id = r.file_id and f.status = 'ready'
               left join unnest(%(nodes)s::uuid[], %(classes)s::int[], %(chosen)s::int[]) as s (node_id, classes, chosen)
                   on s.node_id = r.node_id
           where r.state = 'live' and r.stored_at <= %(before)s
               and (s.node_id is null or r.slot %% s.classes = s.chosen)""",
        {
            "nodes": [each.node for each in sampled],
            "classes": [each.classes for each in sampled],
            "chosen": [each.chosen for each in sampled],
            "first": [each.start for each in slots],
            "last": [each.stop - 1 for each in slots],
            "before": stored_before,
        },
    )
    return [AskedReplica(ReplicaId(row[0]), NodeId(row[1]), bytes(row[2]), row[3]) for row in rows]


async def write_parts(
    db: Pool, number: int, parts: Sequence[int], by: PeerId, written: Written, *, at: datetime, retry_at: datetime
) -> bool:
    """Parts are done: their sums, failures (with the losses that follow, queued for repair) and retries, in one transaction.

    False, and nothing is written, when one of them is not ours any more: then somebody else does it, or the round is judged.
    """
    with suppress(_NotOurs):
        async with db.transaction() as connection:
            await _finish_parts(connection, number, parts, by, at)
            await _write(connection, number, written, at, retry_at)
        return True
    return False


async def _finish_parts(connection: Connection, number: int, parts: Sequence[int], by: PeerId, at: datetime) -> None:
    if await _unjudged(connection, number) != number:
        raise _NotOurs
    cursor = await connection.execute(
        """update proof_parts set done_at = %s, leased_by = null
           where round = %s and part = any (%s::smallint[]) and leased_by = %s and done_at is null""",
        [at, number, list(parts), by],
    )
    if cursor.rowcount != len(parts):
        raise _NotOurs


async def without_let_go(db: Pool, written: Written) -> Written:
    """Without the failures of replicas that nobody need hold any more: deleted, moved or reported lost while they were asked for.

    To be called after the answers came: a node is told to delete after the catalogue has it so, and says that it did after that.
    """
    if not written.failures:
        return written
    rows = await db.fetch_all(
        """select r.id from replicas r join files f on f.id = r.file_id
           where r.id = any (%s::uuid[]) and r.state = 'live' and f.status = 'ready'""",
        [[each.asked.replica for each in written.failures]],
    )
    held = {row[0] for row in rows}
    sums = {node: attrs.evolve(each) for node, each in written.sums.items()}
    for failure in written.failures:
        if failure.asked.replica not in held:
            sums[failure.asked.node].take_back(failure)
    return Written(sums, [each for each in written.failures if each.asked.replica in held], written.retries)


# --- challenges that are asked again


async def claim_retries(
    db: Pool, nodes: Sequence[NodeId], *, now: datetime, lease: timedelta, limit: int, of_node: int
) -> list[Retry]:
    """Up to `limit` challenges that are due to be asked again, `of_node` of each of `nodes`, whichever comes first.

    Nobody else gets them until the lease ends.
    """
    rows = await db.fetch_all(
        """with taken as (
               update proof_retries set due_at = %(until)s where challenge_id in (
                   select due.challenge_id from (select n from unnest(%(nodes)s::uuid[]) n order by random()) asked cross join lateral (
                       select challenge_id from proof_retries where node_id = asked.n and due_at <= %(now)s
                       order by due_at limit %(of_node)s for update skip locked) due
                   limit %(limit)s)
               returning *)
           select t.challenge_id, t.round, r.id, r.node_id, r.root, r.sealed_bytes, t.seed, t.difficulty, t.tries
           from taken t join replicas r on r.id = t.replica_id where r.state = 'live'""",
        {"nodes": list(nodes), "now": now, "until": now + lease, "limit": limit, "of_node": of_node},
    )
    return [
        Retry(
            row[0], row[1], AskedReplica(ReplicaId(row[2]), NodeId(row[3]), bytes(row[4]), row[5]), bytes(row[6]), *row[7:]
        )
        for row in rows
    ]  # fmt: skip


async def postpone_retries(db: Pool, due: Mapping[UUID, datetime], *, tried: bool) -> None:
    """They are asked again then; `tried`: one more try was in vain."""
    await db.execute(
        """update proof_retries p set due_at = d.at, tries = p.tries + %s
           from unnest(%s::uuid[], %s::timestamptz[]) as d (challenge_id, at) where p.challenge_id = d.challenge_id""",
        [int(tried), list(due), list(due.values())],
    )


async def add_endings(db: Pool, number: int, ended: Sequence[UUID], written: Written, *, at: datetime) -> bool:
    """Repeated challenges have ended: they count in round `number`, or in the next that is not judged, once.

    False, and nothing is written, when there is no such round yet, or one of them is no more (ended by another coordinator, its file
    deleted): those that are left are asked again.
    """
    with suppress(_NotOurs):
        async with db.transaction() as connection:
            number = await _unjudged(connection, number)
            await _write(connection, number, written, at, at)
            cursor = await connection.execute(
                "delete from proof_retries where challenge_id = any (%s::uuid[])", [sorted(ended)]
            )
            if cursor.rowcount != len(ended):
                raise _NotOurs
        return True
    return False


async def forget_retries(db: Pool, before: datetime) -> int:
    """Of replicas that are lost, of nodes that are gone, and those due since long: how many there were."""
    return await db.execute(
        """delete from proof_retries p using replicas r, nodes n
           where r.id = p.replica_id and n.id = p.node_id
               and (r.state = 'lost' or n.status in ('left', 'disqualified') or p.due_at < %s)""",
        [before],
    )


# --- what a round came to


async def turnouts(db: Pool, number: int) -> Mapping[NodeId, Turnout]:
    """How the vetted nodes answered in a round; all nodes while fewer than three of them are vetted."""
    rows = await db.fetch_all(
        """select s.node_id, s.passed + s.failed + s.errors, s.timeouts, n.vetted_at is not null
           from proof_sums s join nodes n on n.id = s.node_id where s.round = %s""",
        [number],
    )
    found = {NodeId(node): Turnout(answered, timeouts) for node, answered, timeouts, _ in rows}
    vetted = {NodeId(row[0]) for row in rows if row[3]}
    return {node: found[node] for node in vetted} if len(vetted) >= 3 else found


async def suspicious_before(db: Pool, number: int, most: int) -> int:
    """How many rounds just before `number` were suspicious, one after the other; `most` at most."""
    rows = await db.fetch_all(
        "select round from proof_rounds where round between %s and %s and suspicion is not null",
        [number - most, number - 1],
    )
    found = {int(row[0]) for row in rows}
    return next((gap - 1 for gap in range(1, most + 1) if number - gap not in found), most)


async def suspect(db: Pool, number: int, why: str) -> bool:
    """Blame nobody for what is not answered in this round. False when it was suspicious already, and when it is judged."""
    return bool(
        await db.execute(
            "update proof_rounds set suspicion = %s where round = %s and suspicion is null and judged_at is null",
            [why, number],
        )
    )


async def drop_retries(db: Pool, number: int) -> None:
    """What was not answered in this round is not asked again."""
    await db.execute("delete from proof_retries where round = %s", [number])


async def unjudged_rounds(db: Pool, ended_before: datetime, given_up_before: datetime) -> list[int]:
    """Rounds to be judged, in order: those that began before `ended_before` and are done, or before `given_up_before`."""
    rows = await db.fetch_all(
        """select round from proof_rounds r where judged_at is null and begins_at < %s
               and (begins_at < %s or not exists (select from proof_parts p where p.round = r.round and p.done_at is null))
           order by round limit 100""",
        [ended_before, given_up_before],
    )
    return [int(row[0]) for row in rows]


async def forget_rounds(db: Pool, before: datetime, parts_before: datetime, limit: int) -> int:
    """Delete some failures and rounds that are older than `before`, and some parts of rounds judged before `parts_before`.

    How many rows of one kind, `limit` failures at most; 0 when none is left.
    """
    failures = await db.execute(
        """delete from proof_failures where challenge_id in (
               select challenge_id from proof_failures where at < %s order by at limit %s)""",
        [before, limit],
    )
    if failures:
        return failures
    parts = await db.execute(
        """delete from proof_parts where round in (
               select round from proof_rounds where judged_at < %s
                   and exists (select from proof_parts p where p.round = proof_rounds.round) order by round limit %s)""",
        [parts_before, ROUNDS_AT_ONCE],
    )
    return parts or await _forget_old_rounds(db, before)


async def _forget_old_rounds(db: Pool, before: datetime) -> int:
    """Those without failures that are kept; sums and what else is left of them first."""
    async with db.transaction() as connection:
        cursor = await connection.execute(
            """select round from proof_rounds r where begins_at < %s and judged_at is not null
                   and not exists (select from proof_failures f where f.round = r.round and f.at >= %s)
               order by round limit %s for update skip locked""",
            [before, before, ROUNDS_AT_ONCE],
        )
        old = [int(row[0]) for row in await cursor.fetchall()]
        for table in ("proof_retries", "proof_failures", "proof_sums", "proof_parts", "proof_rounds"):
            await connection.execute(f"delete from {table} where round = any (%s::bigint[])", [old])  # noqa: S608 - constants
    return len(old)


# --- inside a transaction


class _NotOurs(Exception):
    """Nothing is to be written: a lease is over, or there is no round to write it to."""


async def _unjudged(connection: Connection, number: int) -> int:
    """The first round from `number` on that is not judged, held so until the transaction ends. Raises `_NotOurs` without one."""
    cursor = await connection.execute(
        "select round from proof_rounds where round >= %s and judged_at is null order by round limit 1 for share",
        [number],
    )
    row = await cursor.fetchone()
    if row is None:
        raise _NotOurs
    return int(row[0])


async def _write(connection: Connection, number: int, written: Written, at: datetime, retry_at: datetime) -> None:
    await _add_sums(connection, number, written.sums)
    await _note_failures(connection, number, written.failures, at)
    by_reason: dict[str, list[ReplicaId]] = {}
    for failure in written.failures:
        if failure.loses:
            by_reason.setdefault(failure.outcome, []).append(failure.asked.replica)
    for outcome, replicas in sorted(by_reason.items()):
        await mark_lost(connection, replicas, reason=f"proof: {outcome}", at=at)
    await _note_retries(connection, written.retries, retry_at)


async def _add_sums(connection: Connection, number: int, sums: Mapping[NodeId, Sums]) -> None:
    ordered = sorted(sums.items())
    columns = {
        name: [getattr(each, name) for _, each in ordered]
        for name in ("asked", "passed", "failed", "missed", "errors", "offline", "timeouts")
    }
    await connection.execute(
        """insert into proof_sums as s (round, node_id, asked, passed, failed, missed, errors, offline, timeouts)
           select %(round)s, * from unnest(%(nodes)s::uuid[], %(asked)s::int[], %(passed)s::int[], %(failed)s::int[], %(missed)s::int[],
                                           %(errors)s::int[], %(offline)s::int[], %(timeouts)s::int[])
           on conflict (round, node_id) do update set asked = s.asked + excluded.asked, passed = s.passed + excluded.passed,
               failed = s.failed + excluded.failed, missed = s.missed + excluded.missed, errors = s.errors + excluded.errors,
               offline = s.offline + excluded.offline, timeouts = s.timeouts + excluded.timeouts""",
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
