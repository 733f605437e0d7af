"""Small secret files: whole or absent, never replaced by accident, never open to others."""

import os
import stat
import threading
from pathlib import Path

import pytest

from fsn.core.errors import ConfigError
from fsn.runtime.private_files import create_private_file, read_private_file, replace_private_file


def test_what_is_written_is_read_back_by_its_owner_only(tmp_path: Path) -> None:
    """The file is 0600, the folder that was made for it 0700, whatever the umask; nothing else is left there."""
    path = tmp_path / "secrets" / "key"
    before = os.umask(0)
    try:
        create_private_file(path, b"hush")
    finally:
        os.umask(before)
    assert read_private_file(path) == b"hush"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    """The second to create learns so, and the first one's bytes stay."""
    path = tmp_path / "key"
    create_private_file(path, b"first")
    with pytest.raises(FileExistsError):
        create_private_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    """Threads that create the same file: one succeeds, and the file is whole and that one's."""
    path, won = tmp_path / "key", list[bytes]()
    start = threading.Barrier(8)

    def create(content: bytes) -> None:
        start.wait(10)
        try:
            create_private_file(path, content)
            won.append(content)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=create, args=[bytes([65 + number]) * 1000]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert won == [path.read_bytes()]
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_replacing_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Who has the old file open keeps the old bytes; who opens it now gets the new ones."""
    path = tmp_path / "key"
    replace_private_file(path, b"old")
    with path.open("rb") as before:
        replace_private_file(path, b"new")
        assert before.read() == b"old"
    assert read_private_file(path) == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    """Replacing replaces the link, not what it points to."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (tmp_path / "key").symlink_to(victim)
    replace_private_file(tmp_path / "key", b"hush")
    assert victim.read_bytes() == b"untouched"
    with pytest.raises(FileExistsError):
        create_private_file(tmp_path / "key", b"hush")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The message names the file, its mode and what to do, not the secret."""
    path = tmp_path / "key"
    create_private_file(path, b"hush")
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600.*{mode:o}") as caught:
        read_private_file(path)
    assert "hush" not in caught.value.message


def test_what_is_not_there_is_told_apart_from_what_cannot_be_read(tmp_path: Path) -> None:
    """Absence is the caller's to judge; anything else is a mistake in the set-up."""
    with pytest.raises(FileNotFoundError):
        read_private_file(tmp_path / "none")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_private_file(tmp_path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file in the place of the folder is a ConfigError with the path."""
    (tmp_path / "secrets").write_bytes(b"")
    for write in (create_private_file, replace_private_file):
        with pytest.raises(ConfigError, match="secrets"):
            write(tmp_path / "secrets" / "key", b"hush")
