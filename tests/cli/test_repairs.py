"""`fsn coordinator repairs` on a real database."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
from click.testing import CliRunner, Result

from fsn.cli.main import fsn


def run(data_dir: Path, *arguments: str) -> Result:
    """The command, with a data folder of its own."""
    return CliRunner().invoke(fsn, ["coordinator", "repairs", "--data-dir", str(data_dir), *arguments], prog_name="fsn")


def test_the_queue_is_shown_worst_first(database_dsn: str, tmp_path: Path) -> None:
    """Each chunk with what it waits for; no more than asked for; the same as JSON."""
    now = datetime.now(UTC)
    with psycopg.connect(database_dsn) as connection:
        for index, live, due, tries, failure in (
            (0, 2, now, 0, None),
            (1, 0, now + timedelta(hours=2), 3, "no\x1bnode"),
        ):
            connection.execute(
                "insert into repairs (file_id, chunk_index, live, reason, queued_at, due_at, tries, failure)"
                " values (%s, %s, %s, 'scrub', %s, %s, %s, %s)",
                [UUID(int=7), index, live, now - timedelta(minutes=90), due, tries, failure],
            )
    environment = {"FSN_DATABASE__DSN": database_dsn}
    runner = CliRunner(env=environment)
    shown = runner.invoke(fsn, ["coordinator", "repairs", "--data-dir", str(tmp_path)], prog_name="fsn")
    assert shown.exit_code == 0, shown.output
    title, first, second = shown.output.splitlines()
    assert title == "chunks that wait for repair or are in it: 2"
    assert (
        f"{UUID(int=7)} chunk 1: 0 live, scrub, queued 1 h 30 min ago, again in 1 h 59 min, tried 3 times: no" in first
    )
    assert "\x1b" not in first
    assert second == f"{UUID(int=7)} chunk 0: 2 live, scrub, queued 1 h 30 min ago, due"
    one = runner.invoke(fsn, ["coordinator", "repairs", "--data-dir", str(tmp_path), "--limit", "1"], prog_name="fsn")
    assert one.output.splitlines()[1:] == [first, "... and 1 more: --limit 2"]
    asked = ["coordinator", "repairs", "--data-dir", str(tmp_path), "--json"]
    document = json.loads(runner.invoke(fsn, asked, prog_name="fsn").output)
    assert [(each["chunk_index"], each["tries"]) for each in document["repairs"]] == [(1, 3), (0, 0)]
    assert document["waiting"] == {"0": 1, "2": 1}


def test_without_a_database_nothing_is_made(tmp_path: Path) -> None:
    """A mistyped folder is told of, and stays what it was."""
    result = run(tmp_path / "none")
    assert result.exit_code == 9
    assert "there is no database in" in result.stderr
    assert not (tmp_path / "none").exists()
