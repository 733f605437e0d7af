"""`fsn coordinator nodes`: an administrator's word, on record."""

import json
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import trio
from click.testing import CliRunner, Result

from fsn.cli.main import fsn
from fsn.coord.database.pool import PoolConfig, open_pool
from fsn.core.ids import NodeId
from tests.coord.database.test_node_states import new_node


@pytest.fixture
def node(database_dsn: str) -> NodeId:
    """A registered node."""

    async def register() -> NodeId:
        async with open_pool(database_dsn, PoolConfig(size=1)) as pool:
            return await new_node(pool)

    return trio.run(register)


def run(dsn: str, folder: Path, *arguments: str) -> Result:
    """The command, over that database."""
    command = ["coordinator", "nodes", *arguments, "--data-dir", str(folder)]
    return CliRunner().invoke(fsn, command, prog_name="fsn", env={"FSN_DATABASE__DSN": dsn})


def run_proofs(dsn: str, folder: Path, *arguments: str) -> Result:
    """`fsn coordinator proofs`, over that database."""
    command = ["coordinator", "proofs", *arguments, "--data-dir", str(folder)]
    return CliRunner().invoke(fsn, command, prog_name="fsn", env={"FSN_DATABASE__DSN": dsn})


def test_proofs_are_shown(database_dsn: str, tmp_path: Path, node: NodeId) -> None:
    """Rounds of all; of a node its reputation, events and failures with their evidence."""
    with psycopg.connect(database_dsn) as connection:
        connection.execute("insert into proof_rounds values (7, now(), now(), 'a third did not answer')")
        connection.execute(
            "insert into proof_sums (round, node_id, asked, passed, failed) values (7, %s, 9, 8, 1)", [node]
        )
        connection.execute(
            """insert into proof_failures values (%s, 7, %s, %s, 'gone', sha256('s'), 4, sha256('r'), 100, 1, 'not stored here',
                                                 now())""",
            [uuid4(), node, uuid4()],
        )
    shown = run_proofs(database_dsn, tmp_path).output
    assert "asked 9, passed 8, failed 1, missed 0" in shown
    assert "nobody is blamed: a third did not answer" in shown
    found = run_proofs(database_dsn, tmp_path, str(node)).output
    assert "score        1.0000  (disqualified below 0.96)" in found
    assert "tries 1: not stored here" in found
    assert "there is no node" in run_proofs(database_dsn, tmp_path, str(uuid4())).output


def test_judged_and_taken_back(database_dsn: str, tmp_path: Path, node: NodeId) -> None:
    """Disqualified with a reason, twice without harm; reinstated with a reason; both on record."""
    for _ in range(2):
        result = run(database_dsn, tmp_path, "disqualify", str(node), "--reason", "serves wrong bytes")
        assert result.exit_code == 0, result.output
    assert str(node) in run(database_dsn, tmp_path, "list", "--status", "disqualified").output
    assert str(node) not in run(database_dsn, tmp_path, "list", "--status", "online").output
    assert run(database_dsn, tmp_path, "reinstate", str(node), "--reason", "an error of ours").exit_code == 0
    shown = run(database_dsn, tmp_path, "show", str(node)).output
    assert "-> disqualified: an administrator: serves wrong bytes" in shown
    assert "disqualified -> offline: an administrator: an error of ours" in shown
    assert shown.count("serves wrong bytes") == 1
    events = json.loads(run_proofs(database_dsn, tmp_path, str(node), "--json").output)["events"]
    assert [each["kind"] for each in events] == ["reinstated", "disqualified", "disqualified"]
    assert events[0]["reason"] == "an administrator: an error of ours"
    again = run(database_dsn, tmp_path, "reinstate", str(node), "--reason", "x")
    assert "only a disqualified or suspended node can be reinstated; this one is offline" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "x"], "a node's id is a UUID"),
        (["show", str(uuid4())], "there is no node"),
        (["disqualify", str(uuid4()), "--reason", " "], "a reason has 1 to 200 printable characters"),
    ],
)
def test_mistakes_are_told(database_dsn: str, tmp_path: Path, arguments: list[str], message: str) -> None:
    """With what was wanted and what was found."""
    result = run(database_dsn, tmp_path, *arguments)
    assert result.exit_code != 0
    assert message in result.output
