"""The share of the time for which nodes were there, over any window; and the worker that folds days gone by."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.coord.database.presence import WATCHES_KEPT, watches
from fsn.coord.database.uptime import (
    Unfolded,
    advance,
    claim_unfolded,
    days_between,
    drop_old,
    presences,
    single_days,
    states,
    store_days,
    unfolded_from,
)
from fsn.core.ids import NodeId
from fsn.core.uptime import DAY_SECONDS, Day, Uptime, counted_spans, fold_day, merge, part_of_day, uptime
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Rest

__all__ = ["UptimeFolding", "UptimeShares", "Uptimes", "uptimes"]

EXACT_DAYS: Final = 2
"""So many whole days, and today, are kept to the microsecond; of older ones the quarters of an hour."""
KEPT_DAYS: Final = timedelta(days=400)
BATCH: Final = 50
IDLE_SECONDS: Final = 600.0
_NONE: Final = Uptime(0.0, 0.0)


async def uptimes(db: Pool, nodes: Sequence[NodeId], begin: datetime, end: datetime) -> Mapping[NodeId, Uptime]:
    """Of each node from `begin` to `end`.

    Exact for windows in the last two days; a window that begins or ends before is exact where that is a quarter of an hour, and else off
    by a few minutes at most, at each such edge.
    """
    if not nodes or begin >= end:
        return dict.fromkeys(nodes, _NONE)
    found: dict[NodeId, Uptime] = defaultdict(lambda: _NONE)
    async with db.transaction() as connection:
        borders = await unfolded_from(connection, nodes)
        for border in sorted({min(max(_midnight(day), begin), end) for day in borders.values()}):
            some = [node for node, day in borders.items() if min(max(_midnight(day), begin), end) == border]
            for node, found_in_days in (await _from_days(connection, some, begin, border)).items():
                found[node] += found_in_days
            for node, found_exactly in (await _exactly(connection, some, border, end)).items():
                found[node] += found_exactly
    return {node: found[node] for node in nodes}


async def _from_days(
    connection: Connection, nodes: Sequence[NodeId], begin: datetime, end: datetime
) -> Mapping[NodeId, Uptime]:
    if begin >= end:
        return {}
    first, last = begin.date(), end.date()
    found: dict[NodeId, Uptime] = defaultdict(lambda: _NONE)
    for node, (present, counted) in (await days_between(connection, nodes, first, last)).items():
        found[node] += Uptime(present, counted)
    for node, day, kept in await single_days(connection, nodes, sorted({first, last})):
        midnight = _midnight(day)
        found[node] += part_of_day(kept, (begin - midnight).total_seconds(), (end - midnight).total_seconds())
    return found


async def _exactly(
    connection: Connection, nodes: Sequence[NodeId], begin: datetime, end: datetime
) -> Mapping[NodeId, Uptime]:
    if begin >= end:
        return {}
    heard = await presences(connection, nodes, begin, end)
    stood = await states(connection, nodes, begin, end)
    watched = merge(await watches(connection, begin))
    first, last = begin.timestamp(), end.timestamp()
    return {
        node: uptime(merge(heard.get(node, ())), watched, counted_spans(stood.get(node, ()), last), first, last)
        for node in nodes
    }


@attrs.frozen
class UptimeShares:
    """The last 24 hours and the last 30 days, 0.0 .. 1.0; None where no time counts."""

    day: float | None
    month: float | None


@attrs.frozen
class Uptimes:
    """Answers whoever looks at nodes."""

    db: Pool
    clock: Clock

    async def shares(self, nodes: Sequence[NodeId]) -> Mapping[NodeId, UptimeShares]:
        """Of each of a page of nodes."""
        now = self.clock()
        days = await uptimes(self.db, nodes, now - timedelta(days=1), now)
        months = await uptimes(self.db, nodes, now - timedelta(days=30), now)
        return {node: UptimeShares(days[node].share, months[node].share) for node in nodes}


@attrs.frozen
class UptimeFolding:
    """Turns days gone by into sums, so that no table grows with how often nodes come and go. Several coordinators share the work."""

    db: Pool
    clock: Clock
    name: str = "uptime_folding"

    async def step(self) -> Rest | None:
        """The oldest day of fifty nodes; rests when all are folded."""
        now = self.clock()
        before = now.date() - timedelta(days=EXACT_DAYS)
        async with self.db.transaction() as connection:
            claimed = await claim_unfolded(connection, before, BATCH)
            for day in sorted({each.day for each in claimed}):
                await _fold(connection, [each for each in claimed if each.day == day], day)
            if not claimed:
                await drop_old(connection, (now - KEPT_DAYS).date(), now - WATCHES_KEPT)
        return None if claimed else Rest(IDLE_SECONDS)


async def _fold(connection: Connection, claimed: Sequence[Unfolded], day: date) -> None:
    begin, nodes = _midnight(day), [each.node for each in claimed]
    end = begin + timedelta(seconds=DAY_SECONDS)
    heard, stood = await presences(connection, nodes, begin, end), await states(connection, nodes, begin, end)
    watched = merge(await watches(connection, begin))
    days: list[tuple[Unfolded, Day]] = []
    for each in claimed:
        counted = counted_spans(stood.get(each.node, ()), end.timestamp())
        days.append((each, fold_day(merge(heard.get(each.node, ())), watched, counted, begin.timestamp())))
    await store_days(connection, [(each, day) for each, day in days if day.counted_seconds])
    await advance(connection, claimed, end, day + timedelta(days=1))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
