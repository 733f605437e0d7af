"""The coordinator's settings, section by section, each beside what it is for."""

from datetime import timedelta
from pathlib import Path

import attrs
from attrs.validators import ge, gt, in_, le, optional

from fsn.core.errors import ConfigError
from fsn.core.proofs import DEFAULT_DIFFICULTY, MAX_DIFFICULTY
from fsn.core.units import MicroCredits, parse_credits
from fsn.runtime.config import ByteSize

__all__ = [
    "AccountsConfig",
    "AuditConfig",
    "CreditsConfig",
    "DownloadConfig",
    "MembershipConfig",
    "PaymentsConfig",
    "PlacementConfig",
    "ReconciliationConfig",
    "RepairConfig",
    "UploadConfig",
]


def _credits(_: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if parse_credits(value) < 0:
        raise ConfigError(f"{attribute.name} must not be negative, found {value}")


@attrs.frozen
class AccountsConfig:
    """Users and their tokens."""

    token_hours: float = attrs.field(default=24.0, validator=gt(0))
    """How long a login lasts."""
    bcrypt_cost: int = attrs.field(default=12, validator=[ge(4), le(18)])
    """log2 of bcrypt's rounds: 12 takes about a quarter of a second."""


@attrs.frozen
class CreditsConfig:
    """What users have and pay."""

    welcome_grant: str = attrs.field(default="100.00", validator=_credits)
    """Credits that a new user starts with, as text: "100.00"."""
    price_per_gb_month: str | None = attrs.field(default=None, validator=optional(_credits))
    """Credits for storing 10^9 bytes in one replica for 30 days, as text, whatever the tariff says; "0": storing is free. Not given: the
    tariff's (`fsn coordinator tariff`)."""
    grace_days: float = attrs.field(default=14.0, validator=ge(0))
    """The files of an account whose balance does not cover a day are kept so long; nothing new is taken from it."""

    @property
    def welcome_grant_micro(self) -> MicroCredits:
        """The welcome grant in micro-credits."""
        return parse_credits(self.welcome_grant)

    @property
    def price_micro(self) -> MicroCredits | None:
        """The price in micro-credits per GB, month and replica, if it is set."""
        return None if self.price_per_gb_month is None else parse_credits(self.price_per_gb_month)


def _check_url(_: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not value.startswith(("http://", "https://")) or value.partition("://")[2].startswith("/"):
        raise ConfigError(f"{attribute.name} wants an address like https://files.example.org/credits; found {value!r}")


@attrs.frozen(kw_only=True)
class PaymentsConfig:
    """Who takes users' dollars: Stripe Checkout when all three of its settings are given; else nobody, and each purchase counts as paid."""

    stripe_key_file: Path | None = None
    """File with Stripe's secret or restricted key (it may write Checkout Sessions): sk_..., rk_..."""
    stripe_webhook_secret_file: Path | None = None
    """File with the signing secret of the webhook endpoint /api/v1/payments/stripe/webhook: whsec_..."""
    return_url: str | None = attrs.field(default=None, validator=optional(_check_url))
    """Stripe sends users back here after paying, or not, with ?purchase=<its id> added."""
    stripe_api_url: str = attrs.field(default="https://api.stripe.com", validator=_check_url)
    """Where Stripe's API is."""

    def __attrs_post_init__(self) -> None:
        wanted = ("stripe_key_file", "stripe_webhook_secret_file", "return_url")
        missing = [name for name in wanted if getattr(self, name) is None]
        if missing and len(missing) < len(wanted):
            raise ConfigError(f"payments: {', '.join(wanted)} go together; not set: {', '.join(missing)}")


@attrs.frozen
class MembershipConfig:
    """Which nodes count as there."""

    silent_after_seconds: float = attrs.field(default=30.0, validator=gt(0))
    """A node that sent no heartbeat (one every 10 s) for so long gets no new chunks and shows as offline."""
    checkpoint_seconds: float = attrs.field(default=2.0, validator=gt(0))
    """How often a coordinator writes that it is there. After five times as long without, it was away itself, and no node is blamed for
    that time; after ten times as long, the others take it for dead."""
    settle_seconds: float = attrs.field(default=15.0, validator=ge(0))
    """How long nodes have to come back after a coordinator's start, or after it was away, before their absence counts."""
    suspect_seconds: float = attrs.field(default=30.0, validator=ge(0))
    """A node that failed a store gets no new chunks for so long, while there are others; one slow to give a chunk is asked last."""

    @property
    def stall_seconds(self) -> float:
        """After so long without a checkpoint this coordinator was away."""
        return 5 * self.checkpoint_seconds

    @property
    def dead_seconds(self) -> float:
        """After so long without a checkpoint the others take it for dead. Longer than the stall: whom they bury has noticed itself."""
        return 10 * self.checkpoint_seconds


@attrs.frozen
class PlacementConfig:
    """Where replicas go."""

    strategy: str = attrs.field(default="two_choices", validator=in_(["two_choices", "round_robin"]))
    """two_choices (weighted by free space and reputation, the less busy of two) or round_robin (each node in turn)."""
    chunks_per_set: int = attrs.field(default=64, validator=ge(1))
    """So many consecutive chunks of a file stay on one set of nodes: fewer sets are fewer ways to lose a file."""
    sample_nodes: int = attrs.field(default=100, validator=ge(10))
    """A choice looks at so many nodes drawn at random, and at all only when these are not enough (round_robin looks at all)."""
    new_node_weight: float = attrs.field(default=0.05, validator=[gt(0), le(1)])
    """A node that is not vetted yet is drawn as if it had this share of its free space."""


@attrs.frozen
class ReconciliationConfig:
    """Comparing what nodes hold with the catalogue."""

    every_hours: float = attrs.field(default=24.0, validator=gt(0))
    """Each node is compared so often, and a minute after it is back from an absence."""
    garbage_after_hours: float = attrs.field(default=48.0, validator=gt(0))
    """What lies on a node and stands nowhere is deleted when two rounds so far apart have found it; longer than any upload may last."""
    garbage_percent: float = attrs.field(default=1.0, validator=[ge(0), le(100)])
    """More than this share of a node's replicas is not deleted before an administrator allows it: an old backup may have been put back."""
    garbage_at_once: int = attrs.field(default=1000, validator=ge(0))
    """So many replicas are deleted though they are more than that share."""

    @property
    def every(self) -> timedelta:
        """Between two rounds of a node."""
        return timedelta(hours=self.every_hours)

    def garbage_bound(self, held: int) -> int:
        """How many replicas of a node with so many good ones may be deleted as garbage, unasked."""
        return max(self.garbage_at_once, int(held * self.garbage_percent / 100))


@attrs.frozen
class AuditConfig:
    """Proofs of storage. The same in all coordinators of one database."""

    enabled: bool = True
    """Without them nobody is caught, and nobody is vetted."""
    round_hours: float = attrs.field(default=4.0, validator=gt(0))
    """Every replica of a node with up to 4096 of them is asked for once in so long; of larger nodes a part of them."""
    difficulty: int = attrs.field(default=DEFAULT_DIFFICULTY, validator=[ge(1), le(MAX_DIFFICULTY)])
    """Leaves of 4 KiB that a proof visits, one after the other."""
    timeout_seconds: float = attrs.field(default=2.0, validator=gt(0))
    """A proof that takes longer, by the coordinator's clock, is asked for again; the fourth time it is missed."""
    in_flight_per_node: int = attrs.field(default=4, validator=ge(1))
    """Challenges of one node at a time: on a line of 1 Mbit/s four proofs take half a second."""
    in_flight: int = attrs.field(default=256, validator=ge(1))
    """Challenges of this coordinator at a time."""
    keep_days: float = attrs.field(default=400.0, validator=gt(0))
    """Sums and failures are kept so long."""

    @property
    def round(self) -> timedelta:
        """The length of a round; the first began with 1970."""
        return timedelta(hours=self.round_hours)


@attrs.frozen
class UploadConfig:
    """Files coming in."""

    replicas: int = attrs.field(default=3, validator=[ge(1), le(10)])
    """Replicas of a file whose upload does not say how many."""
    window_bytes: ByteSize = attrs.field(default=ByteSize(8 << 20), validator=gt(ByteSize(0)))
    """Plaintext in flight in one streamed upload; memory is about (1 + replicas) times as much."""
    total_window_bytes: ByteSize = attrs.field(default=ByteSize(32 << 20), validator=gt(ByteSize(0)))
    """Plaintext in flight in all uploads together; further uploads wait."""
    store_seconds: float = attrs.field(default=20.0, validator=gt(0))
    """A node that has not acknowledged a chunk after so long is replaced by another, whatever others take."""
    slow_seconds: float = attrs.field(default=2.0, validator=gt(0))
    """It is replaced, too, when it takes ten times as long as chunks took lately; not before so long."""
    chunk_seconds: float = attrs.field(default=60.0, validator=gt(0))
    """All replicas of a chunk must be durable after so long, replacements included; else too_few_copies."""
    expire_hours: float = attrs.field(default=48.0, validator=gt(0))
    """An upload that was not completed after so long is dropped."""
    max_file_bytes: ByteSize = attrs.field(default=ByteSize(10**12), validator=gt(ByteSize(0)))
    """The largest file taken."""


@attrs.frozen
class DownloadConfig:
    """Files going out."""

    window_bytes: ByteSize = attrs.field(default=ByteSize(4 << 20), validator=gt(ByteSize(0)))
    """Read ahead of one download's client at most; one that is slow gets four chunks."""
    retrieve_seconds: float = attrs.field(default=10.0, validator=gt(0))
    """A node that has not sent a chunk after so long is passed over for the next replica."""
    hedge_seconds: float = attrs.field(default=0.05, validator=gt(0))
    """A second node is asked as well when the first takes three times as long as chunks took lately; at least so long."""


@attrs.frozen
class RepairConfig:
    """Keeping every chunk at its wanted number of replicas. The same in all coordinators of one database."""

    grace_hours: float = attrs.field(default=24.0, validator=gt(0))
    """A silent node is waited for so long while two or more other replicas of a chunk can be read."""
    short_grace_minutes: float = attrs.field(default=30.0, validator=gt(0))
    """With fewer, so long."""
    tick_seconds: float = attrs.field(default=10.0, validator=gt(0))
    """How often silences and the queue are looked at."""
    chunks_at_once: int = attrs.field(default=32, validator=ge(1))
    """Chunks in repair at once, of this coordinator."""
    busy_chunks_at_once: int = attrs.field(default=4, validator=ge(1))
    """The same while users' files come in or go out: they go first."""
    window_bytes: ByteSize = attrs.field(default=ByteSize(8 << 20), validator=gt(ByteSize(0)))
    """Plaintext in flight in all repairs of this coordinator."""
    pause_share: float = attrs.field(default=0.2, validator=[gt(0), le(1)])
    """When more than this share of the nodes fall silent together, silence is no reason for repair: it is rather the network, or us."""
    pause_min_nodes: int = attrs.field(default=10, validator=ge(1))
    """... of at least so many nodes: fewer are too few to tell."""
    together_minutes: float = attrs.field(default=15.0, validator=gt(0))
    """Silences that began within so long of each other began together."""
    pause_hours: float = attrs.field(default=48.0, validator=gt(0))
    """A silence longer than this causes no pause any more: whoever looks after the network has been told."""
