"""What nodes declare: that they leave, are away for a while, are back, or stop in this moment."""

import math
from datetime import datetime, timedelta
from typing import Final

import attrs
import structlog

from fsn.coord.database.drains import NodeStanding, begin_drain, end_drain, maintenance_spans, standing_of
from fsn.coord.database.node_states import change_status
from fsn.coord.database.pool import Pool
from fsn.coord.database.repairs import queue_node
from fsn.coord.membership import Membership
from fsn.core.errors import Invalid
from fsn.core.ids import PeerId
from fsn.core.maintenance import BUDGET_HOURS, WINDOW_DAYS, is_same_end, seconds_left
from fsn.p2p.wire.messages import Declaration, Declared, Refusal, RefusalCode, Response, Standing
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell

__all__ = ["Declarations"]

log = structlog.get_logger()

JUDGED: Final = ("left", "disqualified")
"""States that no declaration changes."""
ROUNDED_SECONDS: Final = 60.0
"""Spans are rounded up, and travel."""
LONGEST_DRAIN: Final = timedelta(days=3660)


@attrs.frozen
class Declarations:
    """Answers `declare`. Registered nodes only; who asks is judged by the peer id that the connection has proved."""

    db: Pool
    membership: Membership
    clock: Clock
    by: PeerId
    """This coordinator."""
    drains_due: Bell
    scans_due: Bell

    async def declare(self, peer: PeerId, message: Declaration) -> Response:
        """Heed what a node means to do; how it stands afterwards. Again is harmless, by any coordinators. Raises Invalid, Unavailable."""
        found = await standing_of(self.db, peer)
        if found is None:
            return Refusal(RefusalCode.NOT_AUTHORISED, f"{peer} is not registered here: run `fsn node init`")
        if await self._heed(peer, found, message):
            await self.membership.reread(peer)
            found = await standing_of(self.db, peer) or found
            log.info("node_declared", node=str(found.node), standing=str(message.standing), state=found.status)
        return self._answer(found)

    async def _heed(self, peer: PeerId, found: NodeStanding, message: Declaration) -> bool:
        """Do what follows from it; whether anything did."""
        match message.standing:
            case Standing.STOPPING:
                self.membership.goodbye(peer)
                return False
            case Standing.ACTIVE | Standing.DRAINING | Standing.MAINTENANCE if found.status in JUDGED:
                return False
            case Standing.ACTIVE:
                return await self._stay(found)
            case Standing.DRAINING:
                return await self._drain(found, message)
            case Standing.MAINTENANCE:
                return await self._maintain(found, message)
        raise Invalid(f"a standing is one of {', '.join(Standing)}; got {message.standing}")

    async def _stay(self, found: NodeStanding) -> bool:
        if found.status not in ("draining", "maintenance"):
            return False
        was = "drain" if found.status == "draining" else "maintenance"
        now = self.clock()
        async with self.db.transaction() as connection:
            await change_status(
                connection, found.node, "online", reason=f"{was} ended by its operator", at=now, coordinator=self.by
            )
            if await end_drain(connection, found.node):
                await queue_node(connection, found.node, reason="drain cancelled", at=now)
        self.scans_due.ring()
        return True

    async def _drain(self, found: NodeStanding, message: Declaration) -> bool:
        now = self.clock()
        until = _end(now, message.remaining_seconds, LONGEST_DRAIN)
        if found.status == "draining" and found.is_draining and is_same_end(_stamp(found.until), _stamp(until)):
            return False
        async with self.db.transaction() as connection:
            if not await change_status(
                connection,
                found.node,
                "draining",
                reason="declared by its operator",
                at=now,
                until=until,
                coordinator=self.by,
            ):
                return False
            if await begin_drain(connection, found.node, now):
                await queue_node(connection, found.node, reason="draining", at=now)
        self.scans_due.ring()
        self.drains_due.ring()
        return True

    async def _maintain(self, found: NodeStanding, message: Declaration) -> bool:
        now, wanted = self.clock(), message.remaining_seconds
        if wanted < 1:
            raise Invalid("a maintenance has an end: remaining_seconds of 1 or more is wanted; got 0")
        until = _end(now, wanted, timedelta(days=WINDOW_DAYS))
        if found.status == "maintenance" and is_same_end(_stamp(found.until), _stamp(until)):
            return False
        spans = await maintenance_spans(self.db, found.node, now - timedelta(days=WINDOW_DAYS), now)
        if wanted > (left := seconds_left(spans, now.timestamp())) + ROUNDED_SECONDS:
            raise Invalid(
                f"a node may be in maintenance for {BUDGET_HOURS:g} hours in {WINDOW_DAYS} days, of which {left / 3600:.1f} are left;"
                f" {wanted / 3600:.1f} were wanted"
            )
        if found.status == "draining":
            await self._stay(found)
        return await change_status(
            self.db, found.node, "maintenance", reason=message.reason or "declared by its operator", at=now, until=until,
            coordinator=self.by,
        )  # fmt: skip

    def _answer(self, found: NodeStanding) -> Declared:
        now = self.clock()
        reason = found.reason
        if found.is_draining:
            reason = f"waits: {found.waits_for}" if found.waits_for else ""
        return Declared(
            state="online" if found.status in ("joining", "offline") else found.status,  # here it is, and asks
            since_seconds=max(0, int((now - found.since).total_seconds())),
            reason=reason,
            remaining_seconds=max(1, math.ceil((found.until - now).total_seconds())) if found.until else 0,
            replicas_left=found.replicas_left,
            bytes_left=found.bytes_left,
            replicas_only_here=found.only_here,
        )


def _end(now: datetime, seconds: int, longest: timedelta) -> datetime | None:
    """When it is over; None without an end. A node may say any number."""
    return now + min(timedelta(seconds=min(seconds, longest.total_seconds())), longest) if seconds else None


def _stamp(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
