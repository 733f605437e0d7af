"""Who heard whom, and when anybody was there to hear: presences of nodes, watches of coordinators."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from fsn.coord.database.nodes import NIL
from fsn.coord.database.pool import Pool
from fsn.core.ids import NodeId
from fsn.core.uptime import Covered, Span

__all__ = ["WATCHES_KEPT", "Silence", "silences", "watches"]

WATCHES_KEPT: Final = timedelta(days=60)
"""A silence longer than this is told as this."""


@attrs.frozen
class Silence:
    """A node that no living coordinator hears: since when, and for how many seconds of that at least one was there to hear it."""

    node: NodeId
    since: datetime
    watched_seconds: float


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


async def watches(db: Pool, since: datetime) -> Sequence[Span]:
    """When coordinators were there to hear nodes, `since` then: one span for each watch, in seconds of the epoch."""
    rows = await db.fetch_all(
        """select began_at, ended_at from coordinator_watches where ended_at > %(since)s
           union all
           select w.began_at, c.alive_at from coordinator_watches w join coordinators c on c.peer_id = w.coordinator
           where w.ended_at is null and c.alive_at > %(since)s""",
        {"since": since},
    )
    return [(begin.timestamp(), end.timestamp()) for begin, end in rows]
