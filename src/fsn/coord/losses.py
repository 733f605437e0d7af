"""What nodes report as lost: their own replicas only, each once, a few at a time."""

from typing import Final

import attrs
import structlog

from fsn.coord.database.pool import Pool
from fsn.coord.database.reconciliations import still_listed
from fsn.coord.database.repairs import report_lost
from fsn.coord.membership import Membership
from fsn.core.ids import NodeId, PeerId
from fsn.p2p.wire.messages import LossesReported, Refusal, RefusalCode, ReportLosses, Response
from fsn.runtime.clock import Clock

__all__ = ["LossReports"]

log = structlog.get_logger()

REASON_CHARACTERS: Final = 60


@attrs.define(eq=False)
class LossReports:
    """Answers `ReportLosses`. A flood costs a node its own replicas and nobody anything else: one report of a node at a time, of
    at most a thousand replicas, of which those count that are live on this node."""

    db: Pool
    membership: Membership
    clock: Clock
    _under_way: set[NodeId] = attrs.field(factory=set, init=False)

    async def report_losses(self, peer: PeerId, message: ReportLosses) -> Response:
        """Mark them lost and queue their chunks for repair; done when answered, and again is harmless. Raises Unavailable."""
        member = await self.membership.registered(peer)
        if member is None:
            return Refusal(RefusalCode.NOT_AUTHORISED, f"{peer} is not registered here: run `fsn node init`")
        if member.node in self._under_way:
            return Refusal(RefusalCode.BUSY, "another report of this node is being written down", retry_after_ms=1000)
        self._under_way.add(member.node)
        try:
            await self._write(member.node, message)
        finally:
            self._under_way.discard(member.node)
        return LossesReported()

    async def _write(self, node: NodeId, message: ReportLosses) -> None:
        own = await still_listed(self.db, node, [*message.losses])
        count = 0
        for reason in sorted(set(message.losses.values())):
            replicas = [each for each, said in message.losses.items() if said == reason and each in own]
            if replicas:
                words = "".join(each for each in reason if each.isprintable())[:REASON_CHARACTERS]
                count += await report_lost(self.db, replicas, reason=f"node: {words}", at=self.clock())
        log.warning("losses_taken", node=str(node), reported=len(message.losses), lost=count)
