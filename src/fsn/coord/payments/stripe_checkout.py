"""Stripe Checkout: users pay on a page of Stripe's, which then calls us. Its library is used here only.

What is called and read is in https://docs.stripe.com/api/checkout/sessions and https://docs.stripe.com/webhooks.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

import attrs
import msgspec
import structlog
import trio
from stripe import (
    HTTPXClient,
    InvalidRequestError,
    SignatureVerificationError,
    StripeClient,
    StripeError,
    WebhookSignature,
)

from fsn.coord.payments.provider import Checkout, Outcome, Told
from fsn.core.errors import Invalid, NotFound, Unavailable

__all__ = ["LEAST_CENTS", "StripeCheckout", "StripeKeys", "open_stripe"]

log = structlog.get_logger(__name__)

LEAST_CENTS: Final = 50
"""Stripe takes no less (https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts)."""
REQUEST_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 25.0
"""For all tries of one call together."""
RETRIES: Final = 2
EVENT_SECONDS: Final = 300
"""An older event is refused: it may be a repetition by somebody else. Stripe signs anew whenever it tries again."""

OUTCOMES: Final[dict[str, Outcome]] = {
    "checkout.session.completed": "pending",  # paid if it says so: some ways to pay take days
    "checkout.session.async_payment_succeeded": "paid",
    "checkout.session.async_payment_failed": "failed",
    "checkout.session.expired": "failed",
}
"""The events of concern."""


@attrs.frozen
class StripeKeys:
    """The secrets of an account at Stripe."""

    api_key: str = attrs.field(repr=False)
    webhook_secret: str = attrs.field(repr=False)


class _Session(msgspec.Struct):
    id: str
    client_reference_id: str | None = None
    amount_total: int | None = None
    currency: str | None = None
    payment_status: str = "unpaid"
    status: str | None = None


class _Data(msgspec.Struct):
    object: _Session


class _Kind(msgspec.Struct):
    type: str


class _Event(msgspec.Struct):
    data: _Data


@attrs.frozen
class StripeCheckout:
    """A provider that has users pay at Stripe."""

    client: StripeClient
    webhook_secret: str = attrs.field(repr=False)
    return_url: str
    name: str = "stripe"

    def check_amount(self, amount_usd_cents: int) -> None:
        """See `PaymentProvider`."""
        if amount_usd_cents < LEAST_CENTS:
            raise Invalid(f"{LEAST_CENTS / 100:.2f} US dollars or more are wanted; got {amount_usd_cents / 100:.2f}")

    async def begin(self, purchase: UUID, amount_usd_cents: int, email: str) -> Checkout:
        """Make a Checkout Session, which lives for 24 hours. See `PaymentProvider`."""
        back = self.return_url + ("&" if "?" in self.return_url else "?") + urlencode({"purchase": str(purchase)})
        with _asking("begin"):
            session = await self.client.v1.checkout.sessions.create_async(
                {
                    "mode": "payment",
                    "client_reference_id": str(purchase),
                    "customer_email": email,
                    "line_items": [
                        {
                            "quantity": 1,
                            "price_data": {
                                "currency": "usd",
                                "unit_amount": amount_usd_cents,
                                "product_data": {"name": f"{amount_usd_cents * 10} storage credits"},
                            },
                        }
                    ],
                    "success_url": back,
                    "cancel_url": back,
                },
                {"idempotency_key": f"purchase-{purchase}"},
            )
        if not session.url:
            raise Unavailable("Stripe made a session without a page to pay on")
        return Checkout("pending", session.id, session.url)

    async def look(self, session: str) -> Told | None:
        """Ask for one session. See `PaymentProvider`."""
        try:
            with _asking("look"):
                found = await self.client.v1.checkout.sessions.retrieve_async(session)
        except NotFound:
            return None
        return _told(
            _Session(
                found.id, found.client_reference_id, found.amount_total, found.currency, found.payment_status,
                found.status,
            ),
            "failed" if found.status == "expired" else "pending",
        )  # fmt: skip

    def read_event(self, body: bytes, signature: str | None) -> Told | None:
        """Check and read what Stripe posts to the webhook. See `PaymentProvider`."""
        try:
            WebhookSignature.verify_header(body, signature, self.webhook_secret, EVENT_SECONDS)
            kind = msgspec.json.decode(body, type=_Kind).type
            if kind not in OUTCOMES:
                return None
            session = msgspec.json.decode(body, type=_Event).data.object
        except (SignatureVerificationError, UnicodeDecodeError) as error:
            raise Invalid(f"an event signed by Stripe is wanted: {error}", code="bad_signature") from error
        except msgspec.MsgspecError as error:
            raise Invalid(f"an event of Stripe's was signed, and cannot be read: {error}") from error
        return _told(session, OUTCOMES[kind])


@asynccontextmanager
async def open_stripe(keys: StripeKeys, return_url: str, api_url: str) -> AsyncIterator[StripeCheckout]:
    """Stripe at `api_url`, for the length of the block; nothing is asked yet."""
    http = HTTPXClient(timeout=REQUEST_SECONDS)
    client = StripeClient(
        keys.api_key, http_client=http, base_addresses={"api": api_url.rstrip("/")}, max_network_retries=RETRIES
    )
    try:
        yield StripeCheckout(client, keys.webhook_secret, return_url)
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]


def _told(session: _Session, outcome: Outcome) -> Told | None:
    """What a session says; None when it was made by another program of the same account."""
    try:
        purchase = UUID(session.client_reference_id or "")
    except ValueError:
        return None
    if session.payment_status == "paid":
        outcome = "paid"
    return Told(purchase, session.id, outcome, session.amount_total if session.currency == "usd" else None)


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """A bound on a call of Stripe's API, and our words for its errors."""
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            yield
    except trio.TooSlowError as error:
        raise Unavailable(f"Stripe did not answer within {PATIENCE_SECONDS:g} s") from error
    except InvalidRequestError as error:
        if error.http_status == HTTPStatus.NOT_FOUND:
            raise NotFound(f"Stripe knows nothing of this: {error.user_message}") from error
        log.warning("payment_refused", call=what, reason=error.user_message, code=error.code)
        raise Invalid(f"Stripe does not take this: {error.user_message}") from error
    except StripeError as error:
        # A key that is wrong, or may not do this, comes here too: users cannot mend it, the operator reads the log.
        kind = type(error.__cause__ or error).__name__
        log.error("payment_provider_fails", call=what, kind=kind, status=error.http_status)
        raise Unavailable("the payment provider cannot be asked now") from error
