"""The demo's daemons: started, watched, and gone at the end whatever happens."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from fsn.cli.local_network import free_port, open_daemon, open_warden
from fsn.core.errors import Unavailable

LISTENING = """
import json, pathlib, sys, time
whole = pathlib.Path(sys.argv[1], "ports.new")  # as a daemon does it: the file is there with its text, or not at all
whole.write_text(json.dumps({"http": 1}))
whole.rename(whole.with_name("ports.json"))
print("hello", flush=True)
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    """A zombie counts as gone: it waits for its parent only."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def test_daemon_lives_as_long_as_the_block(tmp_path: Path) -> None:
    """A daemon listens when the block begins, and has ended when it is left by an error."""
    (tmp_path / "d").mkdir()
    command = [sys.executable, "-c", LISTENING, str(tmp_path / "d")]
    with trio.fail_after(20), open_warden() as warden:
        with pytest.raises(ZeroDivisionError):
            async with open_daemon(warden, "d", tmp_path / "d", command, 5) as daemon:
                pid = daemon.process.pid
                assert daemon.ports == {"http": 1}
                assert is_alive(pid)
                raise ZeroDivisionError
        assert not is_alive(pid)


async def test_daemon_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    """A daemon that ignores SIGTERM is killed after its grace."""
    (tmp_path / "d").mkdir()
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + LISTENING
    with trio.fail_after(20), open_warden() as warden:
        async with open_daemon(
            warden, "d", tmp_path / "d", [sys.executable, "-c", deaf, str(tmp_path / "d")], 0.1
        ) as d:
            pass
        assert d.process.returncode == -signal.SIGKILL


async def test_daemon_that_fails_shows_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A daemon that ends instead of starting is an error at once, with the end of its log."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "ports.json").write_text("{}")  # of an earlier run: not to be believed
    with trio.fail_after(20), open_warden() as warden, pytest.raises(Unavailable, match="d ended with code 3"):
        async with open_daemon(warden, "d", tmp_path / "d", ["sh", "-c", "echo no disk; exit 3"], 5):
            pass
    assert "no disk" in capsys.readouterr().err


KILLED = """
import pathlib, sys, trio
from fsn.cli.local_network import open_daemon, open_warden

async def main():
    folder = pathlib.Path(sys.argv[1])
    with open_warden(remove=folder) as warden:
        async with open_daemon(warden, "d", folder, sys.argv[2:], 5) as daemon:
            print(daemon.process.pid, flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


def test_killed_demo_leaves_nothing(tmp_path: Path) -> None:
    """When the demo itself is killed with -9, its daemons end and its folder goes."""
    folder = tmp_path / "d"
    folder.mkdir()
    command = [sys.executable, "-c", KILLED, str(folder), sys.executable, "-c", LISTENING, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
    deadline = time.monotonic() + 15
    while (is_alive(pid) or folder.exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)
    assert not folder.exists()


async def test_busy_port() -> None:
    """A port that somebody listens on is replaced by any."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    assert free_port(port) == 0
    await listeners[0].aclose()
    assert free_port(port) == port
