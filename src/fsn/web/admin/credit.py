"""What coordinators have told a node of its proofs and its pay, as the admin API shows it."""

import msgspec

from fsn.node.reporting import Reporting
from fsn.p2p.wire.messages import Earnings, ProofRecord

__all__ = ["EarningsStatus", "EarningsView", "ProofsStatus", "told_of"]


class ProofsStatus(msgspec.Struct, frozen=True):
    """This node's proofs as a coordinator counts them; vetted when `vetted_proofs` has come up to `vetting_proofs` and no
    `vetting_seconds_left`. `score` is the reputation, 0 to 1; `reason`: why it is suspended or disqualified, else empty."""

    passed: int
    missed: int
    failed: int
    vetted_proofs: int
    vetting_proofs: int
    vetting_seconds_left: int
    score: float
    suspended: bool
    reason: str


class EarningsStatus(msgspec.Struct, frozen=True):
    """In millionths of a credit: an estimate for today, what is not paid out, payouts under way, what is held back."""

    today_micro_credits: int
    balance_micro_credits: int
    pending_micro_credits: int
    held_micro_credits: int


class EarningsView(msgspec.Struct, frozen=True):
    """All that was earned, in millionths of a credit, and more about it; null until a coordinator has told."""

    earned_micro_credits: int
    told: EarningsStatus | None


def told_of(reporting: Reporting) -> tuple[ProofsStatus | None, EarningsStatus | None]:
    """What the coordinator that answered last has said of either; None as long as none has."""
    links = sorted(reporting.links, key=lambda link: link.heartbeat_at or 0.0)
    proofs = next((link.proofs for link in reversed(links) if link.proofs is not None), None)
    earnings = next((link.earnings for link in reversed(links) if link.earnings is not None), None)
    return _proofs(proofs), _earnings(earnings)


def _proofs(record: ProofRecord | None) -> ProofsStatus | None:
    if record is None:
        return None
    return ProofsStatus(
        record.passed,
        record.missed,
        record.failed,
        record.vetted_proofs,
        record.vetting_proofs,
        record.vetting_seconds_left,
        record.score_millionths / 1_000_000,
        record.is_suspended,
        record.reason,
    )


def _earnings(earnings: Earnings | None) -> EarningsStatus | None:
    if earnings is None:
        return None
    return EarningsStatus(
        earnings.today_micro_credits,
        earnings.balance_micro_credits,
        earnings.pending_micro_credits,
        earnings.held_micro_credits,
    )
