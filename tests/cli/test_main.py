"""The programs as a shell sees them: help, version, quick start, and the wrappers at the repository's root."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from fsn import __version__
from fsn.cli.main import fsn

ROOT = Path(__file__).parents[2]


def test_help_lists_every_command() -> None:
    """`fsn --help` shows the commands and examples."""
    result = CliRunner().invoke(fsn, ["--help"])
    assert result.exit_code == 0
    for word in ("put", "get", "coordinator", "node", "demo", "Examples:", "Exit codes:"):
        assert word in result.output


@pytest.mark.parametrize("name", ["register", "login", "logout", "put", "get", "ls", "rm", "balance", "quote", "demo"])
def test_every_command_has_help(name: str) -> None:
    """Each of the user's commands loads and explains itself."""
    result = CliRunner().invoke(fsn, [name, "--help"], prog_name="fsn")
    assert result.exit_code == 0
    assert f"Usage: fsn {name}" in result.output


def test_unknown_command() -> None:
    """An unknown command is a wrong command line."""
    result = CliRunner().invoke(fsn, ["putt"])
    assert result.exit_code == 2
    assert "No such command 'putt'" in result.output


def test_users_commands_import_no_daemon() -> None:
    """`fsn ls` must not pay for what only daemons need: libp2p alone takes 2 s to import."""
    code = (
        "import sys; from fsn.cli.main import fsn\n"
        "try: fsn(['ls', '--url', 'http://127.0.0.1:1'])\n"
        "except SystemExit: pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'libp2p', 'quart', 'hypercorn', 'psycopg', 'google'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout.strip() == "[]"


def test_version_as_a_module() -> None:
    """`python -m fsn.cli.main --version` works as `fsn --version` does."""
    command = [sys.executable, "-m", "fsn.cli.main", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout == f"fsn {__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == __version__


def test_completion() -> None:
    """Shell completion offers the commands without importing them."""
    environment = os.environ | {"_FSN_COMPLETE": "bash_complete", "COMP_WORDS": "fsn re", "COMP_CWORD": "1"}
    code = "from fsn.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False, env=environment
    )
    assert result.stdout == "plain,register\n"


@pytest.mark.parametrize("name", ["fsn", "coordinator", "storage-node"])
def test_wrapper_without_setup(name: str, tmp_path: Path) -> None:
    """A wrapper in a tree without a virtual environment says what to do, also through a symbolic link."""
    (tmp_path / "tree").mkdir()
    shutil.copy(ROOT / name, tmp_path / "tree" / name)
    (tmp_path / "link").symlink_to(tmp_path / "tree" / name)
    for script in (tmp_path / "tree" / name, tmp_path / "link"):
        result = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 9
        assert "make setup" in result.stderr


@pytest.mark.parametrize("name", ["fsn", "coordinator", "storage-node"])
def test_wrapper_passes_arguments(name: str, tmp_path: Path) -> None:
    """A wrapper runs the program of its own name beside it with the very arguments, and its exit code."""
    shutil.copy(ROOT / name, tmp_path / name)
    program = tmp_path / ".venv" / "bin" / name
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 5\n')
    program.chmod(0o755)
    result = subprocess.run(
        [tmp_path / name, "init", "--name", "Test Node"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (result.returncode, result.stdout) == (5, "init|--name|Test Node|")


def test_demo_does_not_mix_with_an_earlier_one(tmp_path: Path) -> None:
    """A folder of an earlier demo is refused, and left alone."""
    (tmp_path / "coordinator").mkdir()
    result = CliRunner().invoke(fsn, ["demo", "--data-dir", str(tmp_path)], prog_name="fsn")
    assert result.exit_code == 5
    assert "earlier demo" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["coordinator"]


def test_demo_wants_room(tmp_path: Path) -> None:
    """A demo that cannot fit is refused before anything starts, with what to do."""
    result = CliRunner().invoke(fsn, ["demo", "--data-dir", str(tmp_path), "--size", "1EB"], prog_name="fsn")
    assert result.exit_code == 9
    assert "--size" in result.stderr
