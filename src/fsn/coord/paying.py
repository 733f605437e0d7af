"""Worker that writes nodes' statements, day by day, signs them and books them, and returns what was held back."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import attrs
import structlog
import trio

from fsn.coord.database.pool import Pool
from fsn.coord.database.statements import (
    SignedStatement,
    days_due,
    last_hashes,
    post_statements,
    return_held,
)
from fsn.core.economics import RETURN_DAYS, DayInputs, Statement, daily_statement, statement_hash
from fsn.core.ids import NodeId
from fsn.runtime.clock import Clock
from fsn.runtime.groups import sole_error
from fsn.runtime.identity import Identity
from fsn.runtime.supervise import Rest
from fsn.runtime.threads import run_in_thread

__all__ = ["Paying"]

log = structlog.get_logger()

AT_ONCE: Final = 10_000
SLICE: Final = 2000
"""Statements of one transaction."""
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
        if due and await self._pay(due):
            return None
        now = self.clock()
        returned = await return_held(self.db, now - timedelta(days=RETURN_DAYS), now.date(), now)
        if returned:
            log.info("held_returned", nodes=returned)
        return Rest(LOOK_SECONDS)

    async def _pay(self, due: Sequence[DayInputs]) -> int:
        """Make and sign a slice of statements while the one before is posted; how many were posted."""
        before = await last_hashes(self.db, [inputs.node for inputs in due])
        paid = _Paid()
        signed, slices = trio.open_memory_channel[Sequence[SignedStatement]](1)
        with sole_error():
            async with trio.open_nursery() as nursery, signed:
                nursery.start_soon(self._post, slices, paid)
                for first in range(0, len(due), SLICE):
                    # In a thread: ten thousand signatures take half a second, in which nobody else would have a turn.
                    await signed.send(await run_in_thread(self._sign, due[first : first + SLICE], before))
        if paid.statements:
            log.info("statements_posted", statements=paid.statements, micro_credits=paid.micro_credits)
        return paid.statements

    async def _post(self, slices: trio.MemoryReceiveChannel[Sequence[SignedStatement]], paid: "_Paid") -> None:
        async for some in slices:
            new = await post_statements(self.db, some, self.clock())
            paid.statements += len(new)
            paid.micro_credits += sum(each.statement.earned for each in some if each.statement.inputs.node in new)

    def _sign(self, due: Sequence[DayInputs], before: Mapping[NodeId, bytes]) -> list[SignedStatement]:
        return [self._signed(daily_statement(inputs), before[inputs.node]) for inputs in due]

    def _signed(self, statement: Statement, previous: bytes) -> SignedStatement:
        found = statement_hash(statement, previous)
        return SignedStatement(statement, previous, found, self.identity.peer, self.identity.sign(found))


@attrs.define
class _Paid:
    statements: int = 0
    micro_credits: int = 0
