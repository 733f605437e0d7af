"""Who hears whom: presences of nodes at coordinators, what they make of a node's state, and how long who is silent."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.node_states import StatusChange, make_transitions
from fsn.coord.database.nodes import NIL
from fsn.coord.database.pool import Pool
from fsn.core.ids import NodeId, PeerId
from fsn.core.node_states import NodeState, step_by_presence
from fsn.core.units import format_duration
from fsn.core.uptime import Covered, Span

__all__ = ["WATCHES_KEPT", "PresenceChange", "Silence", "judge_by_presence", "record_presence", "silences", "watches"]

WATCHES_KEPT: Final = timedelta(days=60)
"""A silence longer than this is told as this."""


@attrs.frozen
class PresenceChange:
    """A coordinator hears a node from `at` on (`reason` None), or until `at`, which it decided at `decided_at`, for `reason`."""

    node: NodeId
    at: datetime
    decided_at: datetime
    reason: str | None = None


@attrs.frozen
class Silence:
    """A node that no living coordinator hears: since when, and for how many seconds of that at least one was there to hear it."""

    node: NodeId
    since: datetime
    watched_seconds: float


@attrs.frozen
class _Known:
    """A node's row, locked."""

    status: NodeState
    absent_since: datetime | None


async def record_presence(db: Pool, coordinator: PeerId, changes: Sequence[PresenceChange]) -> Sequence[StatusChange]:
    """Write which nodes the coordinator hears, or hears no more: one change for each node. Again is harmless.

    A node that none hears any more is absent from then on, and one that was online is offline, on record; one that another coordinator
    hears as well stays as it is. The rows of nodes are locked first, in the order of their ids: of two coordinators that lose the
    same node at once, the second sees that the first does not hear it either.
    """
    async with db.transaction() as connection:
        known = await _lock(connection, [change.node for change in changes])
        changes = [change for change in changes if change.node in known]
        lost = [change for change in changes if change.reason is not None]
        heard = [change for change in changes if change.reason is None]
        await _close(connection, coordinator, lost)
        await _open(connection, coordinator, heard)
        elsewhere = await _heard(connection, [change.node for change in lost])
        gone = [change for change in lost if change.node not in elsewhere]
        await _note_absence(connection, heard, gone)
        steps = _steps(known, heard, gone)
        await make_transitions(connection, steps, coordinator)
    return steps


async def judge_by_presence(db: Pool, coordinator: PeerId, now: datetime, limit: int) -> Sequence[StatusChange]:
    """Put right up to `limit` states that presence contradicts: online though none hears the node, offline though one does.

    So it is after a coordinator that heard them has died, and after a state was set by hand. Several coordinators share the work.
    """
    async with db.transaction() as connection:
        cursor = await connection.execute(
            """select id, status::text, absent_since from nodes
               where (status = 'online' and absent_since is not null)
                   or (status in ('joining', 'offline') and absent_since is null)
               order by id limit %s for no key update skip locked""",
            [limit],
        )
        steps = []
        for node, status, absent_since in await cursor.fetchall():
            why = "is heard" if absent_since is None else "the coordinator that heard it is gone, and no other one does"
            step = step_by_presence(status, is_heard=absent_since is None, why=why)
            if step is not None:
                steps.append(StatusChange(NodeId(node), step.to, step.reason, now))
        await make_transitions(connection, steps, coordinator)
    return steps


async def silences(db: Pool, now: datetime, *, after: NodeId | None = None, limit: int = 10_000) -> Sequence[Silence]:
    """Nodes that are not heard, in the order of their ids, up to `limit` of those after `after`.

    Among them draining ones; not those in declared maintenance (whose silence begins when that ends), left, disqualified, or never
    heard at all. Time in which no coordinator was there (stopped, stalled, without its database, just started) does not count.
    """
    rows = await db.fetch_all(
        """select id, absent_since from nodes
           where absent_since is not null and status in ('online', 'offline', 'draining') and id > %s order by id limit %s""",
        [after or NIL, limit],
    )
    if not rows:
        return ()
    since = max(min(absent for _, absent in rows), now - WATCHES_KEPT)
    watched = Covered(await watches(db, since))
    return [
        Silence(NodeId(node), absent, watched.seconds(max(absent, since).timestamp(), now.timestamp()))
        for node, absent in rows
    ]


