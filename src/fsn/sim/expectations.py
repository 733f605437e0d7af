"""What a story expects at a point: each that is not met is a failure."""

from datetime import datetime, timedelta
from typing import Final

import attrs
from attrs.validators import ge, in_

from fsn.coord.database.inspection import Charge
from fsn.core.tariff import daily_cost, storage_cost
from fsn.core.units import MicroCredits
from fsn.node.earnings import first_difference
from fsn.sim.clock import EPOCH
from fsn.sim.nodes import SimNode
from fsn.sim.steps import OnNodes, Stage, Step
from fsn.sim.timeline import Event

__all__ = ["ExpectCharges", "ExpectEvents", "ExpectProofs", "ExpectReplicas", "ExpectStatements", "ExpectStatus"]


CHARGED_WITHIN: Final = timedelta(days=1)
"""A day is charged when it has begun: coordinators may be away for a while, and look now and then."""


@attrs.frozen(kw_only=True)
class ExpectReplicas(Step):
    """Each chunk of each file has so many replicas: right bytes, on nodes that are there."""

    verb = "expect_replicas"
    least: int = attrs.field(default=3, validator=ge(0))
    """No chunk has fewer."""
    most: int = attrs.field(default=100, validator=ge(0))
    """No chunk has more."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        counts = [len(chunk.readable) for chunk in await stage.invariants.chunks()]
        stage.expect(bool(counts), "there are no chunks to count replicas of")
        stage.expect(
            min(counts, default=0) >= self.least,
            f"{self.least} replicas of each chunk; the worst has {min(counts, default=0)}",
        )
        stage.expect(
            max(counts, default=0) <= self.most, f"{self.most} replicas at most; one chunk has {max(counts, default=0)}"
        )


@attrs.frozen(kw_only=True)
class ExpectEvents(Step):
    """So many events of a kind have happened so far."""

    verb = "expect_events"
    what: str
    """The word, as the timeline shows it, e.g. "node_offline"."""
    who: str | None = None
    """Of one member only, e.g. "node3"."""
    least: int = attrs.field(default=0, validator=ge(0))
    """No fewer."""
    most: int = attrs.field(default=10**9, validator=ge(0))
    """No more."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        found = sum(self._is_meant(event) for event in stage.net.timeline.events)
        stage.expect(
            self.least <= found <= self.most, f"{self.what} between {self.least} and {self.most} times; it was {found}"
        )

    def _is_meant(self, event: Event) -> bool:
        return event.what == self.what and self.who in (None, event.who)


@attrs.frozen(kw_only=True)
class ExpectStatus(OnNodes):
    """These nodes have this status in the catalogue."""

    verb = "expect_status"
    status: str = attrs.field(
        validator=in_(["joining", "online", "offline", "maintenance", "draining", "left", "disqualified"])
    )
    """As the nodes' list shows it."""

    def can_happen_to(self, node: SimNode) -> bool:
        """See `OnNodes`."""
        return True

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        found = (await stage.invariants.statuses()).get(node.id)
        stage.expect(found == self.status, f"{node.name} {self.status}; it is {found}")


