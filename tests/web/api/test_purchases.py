"""Buying credits, once for each key; and the history of an account."""

from tests.web.api.conftest import Api

BUY, HISTORY = "/api/v1/auth/credits/purchase", "/api/v1/auth/credits/history"


async def test_credits_are_bought_once_for_each_key(api: Api) -> None:
    """A thousand a dollar; the same key with another amount is a mistake."""
    user, key = await api.user(), {"Idempotency-Key": "order 1"}
    first = await user.post(BUY, json={"amount_usd": 10}, headers=key)
    assert first.status_code == 201
    assert (first.json()["credits"], first.json()["balance"], first.json()["amount_usd"]) == (
        "10000.00",
        "10100.00",
        "10.00",
    )
    again = (await user.post(BUY, json={"amount_usd": 10.0}, headers=key)).json()
    assert (again["id"], again["balance"]) == (first.json()["id"], "10100.00")
    other = await user.post(BUY, json={"amount_usd": 20}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert (await user.post(BUY, json={"amount_usd": 0.01})).json()["balance"] == "10110.00"
    another = await api.user("bob@example.com")
    assert (await another.post(BUY, json={"amount_usd": 20}, headers=key)).json()["balance"] == "20100.00"


async def test_what_cannot_be_paid_is_refused(api: Api) -> None:
    """With what was wanted; nothing is booked."""
    user = await api.user()
    for amount in (0, -5, 0.001, 10.005, 1e9):
        assert (await user.post(BUY, json={"amount_usd": amount})).status_code == 400
    assert (await user.post(BUY, json={"amount_usd": 1}, headers={"Idempotency-Key": "x" * 201})).status_code == 400
    assert [each["kind"] for each in (await user.get(HISTORY)).json()["entries"]] == ["grant"]


async def test_the_history_is_paged_and_adds_up(api: Api) -> None:
    """The newest first; what it adds up to is the balance."""
    user = await api.user()
    for cents in range(1, 5):
        await user.post(BUY, json={"amount_usd": cents / 100})
    found: list[dict[str, object]] = []
    page = (await user.get(HISTORY, params={"limit": "2"})).json()
    while True:
        found += page["entries"]
        if page["next_cursor"] is None:
            break
        page = (await user.get(HISTORY, params={"limit": "2", "cursor": page["next_cursor"]})).json()
    assert [each["kind"] for each in found] == ["purchase"] * 4 + ["grant"]
    assert [each["amount"] for each in found[:2]] == ["40.00", "30.00"]
    assert sum(int(str(each["amount_micro_credits"])) for each in found) == 200_000_000
    assert (await user.get("/api/v1/balance")).json()["balance"] == "200.00"
