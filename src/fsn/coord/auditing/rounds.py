"""Worker that makes nodes prove what they hold, round after round, and has the rounds judged."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import attrs
import structlog
import trio
from blake3 import blake3

from fsn.coord.auditing.asking import Asked, Asking
from fsn.coord.auditing.collecting import Collected
from fsn.coord.config import AuditConfig
from fsn.coord.database import proof_outcomes, proofs
from fsn.coord.database.pool import Pool
from fsn.coord.database.proof_writing import AskedReplica, Retry, Written
from fsn.coord.database.proofs import Sampled
from fsn.coord.database.reputations import Judged, judge_round
from fsn.coord.membership import Membership
from fsn.coord.metrics import CoordinatorMetrics
from fsn.core.audit import (
    MOST_TRIES,
    PARTS,
    ROUNDS_RUNNING,
    SLOTS,
    UNANSWERED,
    class_of_round,
    classes,
    is_suspicious,
    part_order,
    slots_of,
)
from fsn.core.errors import Unavailable
from fsn.core.ids import NodeId, PeerId
from fsn.core.proofs import Challenge
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Rest

__all__ = ["Auditing"]

log = structlog.get_logger()

LEASE: Final = timedelta(minutes=3)
LOOK_SECONDS: Final = 10.0
PAGE_REPLICAS: Final = 2000
RETRY_PAUSES: Final = (timedelta(minutes=2), timedelta(minutes=5), timedelta(minutes=10))
"""Before the second, third and fourth try: a switch that restarts, a disk that was checked, are over by then."""
RETRIES_AT_ONCE: Final = 256
RETRIES_IN_TURN: Final = 8
"""Of a node, one after the other, in a step: one that stays silent must hold up neither parts nor other nodes' challenges for long."""
FORGET_RETRIES_AFTER: Final = timedelta(days=7)
FORGET_ROWS: Final = 5000
FORGET_SECONDS: Final = 600.0
KEEP_PARTS: Final = timedelta(days=7)
"""Of a round that is judged, to see who did what."""
_SECRET: Final = b"fsn-audit-order-v1"


@attrs.define
class _Round:
    """What is known of the round that is under way."""

    number: int
    order: Sequence[int]
    sampled: Sequence[Sampled]
    slots_a_page: int
    parts_at_once: int


