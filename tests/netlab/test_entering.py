"""The wrapper: codes come through, a refusal is said, and killed it takes everything with it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scenarios.netlab.entering import INSIDE

RUNNER = [sys.executable, "-m", "scenarios.netlab"]
SECONDS = 60.0
OUTSIDE = {name: value for name, value in os.environ.items() if name != INSIDE}
MARK = "987654.25"
"""Seconds that no other process on this machine sleeps."""


@pytest.mark.netns
def test_a_commands_code_comes_through() -> None:
    """As if there were no wrapper."""
    assert subprocess.run([*RUNNER, "sh", "-c", "exit 7"], env=OUTSIDE, timeout=SECONDS).returncode == 7


def test_a_refusal_is_said(tmp_path: Path) -> None:
    """Where namespaces are refused the code is 77, with the kernel's reason."""
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho 'unshare: Operation not permitted' >&2\nexit 1\n")
    refusing.chmod(0o755)
    for tool in ("ip", "nft", "mount"):
        (tmp_path / tool).symlink_to("/bin/true")
    environment = OUTSIDE | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([*RUNNER, "true"], env=environment, timeout=SECONDS, capture_output=True, text=True)
    assert done.returncode == 77
    assert "Operation not permitted" in done.stderr


def test_a_program_that_is_not_there() -> None:
    """Is told of before any namespace is made."""
    done = subprocess.run([*RUNNER, "no-such-program"], env=OUTSIDE, timeout=SECONDS, capture_output=True, text=True)
    assert done.returncode == 127
    assert "no-such-program" in done.stderr


@pytest.mark.netns
def test_killed_it_takes_everything_with_it() -> None:
    """kill -9 of the wrapper: also processes of other sessions are gone, and so are its files."""
    script = f"touch /dev/shm/{MARK}; setsid sleep {MARK} & sleep {MARK} & echo ready; wait"
    with subprocess.Popen([*RUNNER, "sh", "-c", script], env=OUTSIDE, stdout=subprocess.PIPE) as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdout.readline() == b"ready\n"
        _wait_for(2)
        wrapper.kill()
    _wait_for(0)
    assert not Path("/dev/shm", MARK).exists()


def _wait_for(count: int) -> None:
    deadline = time.monotonic() + SECONDS
    while _sleepers() != count:
        assert time.monotonic() < deadline, f"{_sleepers()} processes, {count} wanted"
        time.sleep(0.05)


def _sleepers() -> int:
    wanted = f"sleep\0{MARK}\0".encode()
    return sum(_command_line(entry) == wanted for entry in os.listdir("/proc") if entry.isdigit())


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
