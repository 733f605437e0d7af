"""Reconciliation in the catalogue: sums and lists of a node's replicas, who is compared when, what is garbage."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.held_time import HeldDay
from fsn.core.ids import NodeId, PeerId, ReplicaId
from fsn.core.reconciliation import HeldReplica, PrefixSum

__all__ = [
    "Found",
    "HeldGarbage",
    "Round",
    "allow_garbage",
    "bring_forward",
    "claim_round",
    "end_round",
    "extend_lease",
    "forget_candidates",
    "garbage_due",
    "garbage_held",
    "hold_garbage",
    "list_within",
    "note_garbage",
    "postpone_round",
    "queue_garbage",
    "release_garbage",
    "schedule_rounds",
    "still_listed",
    "sums_by_first_byte",
    "sums_by_two_bytes",
]

_HALF = 2**64
FORGOTTEN_AT_ONCE = 10_000


@attrs.frozen
class Round:
    """A comparison that this coordinator has taken on; `compared_at` and `agreed_bytes` are those of the one before."""

    node: NodeId
    rounds: int
    compared_at: datetime | None
    agreed_bytes: int
    is_allowed: bool
    """An administrator has allowed the deletion of more garbage than is deleted unasked."""


@attrs.frozen
class Found:
    """What a round found."""

    agreed: PrefixSum
    lost: int
    garbage: int
    earning_bytes: int
    """Of what was agreed on, what belongs to files that are complete: nothing is earned by an upload, which can be dropped and costs
    nothing then."""


async def sums_by_first_byte(db: Pool, node: NodeId) -> Mapping[int, PrefixSum]:
    """Sums of the node's live replicas by the first byte of the id: one scan of its part of an index."""
    rows = await db.fetch_all(
        """select get_byte(uuid_send(id), 0), count(*), sum(sealed_bytes), sum(digest_high), sum(digest_low)
           from replicas where node_id = %s and state = 'live' group by 1""",
        [node],
    )
    return _sums(rows)


async def sums_by_two_bytes(db: Pool, node: NodeId, within: Sequence[int]) -> Mapping[int, PrefixSum]:
    """The same by the first two bytes, within these first bytes."""
    rows = await db.fetch_all(
        """select s.* from unnest(%(first)s::uuid[], %(last)s::uuid[]) as p (first, last) cross join lateral
               (select (get_byte(uuid_send(id), 0) << 8) + get_byte(uuid_send(id), 1), count(*), sum(sealed_bytes), sum(digest_high),
                       sum(digest_low)
                from replicas where node_id = %(node)s and id between p.first and p.last and state = 'live' group by 1) s""",
        {"node": node, **_borders(within, 1)},
    )
    return _sums(rows)


async def list_within(db: Pool, node: NodeId, prefixes: Sequence[int]) -> list[HeldReplica]:
    """The node's live replicas whose ids begin with one of these two bytes."""
    rows = await db.fetch_all(
        """select r.* from unnest(%(first)s::uuid[], %(last)s::uuid[]) as p (first, last) cross join lateral
               (select id, sealed_bytes, digest_high, digest_low from replicas
                where node_id = %(node)s and id between p.first and p.last and state = 'live') r""",
        {"node": node, **_borders(prefixes, 2)},
    )
    return [HeldReplica(ReplicaId(row[0]), _digest(row[2], row[3]), row[1]) for row in rows]


async def still_listed(db: Pool, node: NodeId, replicas: Sequence[ReplicaId]) -> set[ReplicaId]:
    """Those that are live on the node, as the catalogue says now."""
    sql = "select id from replicas where id = any (%s::uuid[]) and node_id = %s and state = 'live'"
    return {ReplicaId(row[0]) for row in await db.fetch_all(sql, [list(replicas), node])}


async def schedule_rounds(db: Pool, due: Mapping[NodeId, datetime]) -> None:
    """Nodes that have never been compared are from now on; others are passed over."""
    await db.execute(
        """insert into reconciliations (node_id, due_at) select * from unnest(%s::uuid[], %s::timestamptz[]) on conflict do nothing""",
        [list(due), list(due.values())],
    )


async def bring_forward(db: Pool, nodes: Sequence[NodeId], at: datetime, idle_since: datetime) -> None:
    """These nodes are back: compare them at `at`, unless that was done after `idle_since` or is under way."""
    await db.execute(
        """update reconciliations set due_at = %s where node_id = any (%s::uuid[]) and leased_by is null and due_at > %s
               and (compared_at is null or compared_at < %s)""",
        [at, list(nodes), at, idle_since],
    )


