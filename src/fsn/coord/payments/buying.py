"""Buying credits: a purchase is written down, the provider has it paid, and its credits are booked once, however often that is told."""

from typing import Final
from uuid import UUID, uuid4

import attrs
import structlog

from fsn.coord.database.pool import Pool
from fsn.coord.database.purchases import Purchase, begin, fail, find, has_checkout, settle
from fsn.coord.payments.provider import PaymentProvider, Told
from fsn.core.errors import Conflict, NotFound, Unavailable
from fsn.core.ids import UserId
from fsn.core.units import MicroCredits
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell

__all__ = ["MICRO_CREDITS_A_CENT", "Buying"]

log = structlog.get_logger(__name__)

MICRO_CREDITS_A_CENT: Final = 10_000_000
"""1,000 credits a US dollar."""


@attrs.frozen
class Buying:
    """Purchases of credits."""

    db: Pool
    provider: PaymentProvider
    clock: Clock
    charges_due: Bell
    """Rung when credits came: an account may be able to pay again."""

    async def buy(self, user: UserId, amount_usd_cents: int, key: str) -> Purchase:
        """Begin a purchase, or go on with the one that the same `key` of the same user began: paid, or pending with a page to pay on.

        Raises Conflict (`idempotency_key_reused`) when that one was of another amount; Invalid for an amount that the provider does
        not take; Unavailable when it cannot be asked now: the same key goes on.
        """
        self.provider.check_amount(amount_usd_cents)
        wanted = Purchase(
            uuid4(), user, self.provider.name, f"{user}:{key}", amount_usd_cents,
            MicroCredits(amount_usd_cents * MICRO_CREDITS_A_CENT), self.clock(),
        )  # fmt: skip
        found = await begin(self.db, wanted)
        if found.amount_usd_cents != amount_usd_cents:
            raise Conflict(
                f"this Idempotency-Key was used for a purchase of {found.amount_usd_cents} cents; asked for are {amount_usd_cents}",
                code="idempotency_key_reused",
            )
        if found.status != "pending" or found.checkout_url is not None:
            return found
        checkout = await self.provider.begin(found.id, amount_usd_cents, found.email)
        if checkout.outcome == "paid":
            return await self._settle(found)
        await has_checkout(self.db, found.id, checkout.session, checkout.url)
        return attrs.evolve(found, session=checkout.session, checkout_url=checkout.url)

    async def look(self, user: UserId, purchase: UUID) -> Purchase:
        """How one of a user's purchases stands; of one that is pending the provider is asked, whose call may have been lost.

        Raises NotFound.
        """
        found = await find(self.db, purchase)
        if found is None or found.user != user:
            raise NotFound("you have no such purchase")
        if found.status == "pending" and found.session is not None and found.provider == self.provider.name:
            try:
                told = await self.provider.look(found.session)
            except Unavailable as error:
                log.info("purchase_not_looked_up", purchase=str(purchase), reason=error.message)
                return found
            if told is not None:
                return await self._learn(found, told)
        return found

    async def hear(self, body: bytes, signature: str | None) -> None:
        """Take what the provider calls us to say, in any order and any number of times.

        Raises Invalid (`bad_signature`), NotFound from a provider that never calls, Conflict when it does not fit what was asked for:
        the provider tells its operator then.
        """
        told = self.provider.read_event(body, signature)
        if told is None:
            return
        found = await find(self.db, told.purchase)
        if found is None or found.provider != self.provider.name:
            log.info(
                "payment_of_others", session=told.session
            )  # of another network with the same account at the provider
            return
        await self._learn(found, told)

    async def _learn(self, found: Purchase, told: Told) -> Purchase:
        if told.outcome == "failed" and found.session in (None, told.session):
            return await fail(self.db, found.id, self.clock()) or found
        if told.outcome != "paid":  # or it is of an earlier session than the one that the user may still pay on
            return found
        asked, paid = (found.id, found.amount_usd_cents), (told.purchase, told.amount_usd_cents)
        if asked != paid or found.session not in (None, told.session):
            log.error("payment_does_not_fit", purchase=str(found.id), session=told.session, cents=told.amount_usd_cents)
            raise Conflict(
                f"purchase {found.id} is of {found.amount_usd_cents} US cents; paid were {told.amount_usd_cents}"
            )
        return await self._settle(found)

    async def _settle(self, found: Purchase) -> Purchase:
        settled = await settle(self.db, found.id, self.clock())
        self.charges_due.ring()
        return settled
