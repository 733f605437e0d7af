"""Worker that keeps at hand what nodes are told with the answers to their heartbeats: their proofs and their pay."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from fsn.coord.database.pool import Pool
from fsn.coord.database.proof_reports import told_to_nodes
from fsn.coord.database.statements import money_of, today_so_far
from fsn.coord.membership import Membership
from fsn.core.economics import daily_statement
from fsn.core.ids import NodeId
from fsn.core.reputation import VETTING_PROOFS, vetting_left
from fsn.p2p.wire.messages import Earnings, ProofRecord
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Rest

__all__ = ["Telling"]

LOOK_SECONDS: Final = 60.0
AT_ONCE: Final = 1000
LONGEST_REASON: Final = 200
"""Bytes that the wire takes of a reason."""


@attrs.define(eq=False)
class Telling:
    """Reads it once a minute for all nodes that are connected here: a heartbeat asks no database."""

    db: Pool
    membership: Membership
    clock: Clock
    name: str = "telling"
    _proofs: Mapping[NodeId, ProofRecord] = attrs.field(factory=dict, init=False)
    _earnings: Mapping[NodeId, tuple[int, Earnings]] = attrs.field(factory=dict, init=False)

    def proofs(self, node: NodeId) -> ProofRecord | None:
        """None until it was read."""
        return self._proofs.get(node)

    def earnings(self, node: NodeId) -> tuple[int, Earnings] | None:
        """Micro-credits earned so far, and what there is to say of them; None until it was read."""
        return self._earnings.get(node)

    async def step(self) -> Rest:
        """Read it all anew."""
        nodes = [member.node for member in self.membership.online()]
        proofs: dict[NodeId, ProofRecord] = {}
        earnings: dict[NodeId, tuple[int, Earnings]] = {}
        now = self.clock()
        for start in range(0, len(nodes), AT_ONCE):
            some = nodes[start : start + AT_ONCE]
            rows = await told_to_nodes(self.db, some)
            proofs.update((NodeId(row[0]), _record(row[1:], now)) for row in rows)  # type: ignore[arg-type]
            today = await today_so_far(self.db, some, now)
            for node, money in (await money_of(self.db, some)).items():
                estimate = daily_statement(today[node]).earned if node in today else 0
                earnings[node] = money.earned, Earnings(estimate, money.balance, money.pending, money.held)
        self._proofs, self._earnings = proofs, earnings
        return Rest(LOOK_SECONDS)


def _record(row: tuple[Any, ...], now: datetime) -> ProofRecord:
    passed, missed, failed, vetting, first, vetted_at, suspended_at, reason, score = row
    left = 0.0 if vetted_at else vetting_left(first.timestamp() if first else None, now.timestamp())
    return ProofRecord(
        passed=passed,
        missed=missed,
        failed=failed,
        vetted_proofs=max(vetting, VETTING_PROOFS) if vetted_at else vetting,
        vetting_proofs=VETTING_PROOFS,
        vetting_seconds_left=int(left),
        score_millionths=min(max(round(score * 1_000_000), 0), 1_000_000),
        is_suspended=suspended_at is not None,
        reason=(reason or "").encode()[:LONGEST_REASON].decode(errors="ignore"),
    )
