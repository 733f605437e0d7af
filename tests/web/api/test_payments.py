"""Buying credits by Stripe Checkout, against a stand-in for its API: paid once, whatever is heard, in whatever order, from whomever."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from fsn.coord.config import PaymentsConfig
from fsn.coord.database.pool import Pool
from fsn.coord.payments import stripe_checkout
from fsn.core.errors import ConfigError
from tests.coord.network import CONFIG, open_network
from tests.coord.payments.stripe import WEBHOOK_SECRET, FakeStripe, open_fake_stripe
from tests.web.api.conftest import Api, open_api

BUY, HISTORY, HOOK = "/api/v1/auth/credits/purchase", "/api/v1/auth/credits/history", "/api/v1/payments/stripe/webhook"
COMPLETED, EXPIRED = "checkout.session.completed", "checkout.session.expired"
SUCCEEDED, FAILED = "checkout.session.async_payment_succeeded", "checkout.session.async_payment_failed"


@attrs.frozen
class Shop:
    """A coordinator that sells by Stripe, and a user."""

    api: Api
    stripe: FakeStripe
    user: httpx.AsyncClient

    async def buy(self, usd: float = 10, key: str = "1") -> dict[str, Any]:
        """Begin a purchase, which is not paid."""
        answer = await self.user.post(BUY, json={"amount_usd": usd}, headers={"Idempotency-Key": key})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def tell(self, kind: str, session: str, **other: Any) -> int:
        """Have the stand-in call the webhook; the answer's status."""
        body, signature = self.stripe.event(kind, session, **other)
        return (await self.api.http.post(HOOK, content=body, headers={"Stripe-Signature": signature})).status_code

    async def stands(self, purchase: dict[str, str]) -> tuple[str, str]:
        """Status of a purchase, and the user's balance."""
        found = (await self.user.get(f"/api/v1/auth/credits/purchases/{purchase['id']}")).json()
        return found["status"], found["balance"]


@pytest.fixture
async def shop(pool: Pool, tmp_path: Path) -> AsyncIterator[Shop]:
    """No nodes are needed to buy."""
    with trio.fail_after(60):
        async with open_fake_stripe() as stripe:
            config = attrs.evolve(CONFIG, payments=stripe.settings(tmp_path))
            async with open_network(pool, config, nodes=0) as network, open_api(network) as api:
                yield Shop(api, stripe, await api.user())


async def test_a_purchase_is_paid_at_stripe_and_booked_once(shop: Shop) -> None:
    """Pending with a page to pay on; the event books it, and said again it is nothing new."""
    begun = await shop.buy()
    assert (begun["status"], begun["balance"], begun["provider"]) == ("pending", "100.00", "stripe")
    assert begun["checkout_url"] == "https://checkout.example.com/cs_test_1"
    assert (await shop.buy())["id"] == begun["id"]
    assert shop.stripe.requests == 1, "the page is known: nobody is asked again"
    assert await shop.stands(begun) == ("pending", "100.00")
    shop.stripe.pays("cs_test_1")
    assert [await shop.tell(COMPLETED, "cs_test_1") for _ in range(3)] == [204] * 3
    assert await shop.tell(EXPIRED, "cs_test_1", payment_status="unpaid") == 204  # later than it: paid stays paid
    assert await shop.stands(begun) == ("paid", "10100.00")
    after = await shop.buy()
    assert (after["id"], after["status"], after["checkout_url"]) == (begun["id"], "paid", None)
    kinds = [each["kind"] for each in (await shop.user.get(HISTORY)).json()["entries"]]
    assert kinds == ["purchase", "grant"]


async def test_events_at_once_book_once(shop: Shop) -> None:
    """Stripe may call twice at the same moment, and the user ask as well."""
    begun = await shop.buy(25)
    shop.stripe.pays("cs_test_1")
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(shop.tell, COMPLETED, "cs_test_1")
            nursery.start_soon(shop.stands, begun)
    assert await shop.stands(begun) == ("paid", "25100.00")


async def test_a_way_to_pay_that_takes_days(shop: Shop) -> None:
    """Completed without being paid is pending; then it succeeds, or fails."""
    one, two = await shop.buy(1, "1"), await shop.buy(2, "2")
    for session in ("cs_test_1", "cs_test_2"):
        assert await shop.tell(COMPLETED, session) == 204
    assert await shop.stands(one) == ("pending", "100.00")
    assert await shop.tell(FAILED, "cs_test_2") == 204
    assert await shop.tell(SUCCEEDED, "cs_test_1") == 204
    assert [await shop.stands(each) for each in (one, two)] == [("paid", "1100.00"), ("failed", "1100.00")]


async def test_an_expired_session_is_failed_unless_money_came_after_all(shop: Shop) -> None:
    """What was paid is booked, whatever was said before."""
    begun = await shop.buy()
    assert await shop.tell(EXPIRED, "cs_test_1", status="expired") == 204
    assert await shop.stands(begun) == ("failed", "100.00")
    again = await shop.buy()
    assert (again["status"], again["checkout_url"]) == ("failed", None)
    shop.stripe.pays("cs_test_1")
    assert await shop.tell(COMPLETED, "cs_test_1") == 204
    assert await shop.stands(begun) == ("paid", "10100.00")


async def test_an_earlier_session_that_expires_fails_nothing(shop: Shop) -> None:
    """The provider may have made a second one for a purchase whose first answer was lost: that is the one to be paid."""
    begun = await shop.buy()
    await shop.api.network.services.db.execute("update credit_purchases set session = 'cs_test_later'")
    assert await shop.tell(EXPIRED, "cs_test_1", status="expired") == 204
    found = await shop.api.network.services.db.fetch_one(
        "select failed_at is null from credit_purchases where id = %s", [begun["id"]]
    )
    assert found == (True,)


