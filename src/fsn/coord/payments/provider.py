"""What a payment provider does: it takes a user's dollars and says so. `Mock` takes none and says so at once."""

from typing import Literal, Protocol
from uuid import UUID

import attrs

from fsn.core.errors import NotFound

__all__ = ["Checkout", "Mock", "Outcome", "PaymentProvider", "Told"]

Outcome = Literal["pending", "paid", "failed"]


@attrs.frozen
class Checkout:
    """What a provider made of the wish to pay."""

    outcome: Outcome
    session: str | None = None
    """The provider's name for it, unique there; None from one that has no sessions."""
    url: str | None = None
    """Where the user pays, while it is pending."""


@attrs.frozen
class Told:
    """What a provider says of a purchase."""

    purchase: UUID
    session: str
    outcome: Outcome
    amount_usd_cents: int | None
    """What was, or is to be, paid; None when it was in another currency."""


class PaymentProvider(Protocol):
    """Takes dollars."""

    @property
    def name(self) -> str:
        """As it is kept with each purchase."""

    def check_amount(self, amount_usd_cents: int) -> None:
        """Raises Invalid for an amount that it does not take."""

    async def begin(self, purchase: UUID, amount_usd_cents: int, email: str) -> Checkout:
        """Have a user pay; the same purchase again is the same session, for a day at least. Raises Unavailable when it cannot be asked."""

    async def look(self, session: str) -> Told | None:
        """How a session stands; None when it is none of ours. Raises Unavailable when it cannot be asked."""

    def read_event(self, body: bytes, signature: str | None) -> Told | None:
        """What it calls us to say, None when that is of no concern.

        Raises Invalid (`bad_signature`) unless it is from the provider and young, NotFound from one that never calls.
        """


class Mock:
    """Nobody is charged; every purchase is paid at once."""

    name = "mock"

    def check_amount(self, amount_usd_cents: int) -> None:
        """Any will do."""

    async def begin(self, purchase: UUID, amount_usd_cents: int, email: str) -> Checkout:
        """Paid."""
        return Checkout("paid")

    async def look(self, session: str) -> Told | None:
        """There are no sessions."""
        return None

    def read_event(self, body: bytes, signature: str | None) -> Told | None:
        """Raises NotFound: it never calls."""
        raise NotFound("no payment provider is set up here")
