"""Storage nodes in the catalogue, and the replicas that they should forget."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, LiteralString
from uuid import UUID

import attrs
from psycopg.errors import UniqueViolation

from fsn.coord.catalog import NodeRecord
from fsn.coord.database.pool import Pool
from fsn.core.ids import NodeId, PeerId, ReplicaId, UserId

__all__ = [
    "DueDeletion",
    "Registration",
    "Sighting",
    "deletions_done",
    "due_deletions",
    "list_nodes",
    "node_by_api_key_hash",
    "node_by_id",
    "node_by_peer",
    "postpone_deletions",
    "record_sightings",
    "register_node",
]

_NODE: LiteralString = """id, peer_id, name, operator_id, region, status::text as status, capacity_bytes, used_bytes, free_bytes,
    chunk_count, version, addresses, observed_address, reputation, registered_at, last_seen_at, status_since, status_reason,
    status_until, absent_since, vetted_at, suspended_at, judged_because"""


TRIES: Final = 5
NIL: Final = UUID(int=0)
"""Before all ids, and none of them. (`%s is null or id > %s` would read all rows before it once the statement is prepared.)"""


@attrs.frozen
class Registration:
    """What a node says of itself when it registers."""

    node: NodeId
    peer: PeerId
    public_key: bytes
    name: str
    capacity_bytes: int
    region: str | None
    operator: UserId | None
    api_key_hash: bytes = attrs.field(repr=False)
    challenged_at: datetime
    registered_at: datetime
    coordinator: PeerId
    """Who registers it."""


@attrs.frozen
class Sighting:
    """What the coordinator last saw of a node."""

    node: NodeId
    used_bytes: int
    free_bytes: int
    chunk_count: int
    version: str
    addresses: tuple[str, ...]
    observed_address: str | None
    seen_at: datetime


@attrs.frozen
class DueDeletion:
    """A replica that its node should forget."""

    replica: ReplicaId
    node: NodeId
    to_trash: bool = False
    """Garbage that was found: the node may keep it aside for some days."""


async def register_node(db: Pool, new: Registration) -> NodeId | None:
    """Add the node, or refresh the one with this key (its id stays, its API key changes); a new one is joining, on record.

    None when its challenge is not newer than the last one it registered with: a replay.
    """
    # While others refresh the same row, the look for its key can miss both its old and its new version, and the unique peer id is what the
    # insertion meets then: ten registrations at once see it every few hundred times.
    for _ in range(TRIES - 1):
        with suppress(UniqueViolation):
            return await _register_node(db, new)
    return await _register_node(db, new)


async def _register_node(db: Pool, new: Registration) -> NodeId | None:
    row = await db.fetch_one(
        """with taken as (
               insert into nodes (id, peer_id, public_key, name, operator_id, region, api_key_hash, challenged_at, registered_at,
                                  capacity_bytes, status_since, absent_since, unfolded_from)
               values (%(node)s, %(peer)s, %(public_key)s, %(name)s, %(operator)s, %(region)s, %(api_key_hash)s, %(challenged_at)s,
                       %(at)s, %(capacity_bytes)s, %(at)s, %(at)s, (%(at)s at time zone 'UTC')::date)
               on conflict (public_key) do update set name = excluded.name, region = excluded.region,
                   operator_id = coalesce(excluded.operator_id, nodes.operator_id), api_key_hash = excluded.api_key_hash,
                   challenged_at = excluded.challenged_at, capacity_bytes = excluded.capacity_bytes
                   where nodes.challenged_at < excluded.challenged_at
               returning id),
           noted as (
               insert into node_transitions (node_id, at, to_status, reason, coordinator)
               select id, %(at)s, 'joining', 'registered', %(coordinator)s from taken where id = %(node)s)
           select id from taken""",
        {
            "node": new.node, "peer": new.peer, "public_key": new.public_key, "name": new.name, "operator": new.operator,
            "region": new.region, "api_key_hash": new.api_key_hash, "challenged_at": new.challenged_at, "at": new.registered_at,
            "capacity_bytes": new.capacity_bytes, "coordinator": new.coordinator,
        },
    )  # fmt: skip
    return NodeId(row[0]) if row else None


async def node_by_id(db: Pool, node: NodeId) -> NodeRecord | None:
    """The node with this id."""
    return await db.fetch_one(f"select {_NODE} from nodes where id = %s", [node], row=NodeRecord)  # noqa: S608 - a constant


async def node_by_peer(db: Pool, peer: PeerId) -> NodeRecord | None:
    """The node with this peer id."""
    return await db.fetch_one(f"select {_NODE} from nodes where peer_id = %s", [peer], row=NodeRecord)  # noqa: S608 - a constant


async def node_by_api_key_hash(db: Pool, api_key_hash: bytes) -> NodeRecord | None:
    """The node whose API key has this SHA-256."""
    sql = f"select {_NODE} from nodes where api_key_hash = %s"  # noqa: S608 - a constant
    return await db.fetch_one(sql, [api_key_hash], row=NodeRecord)


async def list_nodes(db: Pool, after: NodeId | None, limit: int) -> Sequence[NodeRecord]:
    """Up to `limit` nodes in the order of their ids, those after `after` only."""
    sql = f"select {_NODE} from nodes where id > %s order by id limit %s"  # noqa: S608 - a constant
    return await db.fetch_all(sql, [after or NIL, limit], row=NodeRecord)


async def record_sightings(db: Pool, sightings: Sequence[Sighting]) -> None:
    """Write what was seen of many nodes in one statement; an older sighting never replaces a newer one.

    Addresses travel as one text each, separated by blanks, since SQL arrays of arrays are rectangular.
    """
    await db.execute(
        """update nodes n set
               used_bytes = s.used_bytes, free_bytes = s.free_bytes, chunk_count = s.chunk_count, version = s.version,
               addresses = string_to_array(s.addresses, ' '), observed_address = s.observed_address, last_seen_at = s.seen_at
           from unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[],
                       %s::timestamptz[])
               as s (id, used_bytes, free_bytes, chunk_count, version, addresses, observed_address, seen_at)
           where n.id = s.id and (n.last_seen_at is null or n.last_seen_at <= s.seen_at)""",
        [
            [s.node for s in sightings], [s.used_bytes for s in sightings],
            [s.free_bytes for s in sightings], [s.chunk_count for s in sightings], [s.version for s in sightings],
            [" ".join(s.addresses) for s in sightings], [s.observed_address for s in sightings],
            [s.seen_at for s in sightings],
        ],
    )  # fmt: skip


async def due_deletions(
    db: Pool, nodes: Sequence[NodeId], now: datetime, longest_pause: timedelta, limit: int
) -> Sequence[DueDeletion]:
    """Up to `limit` replicas that the nodes given should forget now, each node's oldest first; never one that is part of a chunk.

    Such a one (its recording was given up, and had happened) is put off for `longest_pause`. One that is due later than that was queued
    when the clock was ahead: it is due now. Reads `limit` rows, however many wait: a node that was away for long has a million when
    it is back.
    """
    rows = await db.fetch_all(
        """with due as materialized (
               select d.replica_id, n.id as node_id, d.to_trash from unnest(%(nodes)s::uuid[]) as n (id) cross join lateral (
                   (select replica_id, to_trash from replica_deletions where node_id = n.id and next_try_at <= %(now)s
                    order by next_try_at limit %(limit)s)
                   union all
                   (select replica_id, to_trash from replica_deletions where node_id = n.id and next_try_at > %(later)s
                    order by next_try_at limit %(limit)s)) d
               limit %(limit)s),
           needed as (
               update replica_deletions q set next_try_at = %(later)s from due
               where q.replica_id = due.replica_id and exists (select 1 from replicas r where r.id = due.replica_id)
               returning q.replica_id)
           select replica_id, node_id, to_trash from due where replica_id not in (select replica_id from needed)""",
        {"nodes": list(nodes), "now": now, "limit": limit, "later": now + longest_pause},
    )
    return [DueDeletion(ReplicaId(replica), NodeId(node), to_trash) for replica, node, to_trash in rows]


async def deletions_done(db: Pool, replicas: Sequence[ReplicaId]) -> None:
    """Their node has said that they are gone."""
    await db.execute("delete from replica_deletions where replica_id = any (%s::uuid[])", [list(replicas)])


async def postpone_deletions(db: Pool, replicas: Sequence[ReplicaId], until: datetime) -> None:
    """They could not be deleted now."""
    sql = "update replica_deletions set tries = tries + 1, next_try_at = %s where replica_id = any (%s::uuid[])"
    await db.execute(sql, [until, list(replicas)])
