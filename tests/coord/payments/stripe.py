"""A stand-in for Stripe's HTTP API on a loopback port: as much of Checkout Sessions as our provider calls, and signed events."""

import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from quart import Response, request
from stripe import WebhookSignature

from fsn.coord.config import PaymentsConfig
from fsn.web.config import HttpConfig
from fsn.web.quart_front import FrontQuart
from fsn.web.server import serve_http

API_KEY, WEBHOOK_SECRET = "sk_test_1", "whsec_test_1"

Session = dict[str, Any]


@attrs.define(eq=False)
class FakeStripe:
    """What was asked of it, and what its users do."""

    port: int = 0
    sessions: dict[str, Session] = attrs.field(factory=dict)
    by_key: dict[str, tuple[dict[str, str], Session]] = attrs.field(factory=dict)
    failing: int = 0
    """So many requests are answered with 500."""
    hanging: bool = False
    requests: int = 0

    def settings(self, folder: Path) -> PaymentsConfig:
        """For a coordinator that uses it."""
        key, secret = folder / "stripe.key", folder / "stripe.webhook"
        key.write_text(API_KEY + "\n")
        secret.write_text(WEBHOOK_SECRET + "\n")
        return PaymentsConfig(
            stripe_key_file=key, stripe_webhook_secret_file=secret, return_url="https://files.example.org/credits",
            stripe_api_url=f"http://127.0.0.1:{self.port}",
        )  # fmt: skip

    def pays(self, session: str) -> None:
        """The user pays with a card."""
        self.sessions[session] |= {"payment_status": "paid", "status": "complete", "url": None}

    def event(
        self, kind: str, session: str, *, secret: str = WEBHOOK_SECRET, at: int | None = None, **other: Any
    ) -> tuple[bytes, str]:
        """An event about a session as it stands, and its signature."""
        body = json.dumps({"id": "evt_1", "type": kind, "data": {"object": {**self.sessions[session], **other}}})
        return body.encode(), WebhookSignature.generate_signature_header(body, secret, at)

    def app(self) -> FrontQuart:
        """The API."""
        app = FrontQuart("fake_stripe")

        @app.before_request
        async def check() -> Response | None:
            self.requests += 1
            if self.hanging:
                await trio.sleep_forever()
            if self.failing:
                self.failing -= 1
                return _error(500, "api_error", "a bad day")
            if request.headers.get("Authorization") != f"Bearer {API_KEY}":
                return _error(401, "invalid_request_error", "Invalid API Key provided")
            return None

        @app.post("/v1/checkout/sessions")
        async def create() -> Response:
            form, key = dict((await request.form).items()), request.headers["Idempotency-Key"]
            if key in self.by_key:
                asked, session = self.by_key[key]
                return _json(session) if asked == form else _error(400, "idempotency_error", "other parameters")
            if int(form["line_items[0][price_data][unit_amount]"]) > 99_999_999:
                return _error(400, "invalid_request_error", "amount too large")
            name = f"cs_test_{len(self.sessions) + 1}"
            session = {
                "id": name, "object": "checkout.session", "client_reference_id": form["client_reference_id"],
                "amount_total": int(form["line_items[0][price_data][unit_amount]"]),
                "currency": form["line_items[0][price_data][currency]"], "payment_status": "unpaid", "status": "open",
                "url": f"https://checkout.example.com/{name}",
            }  # fmt: skip
            self.sessions[name], self.by_key[key] = session, (form, session)
            return _json(session)

        @app.get("/v1/checkout/sessions/<name>")
        async def retrieve(name: str) -> Response:
            found = self.sessions.get(name)
            return _json(found) if found else _error(404, "invalid_request_error", "No such checkout.session")

        return app


@asynccontextmanager
async def open_fake_stripe() -> AsyncIterator[FakeStripe]:
    """It, served for the length of the block."""
    fake, stopping = FakeStripe(), trio.Event()
    async with trio.open_nursery() as nursery:
        config = HttpConfig(port=0, graceful_timeout_seconds=0.1)
        fake.port = await nursery.start(functools.partial(serve_http, fake.app(), config, shutdown=stopping))
        yield fake
        stopping.set()


def _json(found: Session, status: int = 200) -> Response:
    return Response(json.dumps(found), status, content_type="application/json")


def _error(status: int, kind: str, message: str) -> Response:
    return _json({"error": {"type": kind, "message": message}}, status)
