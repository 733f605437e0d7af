"""A daemon's data folder: one process at a time, and ports that others can read."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fsn.core.errors import ConfigError, Conflict
from fsn.runtime.data_folder import PORTS_NAME, forget_ports, is_in_use, locked_folder, published_ports, read_ports

HOLD = """
import sys, pathlib
from fsn.runtime.data_folder import locked_folder
with locked_folder(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_made_and_held_once(tmp_path: Path) -> None:
    """The second holder is told who the first one is; afterwards the folder is free."""
    folder = tmp_path / "a" / "b"
    with locked_folder(folder):
        assert is_in_use(folder)
        with pytest.raises(Conflict, match=f"in use by process {os.getpid()}") as caught, locked_folder(folder):
            pass
        assert caught.value.code == "in_use"
    assert not is_in_use(folder)
    with locked_folder(folder):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """kill -9 frees the folder, though its lock file stays."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Conflict, match=f"process {holder.pid}"), locked_folder(tmp_path):
            pass
        holder.kill()
        holder.wait(10)
    with locked_folder(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_shorter_process_number_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    """The lock file says one number."""
    (tmp_path / "lock").write_text("99999999999\n")
    with locked_folder(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_asking_does_not_make_a_folder_look_held(tmp_path: Path) -> None:
    """Somebody who looks whether the folder is in use does not keep a daemon from starting in that very moment."""
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        answered = threading.Timer(0.05, fcntl.flock, (asking, fcntl.LOCK_UN))
        answered.start()
        with locked_folder(tmp_path):
            pass
        answered.join(10)


def test_a_folder_that_is_not_there_is_not_in_use(tmp_path: Path) -> None:
    """Asking makes nothing."""
    assert not is_in_use(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_file_in_the_place_of_the_folder_is_a_mistake(tmp_path: Path) -> None:
    """It is told with the path."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=str(tmp_path / "file")), locked_folder(tmp_path / "file"):
        pass


def test_ports_are_there_for_the_length_of_the_block(tmp_path: Path) -> None:
    """Programs read where we listen, and nothing when we do not."""
    assert read_ports(tmp_path) == {}
    with published_ports(tmp_path, {"http": 1, "p2p_quic": None}):
        assert json.loads((tmp_path / PORTS_NAME).read_text()) == {"http": 1, "p2p_quic": None}
        assert read_ports(tmp_path) == {"http": 1, "p2p_quic": None}
    assert not (tmp_path / PORTS_NAME).exists()


def test_ports_go_also_when_the_block_fails(tmp_path: Path) -> None:
    """An error leaves no ports behind; forgetting twice is harmless."""
    with pytest.raises(OSError, match="x"), published_ports(tmp_path, {"http": 1}):
        raise OSError("x")
    assert read_ports(tmp_path) == {}
    forget_ports(tmp_path)
    forget_ports(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\xff"])
def test_a_damaged_ports_file_says_nothing(tmp_path: Path, text: str) -> None:
    """What cannot be read is as if it were not there."""
    (tmp_path / PORTS_NAME).write_bytes(text.encode("latin-1"))
    assert read_ports(tmp_path) == {}