@attrs.define(eq=False)
class Auditing:
    """A few parts of the round, some repeated challenges, or a round to be judged, a step. Several coordinators share each round."""

    db: Pool
    membership: Membership
    asking: Asking
    by: PeerId
    clock: Clock
    config: AuditConfig
    key: bytes = attrs.field(repr=False)
    """32 secret bytes, the same for all coordinators of the database."""
    is_settled: Callable[[], bool]
    """Whether this coordinator has been there long enough for nodes to be back."""
    metrics: CoordinatorMetrics
    name: str = "auditing"
    _round: _Round | None = attrs.field(default=None, init=False)
    _forget_at: float = attrs.field(default=0.0, init=False)

    async def step(self) -> Rest | None:
        """Some of all that is due."""
        if not self.config.enabled or not self.is_settled():
            return Rest(LOOK_SECONDS)
        now = self.clock()
        current = await self._current(now)
        # Each in turn: parts that never come to an end must not keep the rest waiting.
        worked = [await self._do_parts(current, now), await self._do_retries(current, now), await self._judge(now)]
        if any(worked):
            return None
        await self._forget(now)
        return Rest(min(LOOK_SECONDS, self.config.round.total_seconds() / PARTS))

    # --- which round it is

    async def _current(self, now: datetime) -> _Round:
        number = int(now.timestamp() // self.config.round.total_seconds())
        if self._round is None or self._round.number != number:
            await proofs.open_round(self.db, number, self._begin_of(number))
            self._round = self._planned(number, await proofs.held_counts(self.db))
        return self._round

    def _planned(self, number: int, held: Mapping[NodeId, int]) -> _Round:
        secret = blake3(_SECRET, key=self.key).digest()
        sampled = [
            Sampled(node, many, class_of_round(secret, number, many))
            for node, count in held.items()
            if (many := classes(count)) > 1
        ]
        total = max(sum(held.values()), 1)
        slots = min(max(PAGE_REPLICAS * SLOTS // total, 1), SLOTS)
        parts = min(max(PAGE_REPLICAS * PARTS // total, 1), PARTS)
        return _Round(number, part_order(secret, number), sampled, slots, parts)

    def _begin_of(self, number: int) -> datetime:
        return datetime.fromtimestamp(number * self.config.round.total_seconds(), UTC)

    # --- parts

    async def _do_parts(self, current: _Round, now: datetime) -> bool:
        """Ask for some parts that are due; whether there were any."""
        share = (now - self._begin_of(current.number)) / self.config.round
        due = current.order[: int(share * PARTS) + 1]
        parts = await proofs.claim_parts(
            self.db, current.number, due, self.by, now=now, lease=LEASE, limit=current.parts_at_once
        )
        if not parts:
            return False
        collected = Collected(current.number)
        for slots in _pages(parts, current.slots_a_page):
            replicas = await proofs.replicas_in_slots(self.db, slots, current.sampled, self._begin_of(current.number))
            challenges = ((each, self.asking.new_challenge(each)) for each in replicas)
            for asked in await self._ask_leased(current.number, parts, challenges):
                collected.add(asked, tries=1)
            if not await proofs.extend_parts(self.db, current.number, parts, self.by, self.clock() + LEASE):
                return True
        written = await proofs.without_let_go(self.db, collected.written())
        at = self.clock()
        if not self.is_settled():  # we were stalled, or away: what did not come is no fault of theirs
            return True
        if await proofs.write_parts(
            self.db, current.number, parts, self.by, written, at=at, retry_at=at + RETRY_PAUSES[0]
        ):
            self._count(written)
        return True

    async def _ask_leased(
        self, number: int, parts: Sequence[int], challenges: Iterable[tuple[AskedReplica, Challenge]]
    ) -> list[Asked]:
        """Ask, and keep the parts meanwhile: a node that is silent for all of its challenges takes longer than a lease."""

        async def keep() -> None:
            while True:
                await trio.sleep(LEASE.total_seconds() / 3)
                with suppress(Unavailable):  # who comes back in time has lost nothing
                    await proofs.extend_parts(self.db, number, parts, self.by, self.clock() + LEASE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep)
            ended = await self._ask(challenges)
            nursery.cancel_scope.cancel()
        return ended

    async def _ask(self, challenges: Iterable[tuple[AskedReplica, Challenge]]) -> list[Asked]:
        ended: list[Asked] = []

        async def ask(replica: AskedReplica, challenge: Challenge) -> None:
            ended.append(await self.asking.ask(replica, challenge))

        async with trio.open_nursery() as nursery:
            for replica, challenge in challenges:
                if self._is_to_be_asked(replica.node):
                    nursery.start_soon(ask, replica, challenge)
        return ended

    def _is_to_be_asked(self, node: NodeId) -> bool:
        member = self.membership.member(node)
        return member is None or self.membership.status(member.record) not in {"maintenance", "left", "disqualified"}

    # --- challenges that are asked again

    async def _do_retries(self, current: _Round, now: datetime) -> bool:
        """Ask again what was not answered; whether anything was due."""
        online = [member.node for member in self.membership.online()]
        due = await proofs.claim_retries(
            self.db,
            online,
            now=now,
            lease=LEASE,
            limit=RETRIES_AT_ONCE,
            of_node=RETRIES_IN_TURN * self.config.in_flight_per_node,
        )
        if not due:
            return False
        of = {retry.challenge: retry for retry in due}
        ended = await self._ask((retry.asked, _challenge_of(retry, self.asking)) for retry in due)
        if not self.is_settled():
            return True
        await self._postpone(of, ended)
        await self._end_retries(current, of, ended)
        return True

    async def _postpone(self, of: Mapping[UUID, Retry], ended: Sequence[Asked]) -> None:
        at = self.clock()
        again = {each.challenge.challenge: of[each.challenge.challenge] for each in ended if each.outcome in UNANSWERED}
        tried = {key: at + RETRY_PAUSES[retry.tries] for key, retry in again.items() if retry.tries + 1 < MOST_TRIES}
        if tried:
            await proofs.postpone_retries(self.db, tried, tried=True)

    async def _end_retries(self, current: _Round, of: Mapping[UUID, Retry], ended: Sequence[Asked]) -> None:
        unanswered: dict[int, list[Asked]] = defaultdict(list)
        done: list[Asked] = []
        for each in ended:
            retry = of[each.challenge.challenge]
            if each.outcome in UNANSWERED:
                if retry.tries + 1 >= MOST_TRIES:
                    unanswered[retry.round].append(each)
            elif each.outcome not in {"offline", None}:
                done.append(each)
        for number, some in unanswered.items():
            if not await self._suspects(number):
                done += some
        if done:
            collected = Collected(current.number)
            for each in done:
                collected.add(each, tries=of[each.challenge.challenge].tries + 1)
            written = await proofs.without_let_go(self.db, collected.written())
            ids = [each.challenge.challenge for each in done]
            if await proofs.add_endings(self.db, current.number, ids, written, at=self.clock()):
                self._count(written)

    # --- judging

    async def _suspects(self, number: int) -> bool:
        """Whether so many nodes did not answer in that round that it is rather us; said so in the catalogue then."""
        if await proof_outcomes.suspicious_before(self.db, number + 1, 1):
            await proof_outcomes.drop_retries(self.db, number)
            return True
        before = await proof_outcomes.suspicious_before(self.db, number, ROUNDS_RUNNING)
        found = await proof_outcomes.turnouts(self.db, number)
        if not is_suspicious(found.values(), before):
            return False
        silent = sum(each.has_timed_out for each in found.values())
        why = f"{silent} of {len(found)} nodes did not answer: the coordinators suspect themselves"
        if await proof_outcomes.suspect(self.db, number, why):
            log.error("proof_round_suspicious", round=number, silent=silent, asked=len(found))
        await proof_outcomes.drop_retries(self.db, number)
        return True

    async def _judge(self, now: datetime) -> bool:
        """Judge one round that is over; whether there was one."""
        ended = now - self.config.round
        for number in (await proof_outcomes.unjudged_rounds(self.db, ended, ended - self.config.round / 4))[:1]:
            await self._suspects(number)
            async with self.db.transaction() as connection:
                changes = await judge_round(connection, number, now)
            _tell(number, changes)
            return True
        return False

    async def _forget(self, now: datetime) -> None:
        if trio.current_time() >= self._forget_at:
            await proofs.forget_retries(self.db, now - FORGET_RETRIES_AFTER)
            before = now - timedelta(days=self.config.keep_days)
            count = await proof_outcomes.forget_rounds(self.db, before, now - KEEP_PARTS, FORGET_ROWS)
            if not count:
                self._forget_at = trio.current_time() + FORGET_SECONDS

    def _count(self, written: Written) -> None:
        for sums in written.sums.values():
            self.metrics.count_proofs(sums.passed, sums.failed, sums.missed, sums.errors, sums.offline, sums.timeouts)
        for failure in written.failures:
            log.warning(
                "proof_not_given",
                node=str(failure.asked.node),
                replica=failure.asked.replica.hex,
                challenge=failure.challenge.hex,
                outcome=failure.outcome,
                detail=failure.detail,
            )


def _tell(number: int, changes: Sequence[Judged]) -> None:
    log.info("proof_round_judged", round=number, changes=len(changes))
    for change in changes:
        if change.kind != "fault":
            log.warning("reputation_changed", node=str(change.node), what=change.kind, reason=change.reason)


def _challenge_of(retry: Retry, asking: Asking) -> Challenge:
    """The same challenge as before: it has the same answer."""
    return Challenge(
        asking.network, retry.asked.node, retry.challenge, retry.asked.replica, retry.seed, retry.difficulty
    )


def _pages(parts: Sequence[int], slots_a_page: int) -> Iterator[list[range]]:
    """The slots of the parts: several parts at a time, or a part piece by piece, as there are few or many replicas."""
    together = max(1, slots_a_page * PARTS // SLOTS)
    for first in range(0, len(parts), together):
        some = [slots_of(part) for part in parts[first : first + together]]
        if together > 1:
            yield some
        else:
            (whole,) = some
            yield from ([whole[start : start + slots_a_page]] for start in range(0, len(whole), slots_a_page))
