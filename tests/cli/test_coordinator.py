"""`fsn coordinator` where nothing needs to run."""

from pathlib import Path

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
