"""What a node means to do survives restarts and power cuts."""

import errno
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fsn.core.errors import ConfigError, DiskFull
from fsn.node.standing import ACTIVE, STANDING_NAME, NodeStanding, StandingFile
from tests.faults.disk import Disk, Fate, PaperFiles, Record

SINCE, UNTIL = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 3, 12, 0, 0, 250_000, tzinfo=UTC)
DRAINING = NodeStanding("draining", SINCE, UNTIL, "moving to Ålesund", 41, 10_747_904)
LEFT = NodeStanding("left", UNTIL)
DISKS = [Disk(names, contents, seed) for names in Fate for contents in Fate for seed in range(3)]


def test_a_new_node_is_active(tmp_path: Path) -> None:
    """Without a file nothing was declared."""
    assert StandingFile(tmp_path).load() == ACTIVE


@pytest.mark.parametrize("standing", [ACTIVE, DRAINING, NodeStanding("maintenance", SINCE, UNTIL), LEFT])
def test_what_is_saved_is_loaded(tmp_path: Path, standing: NodeStanding) -> None:
    """By another process, too."""
    StandingFile(tmp_path).save(DRAINING)
    StandingFile(tmp_path).save(standing)
    assert StandingFile(tmp_path).load() == standing
    assert [path.name for path in tmp_path.iterdir()] == [STANDING_NAME]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"standing": "gone", "since": null, "until": null, "reason": ""}', "\0" * 80]
)
def test_a_damaged_file_is_not_guessed_at(tmp_path: Path, content: str) -> None:
    """The start ends with the file's name and what to do."""
    (tmp_path / STANDING_NAME).write_text(content)
    with pytest.raises(ConfigError, match=r"standing\.json cannot be read .* remove the file"):
        StandingFile(tmp_path).load()


def test_the_power_may_go_at_any_moment(tmp_path: Path) -> None:
    """Whatever the disk made of it, the last standing that was acknowledged is there, or the one that was being written: whole."""
    source, record = tmp_path / "source", Record(tmp_path / "source")
    source.mkdir()
    file = StandingFile(source, PaperFiles(record))
    story = [ACTIVE, DRAINING, NodeStanding("maintenance", SINCE, UNTIL, "x" * 200), LEFT]
    for standing in story[1:]:
        file.save(standing)
        record.note("said", to=standing)
    assert len(record.events) >= 12
    for count in range(len(record.events) + 1):
        said = len(record.said(count))
        for number, disk in enumerate(DISKS):
            target = tmp_path / f"{count}-{number}"
            target.mkdir()
            record.disk_after(count, disk, target)
            assert StandingFile(target).load() in story[said : said + 2], f"after {record.events[:count]}, {disk}"


@pytest.mark.parametrize("fail_at", range(1, 5))
def test_a_failed_save_changes_nothing(tmp_path: Path, fail_at: int) -> None:
    """When the disk is full or failing the caller hears of it; what is read next is whole, and the next save works."""
    StandingFile(tmp_path).save(DRAINING)
    with pytest.raises(DiskFull):
        StandingFile(tmp_path, PaperFiles(Record(tmp_path), fail_at=fail_at, number=errno.ENOSPC)).save(LEFT)
    assert StandingFile(tmp_path).load() in (DRAINING, LEFT)
    assert [path.name for path in tmp_path.iterdir()] == [STANDING_NAME]
    StandingFile(tmp_path).save(ACTIVE)
    assert StandingFile(tmp_path).load() == ACTIVE
