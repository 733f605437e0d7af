"""The coordinators over one database: who is alive, where they are, since when they watch; the end of one that died."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.ids import PeerId

__all__ = [
    "CoordinatorRecord",
    "begin_watch",
    "bury",
    "enter",
    "forget_coordinators",
    "leave",
    "list_coordinators",
    "restart_presences",
    "stay",
]

MOST_COORDINATORS = 64
"""More than any network will run over one database, and as many as a heartbeat's answer names."""


@attrs.frozen
class CoordinatorRecord:
    """A coordinator, as its own row says; by its own clock."""

    peer: PeerId
    addresses: tuple[str, ...]
    started_at: datetime
    alive_at: datetime


async def enter(db: Pool, us: PeerId, addresses: Sequence[str], now: datetime) -> None:
    """This coordinator starts: what its last run heard and watched ended when that was alive last."""
    async with db.transaction() as connection:
        await _lock(connection, us)
        await _end(connection, us)
        await connection.execute(
            """insert into coordinators (peer_id, addresses, started_at, alive_at) values (%(us)s, %(addresses)s, %(now)s, %(now)s)
               on conflict (peer_id) do update set addresses = excluded.addresses, started_at = excluded.started_at,
                   alive_at = excluded.alive_at""",
            {"us": us, "addresses": list(addresses), "now": now},
        )


async def stay(db: Pool, us: PeerId, addresses: Sequence[str], now: datetime) -> bool:
    """This coordinator is alive, and has been since it said so last; False when others have taken it for dead meanwhile."""
    rows = await db.execute(
        """update coordinators c set alive_at = %(now)s, addresses = %(addresses)s where peer_id = %(us)s
               and exists (select from coordinator_watches w where w.coordinator = c.peer_id and w.ended_at is null)""",
        {"us": us, "addresses": list(addresses), "now": now},
    )
    return bool(rows)


async def begin_watch(db: Pool, us: PeerId, addresses: Sequence[str], now: datetime, begins_at: datetime) -> None:
    """This coordinator was away: its last watch ended when it was alive last, a new one begins at `begins_at`."""
    async with db.transaction() as connection:
        await _lock(connection, us)
        await _end_watch(connection, us)
        await connection.execute(
            """insert into coordinators (peer_id, addresses, started_at, alive_at) values (%(us)s, %(addresses)s, %(now)s, %(now)s)
               on conflict (peer_id) do update set addresses = excluded.addresses, alive_at = excluded.alive_at""",
            {"us": us, "addresses": list(addresses), "now": now},
        )
        await connection.execute(
            "insert into coordinator_watches (coordinator, began_at) values (%s, %s)", [us, begins_at]
        )


async def restart_presences(db: Pool, us: PeerId) -> None:
    """What this coordinator hears ended when it was alive last: its clock was set since, and goes on elsewhere."""
    async with db.transaction() as connection:
        await _end_presences(connection, us)


async def leave(db: Pool, us: PeerId, now: datetime) -> None:
    """This coordinator stops in good order: the others need not wait to find out."""
    async with db.transaction() as connection:
        await connection.execute("update coordinators set alive_at = %s where peer_id = %s", [now, us])
        await _end(connection, us)
        await connection.execute("delete from coordinators where peer_id = %s", [us])


async def list_coordinators(db: Pool) -> Sequence[CoordinatorRecord]:
    """All that there are, the latest alive first; dead ones among them."""
    return await db.fetch_all(
        """select peer_id as peer, addresses, started_at, alive_at from coordinators
           order by alive_at desc, peer_id limit %s""",
        [MOST_COORDINATORS],
        row=CoordinatorRecord,
    )


async def bury(db: Pool, dead: CoordinatorRecord) -> bool:
    """What a coordinator heard and watched ended when it was alive last; False when it has shown itself since."""
    async with db.transaction() as connection:
        if await _lock(connection, dead.peer) != dead.alive_at:
            return False
        await _end(connection, dead.peer)
    return True


async def forget_coordinators(db: Pool, alive_before: datetime) -> None:
    """Drop the rows of those that were not alive since; what they heard and watched has an end already."""
    await db.execute(
        """delete from coordinators c where alive_at < %s
               and not exists (select from coordinator_watches w where w.coordinator = c.peer_id and w.ended_at is null)""",
        [alive_before],
    )


async def _lock(connection: Connection, peer: PeerId) -> datetime | None:
    """First of all, so that nobody deadlocks; when it was alive last."""
    cursor = await connection.execute("select alive_at from coordinators where peer_id = %s for update", [peer])
    row = await cursor.fetchone()
    return row[0] if row else None


async def _end(connection: Connection, peer: PeerId) -> None:
    await _end_presences(connection, peer)
    await _end_watch(connection, peer)


async def _end_watch(connection: Connection, peer: PeerId) -> None:
    await connection.execute(
        """update coordinator_watches w set ended_at = greatest(w.began_at, c.alive_at) from coordinators c
           where c.peer_id = %(peer)s and w.coordinator = %(peer)s and w.ended_at is null""",
        {"peer": peer},
    )


async def _end_presences(connection: Connection, peer: PeerId) -> None:
    """Nodes that no other one hears are absent from then on. Their rows first, as whoever writes presence locks them."""
    await connection.execute(
        """select 1 from nodes where id in (select node_id from node_presences where coordinator = %s and ended_at is null)
           order by id for no key update""",
        [peer],
    )
    await connection.execute(
        """with ended as (
               update node_presences p set ended_at = greatest(p.began_at, c.alive_at) from coordinators c
               where c.peer_id = %(peer)s and p.coordinator = %(peer)s and p.ended_at is null
               returning p.node_id, p.ended_at)
           update nodes n set absent_since = ended.ended_at from ended
           where n.id = ended.node_id and n.absent_since is null and not exists (
               select from node_presences o where o.node_id = n.id and o.ended_at is null and o.coordinator <> %(peer)s)""",
        {"peer": peer},
    )
