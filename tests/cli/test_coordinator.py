"""`fsn coordinator` where nothing needs to run."""

from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner

from fsn.cli.main import fsn


@pytest.mark.parametrize("command", [["start"], ["migrate"], ["config", "show"]])
def test_a_dsn_that_is_none_is_a_mistake_in_the_configuration(tmp_path: Path, command: list[str]) -> None:
    """Each command that reads the settings says which one is wrong, without its text, and starts nothing."""
    arguments = ["coordinator", *command, "--data-dir", str(tmp_path / "new")]
    result = CliRunner().invoke(fsn, arguments, prog_name="fsn", env={"FSN_DATABASE__DSN": "mysql://fsn:secret@db/fsn"})
    assert result.exit_code == 9
    assert "database.dsn: a PostgreSQL URL" in result.stderr
    assert "secret" not in result.output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "dsn", ["postgresql://fsn:secret@db/fsn", "postgresql://fsn@db/fsn?password=secret", "host=db password=secret"]
)
def test_a_password_on_the_command_line_is_refused(tmp_path: Path, dsn: str) -> None:
    """Everybody on the machine reads command lines: wherever in the DSN it stands."""
    arguments = ["coordinator", "config", "show", "--data-dir", str(tmp_path), "--dsn", dsn]
    result = CliRunner().invoke(fsn, arguments, prog_name="fsn")
    assert result.exit_code == 9
    assert "--dsn must not hold a password" in result.stderr
    assert "secret" not in result.output


def test_a_dsn_without_a_password_is_taken(tmp_path: Path) -> None:
    """The URL alone, and never shown."""
    arguments = ["coordinator", "config", "show", "--data-dir", str(tmp_path), "--dsn", "postgresql://fsn@db/fsn"]
    result = CliRunner().invoke(fsn, arguments, prog_name="fsn")
    assert result.exit_code == 0
    assert "# dsn is set" in result.output


def test_garbage_is_listed_and_allowed(tmp_path: Path, database_dsn: str) -> None:
    """What is held is named with its node and numbers; allowing it makes it due, and nothing held is not found."""
    node = uuid4()

    def run(*arguments: str) -> str:
        options = ["--data-dir", str(tmp_path), "--dsn", database_dsn]
        result = CliRunner().invoke(fsn, ["coordinator", "garbage", *arguments, *options], prog_name="fsn")
        return f"{result.exit_code} {result.output}"

    assert run("list") == "0 nothing is held\n"
    assert run("allow", str(node)).startswith("4 ")
    with psycopg.connect(database_dsn, autocommit=True) as db:
        db.execute(
            """insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, capacity_bytes)
               values (%s, 'p', sha256('k'), 'attic', 'h', now(), now(), 1)""",
            [node],
        )
        db.execute(
            """insert into reconciliations (node_id, due_at, garbage_count, agreed_count, held_at)
               values (%s, 'infinity', 7, 3, '2026-11-01 12:00Z')""",
            [node],
        )
        assert f"{node}  attic  7 replicas of 10  held since 2026-11-01" in run("list")
        assert run("allow", str(node)).startswith("0 allowed")
        assert "attic  7 replicas of 10  allowed" in run("list")
        assert db.execute("select due_at < now() + interval '1 minute' from reconciliations").fetchone() == (True,)
