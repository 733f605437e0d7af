"""What an operator wants counted of the whole catalogue, in a few statements."""

from collections.abc import Mapping
from typing import get_args

import attrs

from fsn.coord.catalog import NodeStatus
from fsn.coord.database.pool import Pool
from fsn.coord.database.repairs import QueueCounts, queue_counts

__all__ = ["CatalogueCounts", "catalogue_counts"]


@attrs.frozen
class CatalogueCounts:
    """Over all coordinators of one database."""

    nodes: Mapping[str, int]
    """By what the catalogue says of them; each state is there."""
    uploads_open: int
    repairs: QueueCounts
    garbage_held: int
    """Nodes whose garbage waits for an administrator."""


async def catalogue_counts(db: Pool) -> CatalogueCounts:
    """Counted by index. Raises Unavailable."""
    sql = """select case when status = 'online' and absent_since is not null then 'offline' else status::text end, count(*)
             from nodes group by 1
             union all select 'uploads', count(*) from uploads where state = 'open'
             union all select 'held', count(*) from reconciliations where held_at is not null"""
    found: dict[str, int] = dict(await db.fetch_all(sql))
    uploads_open, held = found.pop("uploads"), found.pop("held")
    nodes = {status: found.get(status, 0) for status in get_args(NodeStatus)}
    return CatalogueCounts(nodes, uploads_open, await queue_counts(db), held)
