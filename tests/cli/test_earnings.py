"""`fsn node earnings`: what a node was paid, and what `verify` says when a line is wrong."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import msgspec
import pytest
import trio

from fsn.coord.database.statements import SignedStatement
from fsn.core.economics import FIRST_HASH, DayInputs, daily_statement, statement_hash
from fsn.core.ids import NodeId
from fsn.node.earnings import MOST_PAGES
from fsn.web.api.earnings import statement_view
from tests.cli.test_node import init, run
from tests.node.fake_coordinator import FakeCoordinator, open_fake_coordinator

GB, DAY = 10**9, 86_400
FIRST = 20_783
"""2026-11-26."""


@attrs.frozen
class Node:
    """An initialised node, and the statements that its coordinator shows."""

    folder: Path
    coordinator: FakeCoordinator
    shown: list[dict[str, Any]]

    async def earnings(self, *arguments: str) -> tuple[int, str]:
        """`fsn node earnings ...`: exit code and output."""
        result = await run("earnings", *arguments, "--data-dir", str(self.folder))
        return result.exit_code, result.output


def statements(coordinator: FakeCoordinator, node: NodeId, count: int) -> list[dict[str, Any]]:
    """Days of a young node with 90 GB, as HTTP shows them; on the second one of a hundred challenges was missed."""
    found, previous = [], FIRST_HASH
    for number in range(count):
        inputs = DayInputs(
            node=node, day=FIRST + number, age_days=40, byte_seconds=90 * GB * DAY, present=DAY, counted=DAY, asked=100,
            missed=int(number == 1), failed=0, rounds=6, unproved=0, tariff=1, reward=1_000_000,
        )  # fmt: skip
        statement = daily_statement(inputs)
        digest = statement_hash(statement, previous)
        identity = coordinator.identity
        found.append(SignedStatement(statement, previous, digest, identity.peer, identity.sign(digest)))
        previous = digest
    return [msgspec.to_builtins(statement_view(each)) for each in found]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """Paid for three days, shown two to a page."""
    with trio.fail_after(30):
        async with open_fake_coordinator() as coordinator:
            assert (await init(tmp_path, coordinator.url)).exit_code == 0
            (name,) = coordinator.nodes.values()
            shown = statements(coordinator, name, 3)

            def page(cursor: str | None) -> dict[str, Any]:
                first = int(cursor or 0)
                rest = len(shown) > first + 2
                return {"statements": shown[first : first + 2], "next_cursor": str(first + 2) if rest else None}

            coordinator.statement_pages = page
            yield Node(tmp_path, coordinator, shown)


async def test_each_day_says_what_was_taken_off(node: Node) -> None:
    """With its inputs and rules; all pages, or the last days; the node need not run."""
    code, shown = await node.earnings()
    assert code == 0, shown
    assert shown.splitlines() == [
        "2026-11-26  3.000000 credits, 0.75 held back: 90.0 GB for a day, uptime 100.00%, 100 challenges, 0 missed, 0 failed"
        " (storage +3.000000)",
        "2026-11-27  2.700000 credits, 0.68 held back: 90.0 GB for a day, uptime 100.00%, 100 challenges, 1 missed, 0 failed"
        " (storage +3.000000, proofs -0.300000)",
        "2026-11-28  3.000000 credits, 0.75 held back: 90.0 GB for a day, uptime 100.00%, 100 challenges, 0 missed, 0 failed"
        " (storage +3.000000)",
        "earned in all: 8.70 credits",
    ]
    assert len((await node.earnings("--days", "1"))[1].splitlines()) == 2
    given = json.loads((await node.earnings("--json"))[1])
    assert [each["earned"] for each in given["statements"]] == [3_000_000, 2_700_000, 3_000_000]
    assert given["told"] is None


async def test_what_adds_up_is_said_to(node: Node) -> None:
    """Every statement, from its inputs."""
    assert await node.earnings("verify") == (0, "3 statements, 8.70 credits: all as computed, in one chain, signed\n")
    assert json.loads((await node.earnings("verify", "--json"))[1]) == {"statements": 3, "difference": None}


async def test_the_first_line_that_differs_is_named(node: Node) -> None:
    """A coordinator that takes more off than the rules do is found out, and the exit code says so."""
    node.shown[1]["lines"][3]["micro_credits"] -= 1
    code, said = await node.earnings("verify")
    assert code != 0
    assert "day 20784 (2026-11-27): line 'proofs' says -300001, computed is 'proofs' -300000" in said


async def test_before_the_first_day(node: Node) -> None:
    """It is said when a day is paid."""
    node.shown.clear()
    code, said = await node.earnings()
    assert code == 0
    assert "no day was paid yet" in said
    assert "earned in all: 0.00 credits" in said
    assert (await node.earnings("verify"))[0] == 0


async def test_a_list_without_an_end(node: Node) -> None:
    """A coordinator that never says that it is the last page is given up."""
    one = node.shown[:1]
    node.shown.extend(one * (2 * MOST_PAGES))
    code, said = await node.earnings()
    assert code != 0
    assert "never end" in said


async def test_a_liar_draws_nothing_on_the_terminal(node: Node) -> None:
    """Whatever a coordinator says of a payout is shown without control characters."""
    node.coordinator.payouts = [
        {
            "id": str(uuid4()),
            "micro_credits": 1,
            "status": "\x1b[2J",
            "destination": "a",
            "at": "\x1b[2J",
            "note": "\x07",
        }
    ]
    code, shown = await node.earnings("payouts")
    assert code == 0
    assert shown.rstrip("\n").isprintable()


async def test_a_payout_is_asked_for_once(node: Node) -> None:
    """With the id that was printed the same request again is the same; both are listed, the newest first."""
    assert (await node.earnings("payouts"))[1] == "no payout was asked for yet\n"
    code, said = await node.earnings("payout", "12.50", "--to", "an account\x1b[2J")
    assert code == 0, said
    first, second = said.splitlines()
    name = first.split()[-1]
    assert first == f"asking for 12.50 credits; should the answer be lost: --id {name}"
    assert second == f"2030-01-01T00:00:00Z  12.50 credits  pending  to an account\ufffd[2J  {name}"
    await node.earnings("payout", "1", "--to", "another")
    again = json.loads((await node.earnings("payout", "12.50", "--to", "an account", "--id", name, "--json"))[1])
    assert [(each["id"], each["micro_credits"]) for each in again["payouts"]] == [(name, 12_500_000)]
    listed = json.loads((await node.earnings("payouts", "--json"))[1])["payouts"]
    assert [each["micro_credits"] for each in listed] == [1_000_000, 12_500_000]


@pytest.mark.parametrize(
    ("amount", "said"),
    [("0", "more than 0"), ("-1", "No such option"), ("much", "credits"), ("1000", "not bought so much")],
)
async def test_a_payout_that_cannot_be(node: Node, amount: str, said: str) -> None:
    """Says why; nothing is on record."""
    code, shown = await node.earnings("payout", amount, "--to", "an account")
    assert code != 0
    assert said in shown
    assert (await node.earnings("payouts"))[1] == "no payout was asked for yet\n"
