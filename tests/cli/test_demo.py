"""What the demo does beside starting daemons."""

import sys
from pathlib import Path

import trio

from fsn.cli.demo import killing_half_way
from fsn.cli.local_network import Daemon


async def test_the_node_is_killed_and_told_of_once(tmp_path: Path) -> None:
    """Half-way through the upload its victim is killed, and however fast progress is reported then, that is said once."""
    said: list[str] = []
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    watch = killing_half_way(Daemon("node-1", tmp_path, tmp_path / "log", process), said.append)
    watch(49, 100)
    assert said == []
    assert process.poll() is None
    for done in (50, 51, 100):  # at once: the process is not reaped in between
        watch(done, 100)
    assert len(said) == 1
    with trio.fail_after(20):
        assert await process.wait() == -9