async def claim_round(
    db: Pool, nodes: Sequence[NodeId], by: PeerId, now: datetime, lease: timedelta, longest: timedelta
) -> Round | None:
    """Take on the comparison that is due longest among `nodes`; nobody else gets it until the lease ends.

    One that is due later than `longest` from now was planned when the clock was ahead: it is due now.
    """
    return await db.fetch_one(
        """update reconciliations set leased_by = %(by)s, due_at = %(until)s where node_id = (
               select node_id from reconciliations where node_id = any (%(nodes)s::uuid[]) and (due_at <= %(now)s or due_at > %(later)s)
               order by due_at limit 1 for update skip locked)
           returning node_id as node, rounds, compared_at, agreed_bytes, allowed_at is not null as is_allowed""",
        {"by": by, "nodes": list(nodes), "now": now, "until": now + lease, "later": now + longest},
        row=Round,
    )


async def extend_lease(db: Pool, node: NodeId, by: PeerId, until: datetime) -> bool:
    """Hold on to a round; False when another coordinator has it now."""
    sql = "update reconciliations set due_at = %s where node_id = %s and leased_by = %s returning 1"
    return await db.fetch_one(sql, [until, node, by]) is not None


async def postpone_round(db: Pool, node: NodeId, by: PeerId, until: datetime) -> None:
    """It could not be ended now."""
    sql = "update reconciliations set leased_by = null, due_at = %s where node_id = %s and leased_by = %s"
    await db.execute(sql, [until, node, by])


async def end_round(
    db: Pool, done: Round, by: PeerId, found: Found, days: Iterable[HeldDay], *, at: datetime, next_at: datetime
) -> bool:
    """Write down what a round found, and the bytes held since the one before; False, and nothing written, when another
    coordinator has the round now."""
    async with db.transaction() as connection:
        cursor = await connection.execute(
            """update reconciliations set leased_by = null, due_at = %s, rounds = rounds + 1, compared_at = %s, agreed_count = %s,
                   agreed_bytes = %s, lost_count = %s, garbage_count = %s
               where node_id = %s and leased_by = %s and rounds = %s""",
            [
                next_at, at, found.agreed.count, found.earning_bytes, found.lost, found.garbage, done.node, by,
                done.rounds,
            ],
        )  # fmt: skip
        if cursor.rowcount == 0:
            return False
        await _add_days(connection, done.node, list(days))
    return True


async def _add_days(db: Connection, node: NodeId, days: Sequence[HeldDay]) -> None:
    await db.execute(
        """insert into agreed_bytes as a (node_id, day, byte_seconds, seconds)
           select %s, date '1970-01-01' + d.day, d.byte_seconds, d.seconds
           from unnest(%s::int[], %s::numeric[], %s::int[]) as d (day, byte_seconds, seconds)
           on conflict (node_id, day) do update set byte_seconds = a.byte_seconds + excluded.byte_seconds,
               seconds = least(86400, a.seconds + excluded.seconds)""",
        [node, [each.day for each in days], [each.byte_seconds for each in days], [each.seconds for each in days]],
    )


async def bytes_of_uploads(db: Pool, node: NodeId) -> int:
    """What the node's live replicas of uploads under way have in bytes."""
    row = await db.fetch_one(
        """select coalesce(sum(r.sealed_bytes), 0)::bigint from uploads u join replicas r on r.file_id = u.file_id
           where u.state = 'open' and r.node_id = %s and r.state = 'live'""",
        [node],
    )
    return int(row[0]) if row else 0


async def note_garbage(db: Pool, done: Round, replicas: Sequence[HeldReplica], at: datetime) -> int:
    """Remember what lies on the node and stands nowhere in the catalogue; how many these are.

    Whatever the catalogue knows in any state (lost ones may come back), and what is queued for deletion already, is no garbage.
    """
    cursor = await db.fetch_all(
        """insert into garbage_candidates as g (node_id, replica_id, size_bytes, found_at, first_round, last_round)
           select %(node)s, f.id, f.size, %(at)s, %(round)s, %(round)s from unnest(%(ids)s::uuid[], %(sizes)s::int[]) as f (id, size)
           where not exists (select 1 from replicas r where r.id = f.id)
               and not exists (select 1 from replica_deletions d where d.replica_id = f.id)
           order by f.id
           on conflict (node_id, replica_id) do update set last_round = excluded.last_round returning 1""",
        {
            "node": done.node, "at": at, "round": done.rounds, "ids": [each.replica for each in replicas],
            "sizes": [each.size_bytes for each in replicas],
        },
    )  # fmt: skip
    return len(cursor)


