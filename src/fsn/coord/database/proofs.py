"""Rounds of proofs in the catalogue: parts that coordinators share by leases, sums, failures with evidence, challenges to be repeated.

Rows are locked in this order: proof_rounds, proof_parts, proof_sums, then as for repair (files, replicas, repairs), proof_retries last.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.coord.database.proof_writing import AskedReplica, NotOurs, Retry, Written, unjudged, write
from fsn.core.audit import PARTS
from fsn.core.ids import NodeId, PeerId, ReplicaId

__all__ = [
    "Sampled",
    "add_endings",
    "claim_parts",
    "claim_retries",
    "extend_parts",
    "forget_retries",
    "held_counts",
    "open_round",
    "postpone_retries",
    "replicas_in_slots",
    "without_let_go",
    "write_parts",
]


@attrs.frozen
class Sampled:
    """A node of which this round asks for one class of slots only."""

    node: NodeId
    classes: int
    chosen: int


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
    with suppress(NotOurs):
        async with db.transaction() as connection:
            await _finish_parts(connection, number, parts, by, at)
            await write(connection, number, written, at, retry_at)
        return True
    return False


async def _finish_parts(connection: Connection, number: int, parts: Sequence[int], by: PeerId, at: datetime) -> None:
    if await unjudged(connection, number) != number:
        raise NotOurs
    cursor = await connection.execute(
        """update proof_parts set done_at = %s, leased_by = null
           where round = %s and part = any (%s::smallint[]) and leased_by = %s and done_at is null""",
        [at, number, list(parts), by],
    )
    if cursor.rowcount != len(parts):
        raise NotOurs


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
    with suppress(NotOurs):
        async with db.transaction() as connection:
            number = await unjudged(connection, number)
            await write(connection, number, written, at, at)
            cursor = await connection.execute(
                "delete from proof_retries where challenge_id = any (%s::uuid[])", [sorted(ended)]
            )
            if cursor.rowcount != len(ended):
                raise NotOurs
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
