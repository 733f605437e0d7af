"""`fsn coordinator payouts`: an administrator says how each ended, once; what is refused goes back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from click.testing import CliRunner, Result

from fsn.cli.main import fsn
from fsn.coord.database.payouts import request_payout
from fsn.coord.database.pool import Pool, open_pool
from fsn.coord.database.statements import NodeMoney, money_of
from fsn.core.ids import NodeId
from tests.coord.test_paying import NOW, add_day, books, old_node, pay, users_buy

Asked = tuple[NodeId, list[UUID]]


def run(dsn: str, folder: Path, *arguments: str) -> Result:
    """The command, over that database."""
    command = ["coordinator", "payouts", *arguments, "--data-dir", str(folder)]
    return CliRunner().invoke(fsn, command, prog_name="fsn", env={"FSN_DATABASE__DSN": dsn})


def with_pool(dsn: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """`await work(pool, *arguments)`, in a trio of its own, as the commands have."""

    async def main() -> Any:
        async with open_pool(dsn) as pool:
            return await work(pool, *arguments)

    return trio.run(main)


async def _ask(pool: Pool) -> Asked:
    node = await old_node(pool)
    await add_day(pool, node)
    await pay(pool)
    await users_buy(pool, 3_000_000)
    requests = [uuid4(), uuid4()]
    for request in requests:
        await request_payout(pool, request, node, 1_000_000, "an account", NOW)
    return node, requests


async def _money(pool: Pool, node: NodeId) -> NodeMoney:
    assert await books(pool) == (0, 0)
    return (await money_of(pool, [node]))[node]


@pytest.fixture
def asked(database_dsn: str) -> Asked:
    """A node that earned three credits and wants one of them twice."""
    found: Asked = with_pool(database_dsn, _ask)
    return found


def test_each_ends_once(database_dsn: str, tmp_path: Path, asked: Asked) -> None:
    """Paid: the credits are gone. Refused: they are back, and may be asked for again."""
    node, (one, two) = asked
    shown = run(database_dsn, tmp_path, "list").output.splitlines()
    assert {line.split()[0] for line in shown} == {str(one), str(two)}
    for _ in range(2):
        paid = run(database_dsn, tmp_path, "paid", str(one), "--note", "transfer 4711")
        assert paid.exit_code == 0, paid.output
        assert paid.output.endswith("to an account  paid  (transfer 4711)\n")
        assert run(database_dsn, tmp_path, "refuse", str(two), "--note", "no such account").exit_code == 0
    other = run(database_dsn, tmp_path, "refuse", str(one), "--note", "x")
    assert other.exit_code != 0
    assert f"payout {one} is paid since" in other.output
    assert run(database_dsn, tmp_path, "list").output == "no payout waits\n"
    money: NodeMoney = with_pool(database_dsn, _money, node)
    assert (money.balance, money.pending) == (2_000_000, 0)
    assert with_pool(database_dsn, request_payout, uuid4(), node, 2_000_000, "b", NOW)


def test_what_waits_as_json(database_dsn: str, tmp_path: Path, asked: Asked) -> None:
    """No more than are asked for."""
    node, _ = asked
    (one,) = json.loads(run(database_dsn, tmp_path, "list", "--limit", "1", "--json").output)["payouts"]
    assert (one["node"], one["amount"], one["status"]) == (str(node), 1_000_000, "pending")


@pytest.mark.parametrize(
    ("note", "said"), [("fine", "there is no payout"), ("", "1 to 200 printable"), ("a\x1bb", "1 to 200 printable")]
)
def test_what_cannot_be(database_dsn: str, tmp_path: Path, note: str, said: str) -> None:
    """An unknown one, or without words."""
    found = run(database_dsn, tmp_path, "paid", str(uuid4()), "--note", note)
    assert found.exit_code != 0
    assert said in found.output
