"""What a round of proofs came to: turnouts, suspicion, which are to be judged, what is old."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from fsn.coord.database.pool import Pool
from fsn.core.audit import Turnout
from fsn.core.ids import NodeId

__all__ = ["drop_retries", "forget_rounds", "suspect", "suspicious_before", "turnouts", "unjudged_rounds"]

ROUNDS_AT_ONCE: Final = 16


async def turnouts(db: Pool, number: int) -> Mapping[NodeId, Turnout]:
    """How the vetted nodes answered in a round; all nodes while fewer than three of them are vetted."""
    rows = await db.fetch_all(
        """select s.node_id, s.passed + s.failed + s.errors, s.timeouts, n.vetted_at is not null
           from proof_sums s join nodes n on n.id = s.node_id where s.round = %s""",
        [number],
    )
    found = {NodeId(node): Turnout(answered, timeouts) for node, answered, timeouts, _ in rows}
    vetted = {NodeId(row[0]) for row in rows if row[3]}
    return {node: found[node] for node in vetted} if len(vetted) >= 3 else found


async def suspicious_before(db: Pool, number: int, most: int) -> int:
    """How many rounds just before `number` were suspicious, one after the other; `most` at most."""
    rows = await db.fetch_all(
        "select round from proof_rounds where round between %s and %s and suspicion is not null",
        [number - most, number - 1],
    )
    found = {int(row[0]) for row in rows}
    return next((gap - 1 for gap in range(1, most + 1) if number - gap not in found), most)


async def suspect(db: Pool, number: int, why: str) -> bool:
    """Blame nobody for what is not answered in this round. False when it was suspicious already, and when it is judged."""
    return bool(
        await db.execute(
            "update proof_rounds set suspicion = %s where round = %s and suspicion is null and judged_at is null",
            [why, number],
        )
    )


async def drop_retries(db: Pool, number: int) -> None:
    """What was not answered in this round is not asked again."""
    await db.execute("delete from proof_retries where round = %s", [number])


async def unjudged_rounds(db: Pool, ended_before: datetime, given_up_before: datetime) -> list[int]:
    """Rounds to be judged, in order: those that began before `ended_before` and are done, or before `given_up_before`."""
    rows = await db.fetch_all(
        """select round from proof_rounds r where judged_at is null and begins_at < %s
               and (begins_at < %s or not exists (select from proof_parts p where p.round = r.round and p.done_at is null))
           order by round limit 100""",
        [ended_before, given_up_before],
    )
    return [int(row[0]) for row in rows]


async def forget_rounds(db: Pool, before: datetime, parts_before: datetime, limit: int) -> int:
    """Delete some failures and rounds that are older than `before`, and some parts of rounds judged before `parts_before`.

    How many rows of one kind, `limit` failures at most; 0 when none is left.
    """
    failures = await db.execute(
        """delete from proof_failures where challenge_id in (
               select challenge_id from proof_failures where at < %s order by at limit %s)""",
        [before, limit],
    )
    if failures:
        return failures
    parts = await db.execute(
        """delete from proof_parts where round in (
               select round from proof_rounds where judged_at < %s
                   and exists (select from proof_parts p where p.round = proof_rounds.round) order by round limit %s)""",
        [parts_before, ROUNDS_AT_ONCE],
    )
    return parts or await _forget_old_rounds(db, before)


async def _forget_old_rounds(db: Pool, before: datetime) -> int:
    """Those without failures that are kept; sums and what else is left of them first."""
    async with db.transaction() as connection:
        cursor = await connection.execute(
            """select round from proof_rounds r where begins_at < %s and judged_at is not null
                   and not exists (select from proof_failures f where f.round = r.round and f.at >= %s)
               order by round limit %s for update skip locked""",
            [before, before, ROUNDS_AT_ONCE],
        )
        old = [int(row[0]) for row in await cursor.fetchall()]
        for table in ("proof_retries", "proof_failures", "proof_sums", "proof_parts", "proof_rounds"):
            await connection.execute(f"delete from {table} where round = any (%s::bigint[])", [old])  # noqa: S608 - constants
    return len(old)