async def forget_candidates(db: Pool, done: Round) -> bool:
    """Take out some that this round did not find any more; whether there may be others."""
    rows = await db.fetch_all(
        """delete from garbage_candidates where (node_id, replica_id) in
               (select node_id, replica_id from garbage_candidates where node_id = %s and last_round < %s limit %s) returning 1""",
        [done.node, done.rounds, FORGOTTEN_AT_ONCE],
    )
    return len(rows) == FORGOTTEN_AT_ONCE


async def garbage_due(db: Pool, done: Round, before: datetime, most: int) -> int:
    """How many candidates this round and an earlier one found, the first time before `before`; counts to `most` at most."""
    row = await db.fetch_one(
        """select count(*) from (select 1 from garbage_candidates where node_id = %s and found_at <= %s and first_round < %s
               and last_round = %s limit %s) due""",
        [done.node, before, done.rounds, done.rounds, most],
    )
    return int(row[0]) if row else 0


async def queue_garbage(db: Pool, done: Round, before: datetime, at: datetime, limit: int) -> int:
    """Queue up to `limit` of these for deletion through the node's trash; how many were taken. None that has become part of a chunk."""
    rows = await db.fetch_all(
        """with due as (
               select replica_id from garbage_candidates where node_id = %(node)s and found_at <= %(before)s
                   and first_round < %(round)s and last_round = %(round)s order by found_at limit %(limit)s),
           gone as (
               delete from garbage_candidates g using due where g.node_id = %(node)s and g.replica_id = due.replica_id
               returning g.replica_id),
           queued as (
               insert into replica_deletions (replica_id, node_id, queued_at, next_try_at, to_trash)
               select replica_id, %(node)s, %(at)s, %(at)s, true from gone
               where not exists (select 1 from replicas r where r.id = gone.replica_id) on conflict do nothing)
           select 1 from gone""",
        {"node": done.node, "before": before, "round": done.rounds, "at": at, "limit": limit},
    )
    return len(rows)


async def hold_garbage(db: Pool, node: NodeId, at: datetime) -> None:
    """So much is garbage that an administrator must allow its deletion first."""
    await db.execute("update reconciliations set held_at = coalesce(held_at, %s) where node_id = %s", [at, node])


async def release_garbage(db: Pool, node: NodeId) -> None:
    """Nothing is held (any more), and what was allowed is used up."""
    await db.execute(
        """update reconciliations set held_at = null, allowed_at = null
           where node_id = %s and (held_at is not null or allowed_at is not null)""",
        [node],
    )


@attrs.frozen
class HeldGarbage:
    """A node with so much garbage that it is not deleted before an administrator allows it."""

    node: NodeId
    name: str
    garbage: int
    agreed: int
    held_at: datetime
    is_allowed: bool


async def garbage_held(db: Pool) -> Sequence[HeldGarbage]:
    """All of them, the longest held first; the table has a row a node."""
    return await db.fetch_all(
        """select n.id as node, n.name, r.garbage_count as garbage, r.agreed_count as agreed, r.held_at,
                  r.allowed_at is not null as is_allowed
           from reconciliations r join nodes n on n.id = r.node_id where r.held_at is not null order by r.held_at""",
        row=HeldGarbage,
    )


async def allow_garbage(db: Pool, node: NodeId, at: datetime) -> bool:
    """Let what is held of this node be deleted in its next round, which is due now; False when nothing is held."""
    row = await db.fetch_one(
        """update reconciliations set allowed_at = %(at)s, due_at = case when leased_by is null then %(at)s else due_at end
           where node_id = %(node)s and held_at is not null returning 1""",
        {"node": node, "at": at},
    )
    return row is not None


def _sums(rows: Iterable[Sequence[int]]) -> dict[int, PrefixSum]:
    """PostgreSQL's 8 bytes have a sign, which makes no difference modulo 2**64."""
    return {
        prefix: PrefixSum(int(count), int(size), int(high) % _HALF, int(low) % _HALF)
        for prefix, count, size, high, low in rows
    }


def _borders(prefixes: Sequence[int], width: int) -> dict[str, list[UUID]]:
    """The first and the last id that begins with each of these numbers of `width` bytes."""
    rest = 8 * (16 - width)
    return {
        "first": [UUID(int=prefix << rest) for prefix in prefixes],
        "last": [UUID(int=((prefix + 1) << rest) - 1) for prefix in prefixes],
    }


def _digest(high: int, low: int) -> bytes:
    return (high % _HALF).to_bytes(8, "big") + (low % _HALF).to_bytes(8, "big")
