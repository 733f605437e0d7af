"""`fsn scenario`: stories are listed, shown, checked and played, from the command line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fsn.cli.main import fsn
from fsn.sim.story import builtin_stories

STORY = """title = "Short"
tells = "A file comes."
[network]
nodes = 3
[[steps]]
do = "put"
[[steps]]
do = "expect_replicas"
least = {least}
"""


def run(*arguments: str) -> tuple[int, str]:
    """The exit code of `fsn scenario ...` and what it printed on standard output."""
    result = CliRunner().invoke(fsn, ["scenario", *arguments])
    return result.exit_code, result.stdout


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """A story that holds."""
    file = tmp_path / "short.toml"
    file.write_text(STORY.format(least=3))
    return file


def test_stories_are_listed() -> None:
    """By name and title; as JSON, too."""
    code, shown = run("list")
    assert (code, len(shown.splitlines())) == (0, len(builtin_stories()))
    assert "node_dies            A node dies" in shown
    assert {"name": "node_dies", "title": "A node dies"} in json.loads(run("list", "--json")[1])["stories"]


def test_a_story_is_shown() -> None:
    """As it stands in its file."""
    assert run("show", "node_dies") == (0, builtin_stories()["node_dies"].read_text())
    assert run("show", "nothing")[0] == 9


def test_stories_are_checked(story: Path, tmp_path: Path) -> None:
    """A mistake ends with 9."""
    assert run("check", str(story), "node_dies")[0] == 0
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("title = 1")
    assert run("check", str(wrong))[0] == 9


def test_a_story_is_played(story: Path, postgres_dsn: str) -> None:
    """With a timeline and a verdict; as JSON with everything in one document."""
    code, shown = run("run", str(story), "--seed", "4", "--dsn", postgres_dsn)
    assert code == 0
    assert "user0          put file=user0/1" in shown
    assert "Short: held (seed 4;" in shown.splitlines()[-1]
    code, shown = run("run", str(story), "--seed", "4", "--dsn", postgres_dsn, "--json")
    verdict = json.loads(shown)
    assert (code, verdict["good"], verdict["files"]) == (0, True, 1)


def test_a_story_that_does_not_hold(story: Path, postgres_dsn: str) -> None:
    """Says what was wanted, names the seed, and ends with 5."""
    story.write_text(STORY.format(least=4))
    code, shown = run("run", str(story), "--seed", "4", "--dsn", postgres_dsn, "--quiet")
    assert code == 5
    assert "WANTED   4 replicas of each chunk; the worst has 3" in shown
    assert "--seed 4" in shown