async def test_a_lost_call_is_made_good_when_the_user_asks(shop: Shop) -> None:
    """The webhook never came: of a pending purchase Stripe is asked; when it cannot be, the purchase stays pending."""
    begun = await shop.buy()
    shop.stripe.pays("cs_test_1")
    shop.stripe.failing = 3
    assert await shop.stands(begun) == ("pending", "100.00")
    assert await shop.stands(begun) == ("paid", "10100.00")
    other = await shop.api.user("bob@example.com")
    assert (await other.get(f"/api/v1/auth/credits/purchases/{begun['id']}")).status_code == 404


async def test_only_stripe_is_believed(shop: Shop) -> None:
    """No signature, another's, one of yesterday, a body that was changed: refused, nothing booked."""
    begun = await shop.buy()
    body, signature = shop.stripe.event(COMPLETED, "cs_test_1", payment_status="paid")
    forged = shop.stripe.event(COMPLETED, "cs_test_1", payment_status="paid", secret="whsec_other")[1]
    old = shop.stripe.event(COMPLETED, "cs_test_1", payment_status="paid", at=int(time.time()) - 3600)[1]
    cases = [
        (body, None),
        (body, forged),
        (body, old),
        (body + b" ", signature),
        (b"\xff", signature),
        (body, "nonsense"),
    ]
    for content, header in cases:
        headers = {"Stripe-Signature": header} if header else {}
        answer = await shop.api.http.post(HOOK, content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_signature"), header
        assert WEBHOOK_SECRET not in answer.text
    assert await shop.stands(begun) == ("pending", "100.00")


async def test_what_does_not_fit_is_not_booked(shop: Shop) -> None:
    """Another amount or currency is refused, so that Stripe tells its operator; other programs' sessions and events are of no concern."""
    begun = await shop.buy()
    shop.stripe.sessions["cs_test_1"]["payment_status"] = "paid"
    assert await shop.tell(COMPLETED, "cs_test_1", amount_total=1) == 409
    assert await shop.tell(COMPLETED, "cs_test_1", currency="jpy") == 409
    assert await shop.tell(COMPLETED, "cs_test_1", id="cs_test_9") == 409
    assert await shop.tell(COMPLETED, "cs_test_1", client_reference_id="order 77") == 204
    assert await shop.tell(COMPLETED, "cs_test_1", client_reference_id="00000000-0000-4000-8000-000000000000") == 204
    assert await shop.tell("invoice.paid", "cs_test_1") == 204
    assert (await shop.user.get("/api/v1/balance")).json()["balance"] == "100.00"
    assert await shop.stands(begun) == ("paid", "10100.00")  # asked itself, Stripe says what is true


async def test_stripe_is_away(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad moment is tried again; a bad day, or silence, is 503, and the same key goes on later with one session."""
    shop.stripe.failing = 2
    first = await shop.buy()
    assert len(shop.stripe.sessions) == 1
    shop.stripe.failing = 3
    key = {"Idempotency-Key": "2"}
    assert (await shop.user.post(BUY, json={"amount_usd": 5}, headers=key)).status_code == 503
    shop.stripe.hanging = True
    monkeypatch.setattr(stripe_checkout, "PATIENCE_SECONDS", 0.2)
    assert (await shop.user.post(BUY, json={"amount_usd": 5}, headers=key)).status_code == 503
    monkeypatch.undo()
    shop.stripe.hanging = False
    later = await shop.buy(5, "2")
    assert (later["status"], first["id"] != later["id"]) == ("pending", True)
    assert len(shop.stripe.sessions) == 2
    assert (await shop.user.get("/api/v1/balance")).json()["balance"] == "100.00"


async def test_too_little_for_stripe(shop: Shop) -> None:
    """It takes half a dollar or more; what it does not take leaves nothing behind."""
    assert (await shop.user.post(BUY, json={"amount_usd": 0.49})).status_code == 400
    assert await shop.api.network.services.db.fetch_one("select count(*) from credit_purchases") == (0,)


async def test_without_keys_nobody_calls(api: Api) -> None:
    """The mock has no webhook."""
    answer = await api.http.post(HOOK, content=b"{}", headers={"Stripe-Signature": "t=1,v1=2"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_wrong_key_is_the_operators_matter(pool: Pool, tmp_path: Path) -> None:
    """Users hear that the provider cannot be asked, and nothing of the key."""
    async with open_fake_stripe() as stripe:
        config = attrs.evolve(CONFIG, payments=stripe.settings(tmp_path))
        (tmp_path / "stripe.key").write_text("sk_test_wrong")
        async with open_network(pool, config, nodes=0) as network, open_api(network) as api:
            answer = await (await api.user()).post(BUY, json={"amount_usd": 5})
    assert answer.status_code == 503
    assert "sk_test" not in answer.text


async def test_settings_that_are_not_whole(pool: Pool, tmp_path: Path) -> None:
    """One without the others, an address that is none, a file that is not there or empty."""
    with pytest.raises(ConfigError, match="not set: stripe_webhook_secret_file, return_url"):
        PaymentsConfig(stripe_key_file=tmp_path / "key")
    with pytest.raises(ConfigError, match="return_url wants an address"):
        PaymentsConfig(return_url="files.example.org")
    payments = FakeStripe().settings(tmp_path)
    for spoil in (Path.unlink, lambda file: file.write_text("\n")):
        spoil(tmp_path / "stripe.webhook")
        with pytest.raises(ConfigError, match=r"payments\.stripe_webhook_secret_file"):
            async with open_network(pool, attrs.evolve(CONFIG, payments=payments), nodes=0):
                pass
