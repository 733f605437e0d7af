"""Worker that writes nodes' statements, day by day, signs them and books them, and returns what was held back."""

from datetime import timedelta
from typing import Final

import attrs
import structlog

from fsn.coord.database.pool import Pool
from fsn.coord.database.statements import (
    SignedStatement,
    days_due,
    last_hashes,
    post_statements,
    return_held,
)
from fsn.core.economics import RETURN_DAYS, Statement, daily_statement, statement_hash
from fsn.runtime.clock import Clock
from fsn.runtime.identity import Identity
from fsn.runtime.supervise import Rest

__all__ = ["Paying"]

log = structlog.get_logger()

AT_ONCE: Final = 10_000
LOOK_SECONDS: Final = 600.0


@attrs.define(eq=False)
class Paying:
    """One day of up to ten thousand nodes a step. Several coordinators may: each statement is posted once, signed by whoever was first."""

    db: Pool
    identity: Identity
    clock: Clock
    name: str = "paying"

    async def step(self) -> Rest | None:
        """The oldest day without a statement of each node."""
        due = await days_due(self.db, AT_ONCE)
        if due:
            before = await last_hashes(self.db, [inputs.node for inputs in due])
            signed = [self._signed(daily_statement(inputs), before[inputs.node]) for inputs in due]
            posted = await post_statements(self.db, signed, self.clock())
            log.info(
                "statements_posted", statements=posted, micro_credits=sum(each.statement.earned for each in signed)
            )
            if posted:
                return None
        now = self.clock()
        returned = await return_held(self.db, now - timedelta(days=RETURN_DAYS), now.date(), now)
        if returned:
            log.info("held_returned", nodes=returned)
        return Rest(LOOK_SECONDS)

    def _signed(self, statement: Statement, previous: bytes) -> SignedStatement:
        found = statement_hash(statement, previous)
        return SignedStatement(statement, previous, found, self.identity.peer, self.identity.sign(found))
