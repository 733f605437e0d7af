"""What uptime is computed from: when nodes were heard and how they stood, exactly for the last days, by quarters of an hour before."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final

import attrs

from fsn.coord.database.base import Connection
from fsn.core.ids import NodeId
from fsn.core.node_states import NodeState
from fsn.core.uptime import Day, Span

__all__ = [
    "KEPT_TRANSITIONS",
    "Unfolded",
    "advance",
    "claim_unfolded",
    "days_between",
    "drop_old",
    "presences",
    "single_days",
    "states",
    "store_days",
    "unfolded_from",
]

KEPT_TRANSITIONS: Final = 1000
"""Of a node, beside those of the days that are not folded yet."""
NEVER: Final = date(9999, 12, 31)


@attrs.frozen
class Unfolded:
    """A node and the first day of it that is not folded yet."""

    node: NodeId
    day: date
    is_gone: bool
    """It has left: nothing follows."""


async def presences(
    connection: Connection, nodes: Sequence[NodeId], begin: datetime, end: datetime
) -> Mapping[NodeId, list[Span]]:
    """When each node was heard between `begin` and `end`: a span for each presence, in seconds of the epoch."""
    cursor = await connection.execute(
        """select p.node_id, p.began_at, p.ended_at from node_presences p
           where p.node_id = any (%(nodes)s::uuid[]) and p.ended_at > %(begin)s and p.began_at < %(end)s
           union all
           select p.node_id, p.began_at, c.alive_at from node_presences p join coordinators c on c.peer_id = p.coordinator
           where p.node_id = any (%(nodes)s::uuid[]) and p.ended_at is null and p.began_at < %(end)s""",
        {"nodes": list(nodes), "begin": begin, "end": end},
    )
    found: dict[NodeId, list[Span]] = defaultdict(list)
    for node, began_at, ended_at in await cursor.fetchall():
        found[NodeId(node)].append((began_at.timestamp(), ended_at.timestamp()))
    return found


async def states(
    connection: Connection, nodes: Sequence[NodeId], begin: datetime, end: datetime
) -> Mapping[NodeId, list[tuple[float, NodeState]]]:
    """How each node stood at `begin`, and what it passed into until `end`, in that order."""
    cursor = await connection.execute(
        """select n.id, t.at, t.to_status::text from unnest(%(nodes)s::uuid[]) as n (id) cross join lateral (
               (select at, to_status, id from node_transitions where node_id = n.id and at <= %(begin)s
                order by at desc, id desc limit 1)
               union all
               select at, to_status, id from node_transitions where node_id = n.id and at > %(begin)s and at < %(end)s) t
           order by n.id, t.at, t.id""",
        {"nodes": list(nodes), "begin": begin, "end": end},
    )
    found: dict[NodeId, list[tuple[float, NodeState]]] = defaultdict(list)
    for node, at, status in await cursor.fetchall():
        found[NodeId(node)].append((at.timestamp(), status))
    return found


async def unfolded_from(connection: Connection, nodes: Sequence[NodeId]) -> Mapping[NodeId, date]:
    """The first day of each node that is not folded yet."""
    cursor = await connection.execute("select id, unfolded_from from nodes where id = any (%s::uuid[])", [list(nodes)])
    return {NodeId(node): day for node, day in await cursor.fetchall()}


async def days_between(
    connection: Connection, nodes: Sequence[NodeId], first: date, last: date
) -> Mapping[NodeId, tuple[int, int]]:
    """The seconds present and counted of each node's kept days after `first` and before `last`."""
    cursor = await connection.execute(
        """select node_id, sum(present_seconds), sum(counted_seconds) from node_days
           where node_id = any (%s::uuid[]) and day > %s and day < %s group by node_id""",
        [list(nodes), first, last],
    )
    return {NodeId(node): (int(present), int(counted)) for node, present, counted in await cursor.fetchall()}


async def single_days(
    connection: Connection, nodes: Sequence[NodeId], days: Sequence[date]
) -> Sequence[tuple[NodeId, date, Day]]:
    """The nodes' kept days among `days`."""
    cursor = await connection.execute(
        """select node_id, day, present_seconds, counted_seconds, present, counted from node_days
           where node_id = any (%s::uuid[]) and day = any (%s::date[])""",
        [list(nodes), list(days)],
    )
    return [
        (NodeId(node), day, Day(present_seconds, counted_seconds, _tuple(present), _tuple(counted)))
        for node, day, present_seconds, counted_seconds, present, counted in await cursor.fetchall()
    ]


async def claim_unfolded(connection: Connection, before: date, limit: int) -> Sequence[Unfolded]:
    """Up to `limit` nodes with days before `before` that are not folded, locked for the transaction.

    Those that others have locked are passed over.
    """
    cursor = await connection.execute(
        """select id, unfolded_from, status = 'left' from nodes where unfolded_from < %s
           order by unfolded_from limit %s for no key update skip locked""",
        [before, limit],
    )
    return [Unfolded(NodeId(node), day, is_gone) for node, day, is_gone in await cursor.fetchall()]


async def store_days(connection: Connection, days: Sequence[tuple[Unfolded, Day]]) -> None:
    """Keep these."""
    for unfolded, day in days:
        await connection.execute(
            """insert into node_days (node_id, day, present_seconds, counted_seconds, present, counted)
               values (%s, %s, %s, %s, %s, %s) on conflict (node_id, day) do nothing""",
            [
                unfolded.node, unfolded.day, day.present_seconds, day.counted_seconds,
                None if day.present is None else list(day.present), None if day.counted is None else list(day.counted),
            ],
        )  # fmt: skip


async def advance(connection: Connection, folded: Sequence[Unfolded], midnight: datetime, to: date) -> None:
    """These days are folded, and end at `midnight`: what they were made of goes, and the next one is `to`; none, if the node has left."""
    nodes = [each.node for each in folded]
    await connection.execute(
        "delete from node_presences where node_id = any (%s::uuid[]) and ended_at <= %s", [nodes, midnight]
    )
    await connection.execute(
        """delete from node_transitions t using unnest(%(nodes)s::uuid[]) as n (id)
           where t.node_id = n.id and t.at < %(midnight)s and t.id < (
               select id from node_transitions where node_id = n.id order by id desc offset %(kept)s limit 1)""",
        {"nodes": nodes, "midnight": midnight, "kept": KEPT_TRANSITIONS},
    )
    await connection.execute(
        """update nodes n set unfolded_from = f.day from unnest(%s::uuid[], %s::date[]) as f (id, day) where n.id = f.id""",
        [nodes, [NEVER if each.is_gone else to for each in folded]],
    )


async def drop_old(connection: Connection, days_before: date, watches_before: datetime) -> None:
    """Forget days and watches that nobody asks for any more."""
    await connection.execute(
        "delete from node_days where ctid = any (array (select ctid from node_days where day < %s limit 10000))",
        [days_before],
    )
    await connection.execute("delete from coordinator_watches where ended_at < %s", [watches_before])


def _tuple(values: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)
