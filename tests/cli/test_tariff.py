"""`fsn coordinator tariff`: what nodes earn from a day on, decided once."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fsn.cli.main import fsn


def run(dsn: str, folder: Path, *arguments: str) -> Result:
    """The command, over that database."""
    command = ["coordinator", "tariff", *arguments, "--data-dir", str(folder)]
    return CliRunner().invoke(fsn, command, prog_name="fsn", env={"FSN_DATABASE__DSN": dsn})


def add(dsn: str, folder: Path, day: str, reward: str = "1.25", reason: str = "disks are dear") -> Result:
    """A tariff from that day on."""
    return run(dsn, folder, "add", "--from", day, "--reward", reward, "--reason", reason)


def test_tariffs_come_one_after_the_other(database_dsn: str, tmp_path: Path) -> None:
    """The first is there from the beginning; none is put before the last."""
    assert (
        add(database_dsn, tmp_path, "2999-01-01").output
        == "2  from 2999-01-01  nodes earn 1.25, users pay 1.50 a GB-month  (disks are dear)\n"
    )
    again = add(database_dsn, tmp_path, "2998-01-01")
    assert again.exit_code != 0
    assert "a tariff from 2999-01-01 on is there" in again.output
    found = json.loads(run(database_dsn, tmp_path, "list", "--json").output)["tariffs"]
    assert [(each["version"], each["node_reward"]) for each in found] == [(1, 1_000_000), (2, 1_250_000)]
    assert run(database_dsn, tmp_path, "list").output.startswith(
        "1  from 1970-01-01  nodes earn 1.00, users pay 1.50 a GB-month"
    )


def test_what_is_not_given_stays(database_dsn: str, tmp_path: Path) -> None:
    """Only the price, to the micro-credit; and nothing at all is a mistake."""
    add(database_dsn, tmp_path, "2999-01-01")
    day = ("add", "--from", "2999-02-01", "--reason", "x")
    assert (
        "nodes earn 1.25, users pay 1.666667 a GB-month"
        in run(database_dsn, tmp_path, *day, "--price", "1.666667").output
    )
    nothing = run(database_dsn, tmp_path, *day)
    assert nothing.exit_code == 2
    assert "--reward, --price or both are wanted" in nothing.output


@pytest.mark.parametrize(
    ("day", "reward", "reason", "message"),
    [
        ("soon", "1", "x", "a day like 2027-01-01 is wanted; got 'soon'"),
        ("2020-01-01", "1", "x", "a tariff begins on a day to come"),
        ("2999-01-01", "-1", "x", "-1"),
        ("2999-01-01", "1", " ", "a reason has 1 to 200 printable characters"),
    ],
)
def test_mistakes_are_told(database_dsn: str, tmp_path: Path, day: str, reward: str, reason: str, message: str) -> None:
    """With what was wanted and what was found."""
    result = add(database_dsn, tmp_path, day, reward, reason)
    assert result.exit_code != 0
    assert message in result.output
