"""Buying credits over HTTP, and what became of them."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID, uuid4

import msgspec

from fsn.coord.database.ledger import balance
from fsn.coord.database.purchases import HistoryEntry, Purchase, history
from fsn.coord.services import Services
from fsn.core.errors import Conflict, Invalid, NotFound, Unavailable
from fsn.core.units import MicroCredits, format_credits
from fsn.web.api.paging import Page, decode_cursor, encode_cursor
from fsn.web.auth import USER, asking_user
from fsn.web.operations import Coded, Operations, RequestModel
from fsn.web.quart_front import current_request

__all__ = ["declare_purchases"]

MOST_USD = 10_000.0
LONGEST_EVENT_BYTES = 256 * 1024
LONGEST_KEY = 200


class PurchaseBody(RequestModel, frozen=True, kw_only=True):
    """US dollars, with two decimals at most."""

    amount_usd: Annotated[float, msgspec.Meta(gt=0, le=MOST_USD)]


class PurchaseView(msgspec.Struct):
    """What is bought, and what there is now. `status` is pending (while `checkout_url` is the page to pay on), paid or failed."""

    id: UUID
    status: Literal["pending", "paid", "failed"]
    checkout_url: str | None
    amount_usd: str
    credits: str
    balance: str
    provider: str
    created_at: datetime


class EntryView(msgspec.Struct):
    """One booking: `amount` with two decimals and exactly, negative when credits left the account; `kind` and `ref` say for what."""

    id: int
    at: datetime
    kind: str
    ref: str
    amount: str
    amount_micro_credits: int


class HistoryView(msgspec.Struct):
    """A page of bookings, the newest first; `next_cursor` is null on the last one."""

    entries: list[EntryView]
    next_cursor: str | None


def declare_purchases(api: Operations, services: Services) -> None:
    """Add the operations."""

    buying = services.buying

    async def view(found: Purchase) -> PurchaseView:
        is_open = found.status == "pending"
        return PurchaseView(
            found.id,
            found.status,
            found.checkout_url if is_open else None,
            f"{found.amount_usd_cents / 100:.2f}",
            format_credits(found.micro_credits),
            format_credits(await balance(services.db, "user", found.user)),
            found.provider,
            found.created_at,
        )

    @api.operation(
        "POST", "/api/v1/auth/credits/purchase", summary="Buy credits", tags=("credits",), body=PurchaseBody,
        headers={"Idempotency-Key": "The same key again is the same purchase: nothing more is bought."},
        ok=(201, PurchaseView), errors=(Invalid, NotFound, Coded(Conflict, ("idempotency_key_reused",)), Unavailable),
        security=(USER,), leads_to={"id": ("get_purchase",)},
    )  # fmt: skip
    async def purchase_credits(body: PurchaseBody) -> PurchaseView:
        """1,000 credits a dollar. Where Stripe is set up, the answer is pending, with the page to pay on (0.50 dollars or more); else the
        provider is a mock: nobody is charged, the credits are there at once."""
        return await view(await buying.buy(asking_user(), _cents(body.amount_usd), _key()))

    @api.operation(
        "GET", "/api/v1/auth/credits/purchases/<uuid:purchase_id>", summary="How a purchase stands", tags=("credits",),
        ok=(200, PurchaseView), errors=(NotFound, Conflict, Unavailable), security=(USER,),
    )  # fmt: skip
    async def get_purchase(purchase_id: UUID) -> PurchaseView:
        """After the user came back from the page: of a purchase that is pending the provider is asked."""
        return await view(await buying.look(asking_user(), purchase_id))

    @api.operation(
        "POST", "/api/v1/payments/stripe/webhook", summary="For Stripe to call", tags=("credits",), raw="application/json",
        headers={"Stripe-Signature": "Stripe's, over the body."}, ok=(204, None),
        errors=(Coded(Invalid, ("bad_signature",)), NotFound, Conflict, Unavailable), max_body_bytes=LONGEST_EVENT_BYTES,
    )  # fmt: skip
    async def hear_payment() -> None:
        """Events of Checkout Sessions; others are taken and dropped. 404 where Stripe is not set up."""
        request = current_request()
        await buying.hear(await request.body, request.headers.get("Stripe-Signature"))

    @api.operation(
        "GET", "/api/v1/auth/credits/history", summary="What happened on the account", tags=("credits",), query=Page,
        ok=(200, HistoryView), errors=(Unavailable,), security=(USER,),
    )  # fmt: skip
    async def get_history(query: Page) -> HistoryView:
        """Grants, purchases, what storing cost."""
        found = await history(services.db, asking_user(), decode_cursor(query.cursor, int), query.limit)
        is_full = len(found) == query.limit
        return HistoryView([_entry(each) for each in found], encode_cursor(found[-1].tx) if is_full else None)


def _cents(amount_usd: float) -> int:
    cents = round(amount_usd * 100)
    if cents < 1 or abs(cents - amount_usd * 100) > 1e-6:
        raise Invalid(f"US dollars with two decimals at most are wanted, 0.01 or more; got {amount_usd!r}")
    return cents


def _key() -> str:
    """The caller's, or one that comes once."""
    key = current_request().headers.get("Idempotency-Key")
    if key is None:
        return uuid4().hex
    if not key.isprintable() or not 1 <= len(key) <= LONGEST_KEY:
        raise Invalid(f"an Idempotency-Key has 1 to {LONGEST_KEY} printable characters; got {key[:60]!a}")
    return key


def _entry(found: HistoryEntry) -> EntryView:
    return EntryView(
        found.tx, found.at, found.kind, found.ref, format_credits(MicroCredits(found.amount)), found.amount
    )
