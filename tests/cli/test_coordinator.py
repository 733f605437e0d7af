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
