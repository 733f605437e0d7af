"""A node's pay over HTTP: with its API key, and with all that each amount follows from."""

from datetime import date
from typing import Any
from uuid import uuid4

import pytest

from fsn.coord.database.statements import EPOCH
from fsn.coord.paying import Paying
from fsn.core.ids import NodeId
from fsn.node.earnings import first_difference, parse_statement
from fsn.runtime.clock import system_clock
from fsn.runtime.identity import Identity
from tests.coord.test_paying import add_day
from tests.web.api.conftest import Api

KEY = {"X-API-Key": "a-key"}


@pytest.fixture
async def node(api: Api) -> NodeId:
    """A node with a known key, whose first three days have been paid."""
    node, db = api.network.nodes[0].node, api.network.services.db
    assert node is not None
    await db.execute(
        "update nodes set api_key_hash = sha256('a-key'), registered_at = '2026-01-01' where id = %s", [node]
    )
    for number in range(3):
        await add_day(db, node, number)
    worker = Paying(db, Identity(bytes(32)), system_clock)
    while await worker.step() is None:
        pass
    return node


async def test_statements_come_page_by_page_and_can_be_computed_anew(api: Api, node: NodeId) -> None:
    """As `fsn node earnings verify` does it."""
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        params = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await api.http.get("/api/v1/statements", params=params, headers=KEY)).json()
        found += page["statements"]
        cursor = page["next_cursor"]
    assert [each["day"] for each in found] == [str(date(2026, 11, day)) for day in (1, 2, 3)]
    received = [parse_statement(each) for each in found]
    assert first_difference(received, node) is None
    assert [each.statement.earned for each in received] == [3_000_000] * 3


async def test_the_balance_and_a_payout(api: Api, node: NodeId) -> None:
    """What is asked for leaves the balance at once; the same request again is the same; more than there is, is refused."""
    balance = (await api.http.get("/api/v1/balance", headers=KEY)).json()
    last = parse_statement(balance.pop("last_statement"))
    assert (last.statement.inputs.day, last.statement.earned) == ((date(2026, 11, 3) - EPOCH).days, 3_000_000)
    assert balance == {
        "balance": "9.00", "balance_micro_credits": 9_000_000, "earned": "9.00", "pending": "0.00", "held": "0.00",
    }  # fmt: skip
    body = {"id": str(uuid4()), "micro_credits": 4_000_000, "destination": "an account"}
    unfunded = await api.http.post("/api/v1/payouts", json=body, headers=KEY)
    assert (unfunded.status_code, unfunded.json()["code"]) == (409, "not_funded")
    await (await api.user()).post("/api/v1/auth/credits/purchase", json={"amount_usd": 1})
    for _ in range(2):
        answer = await api.http.post("/api/v1/payouts", json=body, headers=KEY)
        assert answer.status_code == 201
        assert [(each["amount"], each["status"]) for each in answer.json()["payouts"]] == [("4.00", "pending")]
    too_much = await api.http.post(
        "/api/v1/payouts", json={**body, "id": str(uuid4()), "micro_credits": 5_000_001}, headers=KEY
    )
    assert too_much.status_code == 402
    assert too_much.json()["code"] == "insufficient_credits"
    balance = (await api.http.get("/api/v1/balance", headers=KEY)).json()
    assert (balance["balance"], balance["pending"], balance["earned"]) == ("5.00", "4.00", "9.00")


async def test_a_node_without_its_key_sees_nothing(api: Api, node: NodeId) -> None:
    """Nor does a user."""
    assert (await api.http.get("/api/v1/statements")).status_code == 401
    user = await api.user()
    assert (await user.get("/api/v1/statements")).status_code == 401