@attrs.frozen(kw_only=True)
class ExpectCharges(Step):
    """Every file that is there was paid for, once, at its price, and each day after its first thirty once, up to now; nothing was paid for
    one that never came to be."""

    verb = "expect_charges"
    files: int = attrs.field(default=1, validator=ge(0))
    """So many have a price, or more."""
    days: int = attrs.field(default=0, validator=ge(0))
    """So many days of files were charged one by one, or more."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        price = stage.net.config.credits.price_micro or 0  # not given, storing is free in a story
        owed, charged = {file.id for file in stage.files()}, await stage.invariants.charges()
        now = EPOCH + timedelta(seconds=stage.net.now)
        for each in charged:
            _check_charge(stage, each, storage_cost(each.size_bytes, each.pieces, price), now)
        stage.expect(
            owed <= {each.file for each in charged if each.status == "ready"}, "each acknowledged file to be ready"
        )
        paid, days = sum(each.paid > 0 for each in charged), sum(each.days for each in charged)
        stage.expect(paid >= self.files, f"{self.files} files with a price; there are {paid}")
        stage.expect(days >= self.days, f"{self.days} days charged one by one; there are {days}")
        by_day, in_all = await stage.invariants.daily_charges(), sum(each.in_all - each.paid for each in charged)
        stage.expect(
            by_day == in_all, f"{in_all} micro-credits paid day by day, as the files say; the ledger has {by_day}"
        )


def _check_charge(stage: Stage, found: Charge, cost: MicroCredits, now: datetime) -> None:
    wanted = (cost,) if found.status == "ready" else (0, cost) if found.status == "deleted" else (0,)
    stage.expect(found.paid in wanted, f"{found.file} ({found.status}) paid with {wanted}; it was {found.paid}")
    in_all = found.paid + found.days * daily_cost(cost)
    stage.expect(
        found.in_all == in_all,
        f"{found.file} paid with {in_all} in {found.days} days more; it was {found.in_all}",
    )
    is_behind = found.status == "ready" and found.paid_until is not None and found.paid_until + CHARGED_WITHIN < now
    stage.expect(not is_behind, f"{found.file} paid until {now}; it is until {found.paid_until}")


@attrs.frozen(kw_only=True)
class ExpectProofs(OnNodes):
    """Their proofs, in rounds that were judged, have come to this."""

    verb = "expect_proofs"
    verdict: str = attrs.field(default="fine", validator=in_(["fine", "suspended", "disqualified"]))
    """What follows from them."""
    least_passed: int = attrs.field(default=0, validator=ge(0))
    """No fewer passed."""
    least_failed: int = attrs.field(default=0, validator=ge(0))
    """No fewer failed."""
    least_missed: int = attrs.field(default=0, validator=ge(0))
    """No fewer were missed."""
    least_refused: int = attrs.field(default=0, validator=ge(0))
    """No fewer were refused."""
    most_faults: int = attrs.field(default=10**9, validator=ge(0))
    """No more failed, were missed or refused."""
    least_quickest_ms: int = attrs.field(default=0, validator=ge(0))
    """Their quickest answer took no less, by the coordinator's clock."""
    most_quickest_ms: int = attrs.field(default=10**9, validator=ge(0))
    """Nor more; both only of nodes of which a proof has passed."""

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        found = (await stage.invariants.verdicts())[node.id]
        judged = "disqualified" if found.status == "disqualified" else "suspended" if found.suspended else "fine"
        enough = (
            found.passed >= self.least_passed
            and found.failed >= self.least_failed
            and found.missed >= self.least_missed
            and found.refused >= self.least_refused
        )
        quickest = found.quickest_ms
        in_time = quickest is None or self.least_quickest_ms <= quickest <= self.most_quickest_ms
        faults = found.failed + found.missed + found.refused
        stage.expect(
            judged == self.verdict and enough and in_time and faults <= self.most_faults,
            f"{node.name} {self.verdict}, as told; it is {judged}: {found}",
        )


@attrs.frozen(kw_only=True)
class ExpectStatements(OnNodes):
    """They were paid, and each of their statements follows from its inputs, in one chain, signed."""

    verb = "expect_statements"
    least: int = attrs.field(default=1, validator=ge(0))
    """No fewer days."""
    least_micro_credits: int = attrs.field(default=1, validator=ge(0))
    """No less in all."""

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        found = await stage.invariants.statements(node.id)
        earned = sum(each.statement.earned for each in found)
        wrong = first_difference(found, node.id)
        stage.expect(wrong is None, f"{node.name}'s statements to add up; {wrong}")
        stage.expect(len(found) >= self.least, f"{self.least} statements of {node.name}; there are {len(found)}")
        stage.expect(
            earned >= self.least_micro_credits,
            f"{self.least_micro_credits} micro-credits for {node.name}; it earned {earned}",
        )