async def watches(db: Pool | Connection, since: datetime) -> Sequence[Span]:
    """When coordinators were there to hear nodes, `since` then: one span for each watch, in seconds of the epoch."""
    if isinstance(db, Pool):
        async with db.connection() as connection:
            return await watches(connection, since)
    cursor = await db.execute(
        """select began_at, ended_at from coordinator_watches where ended_at > %(since)s
           union all
           select w.began_at, c.alive_at from coordinator_watches w join coordinators c on c.peer_id = w.coordinator
           where w.ended_at is null and c.alive_at > %(since)s""",
        {"since": since},
    )
    return [(begin.timestamp(), end.timestamp()) for begin, end in await cursor.fetchall()]


async def _lock(connection: Connection, nodes: Sequence[NodeId]) -> Mapping[NodeId, _Known]:
    cursor = await connection.execute(
        "select id, status::text, absent_since from nodes where id = any (%s::uuid[]) order by id for no key update",
        [list(nodes)],
    )
    return {NodeId(node): _Known(status, absent) for node, status, absent in await cursor.fetchall()}


async def _close(connection: Connection, coordinator: PeerId, lost: Sequence[PresenceChange]) -> None:
    if lost:
        await connection.execute(
            """update node_presences p set ended_at = greatest(p.began_at, c.at)
               from unnest(%s::uuid[], %s::timestamptz[]) as c (id, at)
               where p.coordinator = %s and p.node_id = c.id and p.ended_at is null""",
            [[change.node for change in lost], [change.at for change in lost], coordinator],
        )


async def _open(connection: Connection, coordinator: PeerId, heard: Sequence[PresenceChange]) -> None:
    if heard:
        await connection.execute(
            """insert into node_presences (node_id, coordinator, began_at)
               select c.id, %s, c.at from unnest(%s::uuid[], %s::timestamptz[]) as c (id, at)
               on conflict (coordinator, node_id) where ended_at is null do nothing""",
            [coordinator, [change.node for change in heard], [change.at for change in heard]],
        )


async def _heard(connection: Connection, nodes: Sequence[NodeId]) -> set[NodeId]:
    """Which of the nodes a coordinator hears. What a dead one heard is closed by the others within half a minute."""
    if not nodes:
        return set()
    cursor = await connection.execute(
        "select distinct node_id from node_presences where node_id = any (%s::uuid[]) and ended_at is null",
        [list(nodes)],
    )
    return {NodeId(node) for (node,) in await cursor.fetchall()}


async def _note_absence(
    connection: Connection, heard: Sequence[PresenceChange], gone: Sequence[PresenceChange]
) -> None:
    if heard:
        nodes = [change.node for change in heard]
        # A new node's uptime begins with its first heartbeat.
        await connection.execute(
            """update nodes set absent_since = null, unfolded_from = least(unfolded_from, (%s at time zone 'UTC')::date)
               where id = any (%s::uuid[])""",
            [min(change.at for change in heard), nodes],
        )
    if gone:
        await connection.execute(
            """update nodes n set absent_since = c.at from unnest(%s::uuid[], %s::timestamptz[]) as c (id, at)
               where n.id = c.id and n.absent_since is null""",
            [[change.node for change in gone], [change.at for change in gone]],
        )


def _steps(
    known: Mapping[NodeId, _Known], heard: Sequence[PresenceChange], gone: Sequence[PresenceChange]
) -> Sequence[StatusChange]:
    steps = []
    for change in (*heard, *gone):
        was, is_heard = known[change.node], change.reason is None
        step = step_by_presence(was.status, is_heard=is_heard, why=change.reason or _back(was.absent_since, change.at))
        if step is not None:
            steps.append(StatusChange(change.node, step.to, step.reason, change.decided_at))
    return steps


def _back(absent_since: datetime | None, at: datetime) -> str:
    if absent_since is None:
        return "is heard"
    return f"heard again after {format_duration(max(0.0, (at - absent_since).total_seconds()))}"
