"""`fsn node` as people and scripts use it: real processes, real signals, exit codes."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from fsn.cli.main import fsn
from fsn.core.merkle import merkle_root
from fsn.node.chunkstore.disk import open_disk_store
from tests.node.fake_coordinator import FakeCoordinator, open_fake_coordinator
from tests.node.store_contract import content, replica


@pytest.fixture
async def coordinator() -> AsyncIterator[FakeCoordinator]:
    """One that registers; the test is bounded with it."""
    with trio.fail_after(30):
        async with open_fake_coordinator() as fake:
            yield fake


async def run(*arguments: str) -> Result:
    """`fsn node ...` in a thread, where it may run trio of its own."""
    return await trio.to_thread.run_sync(partial(CliRunner().invoke, fsn, ["node", *arguments]))


async def init(data_dir: Path, url: str) -> Result:
    """A node with any free ports."""
    places = ["--data-dir", str(data_dir), "--coordinator-url", url]
    return await run("init", *places, "--name", "Test Node", "--capacity", "1GB", "--admin-port", "0")


async def test_init_registers_and_a_second_says_so(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """The first init registers, the second tells what is there and changes nothing; both succeed."""
    first = await init(tmp_path, coordinator.url)
    assert (first.exit_code, first.output.split()[0]) == (0, "registered"), first.output
    second = await init(tmp_path, "http://127.0.0.1:9")
    (node,) = coordinator.nodes.values()
    assert second.exit_code == 0
    assert f"already initialised as Test Node ({node})" in second.output


@pytest.mark.parametrize(("program", "group"), [("storage-node", []), ("fsn", ["node"])])
async def test_the_command_that_init_prints_can_be_copied(
    coordinator: FakeCoordinator, tmp_path: Path, program: str, group: list[str]
) -> None:
    """What is to be typed next works in the shell that init was typed in: not on the PATH, and with a folder that has a space."""
    called = str(Path(sys.executable).with_name(program))
    places = ["--data-dir", str(tmp_path / "a node"), "--coordinator-url", coordinator.url, "--admin-port", "0"]
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    init = await trio.run_process(
        [called, *group, "init", "--name", "n", *places], capture_stdout=True, env=environment
    )
    (line,) = [line for line in init.stdout.decode().splitlines() if line.startswith("start it with: ")]
    printed = line.removeprefix("start it with: ")
    assert shlex.split(printed) == [called, *group, "start", "--data-dir", str(tmp_path / "a node")]
    await trio.run_process(["/bin/sh", "-c", f"{printed} --help"], capture_stdout=True, env=environment)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--coordinator-url", "http://127.0.0.1:9"], 7),
        (["--coordinator-url", "nonsense"], 2),
        (["--coordinator-url", "http://127.0.0.1:9", "--capacity", "lots"], 2),
        (["--coordinator-url", "http://127.0.0.1:9", "--capacity", "5"], 2),
        ([], 2),
    ],
)
async def test_init_fails_by_the_table(tmp_path: Path, arguments: list[str], code: int) -> None:
    """Each mistake has its exit code and one line that says what to check."""
    with trio.fail_after(30):
        result = await run("init", "--data-dir", str(tmp_path), "--name", "n", *arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


async def test_commands_without_a_node(tmp_path: Path) -> None:
    """A folder that is no node's is a configuration error that names init."""
    for command in (["status"], ["start"], ["config", "show"]):
        result = await run(*command, "--data-dir", str(tmp_path))
        assert result.exit_code == 9
        assert "fsn node init" in result.output


async def test_status_and_chunks_of_a_resting_node(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """Status says that the node does not run; the chunks are read from the index."""
    await init(tmp_path, coordinator.url)
    async with open_disk_store(tmp_path, capacity_bytes=10**6, reserve_bytes=0) as store:
        for number in range(3):
            await store.store(replica(number), merkle_root(content(number)), content(number))
    status = await run("status", "--data-dir", str(tmp_path))
    assert status.exit_code == 7
    assert "does not run" in status.output
    found = json.loads((await run("chunks", "list", "--data-dir", str(tmp_path), "--json")).output)
    assert [chunk["id"] for chunk in found["chunks"]] == [replica(number).hex for number in range(3)]
    limited = json.loads((await run("chunks", "list", "--data-dir", str(tmp_path), "--json", "--limit", "2")).output)
    assert limited["chunks"] == found["chunks"][:2]


async def test_config_show_is_toml_in_force(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """What is printed is the configuration with its defaults."""
    await init(tmp_path, coordinator.url)
    result = await run("config", "show", "--data-dir", str(tmp_path))
    assert 'name = "Test Node"' in result.output
    assert "[coordinator]" in result.output


def event(number: int) -> dict[str, object]:
    """One that moved the node's reputation, as the coordinator tells it."""
    return {
        "at": f"2030-01-0{number + 1}T10:00:00Z", "kind": "fault", "round": number, "score": 0.999, "answering": 1.0,
        "reason": "of 9 asked 8 passed",
    }  # fmt: skip


async def test_a_process_starts_answers_and_stops(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    """A started process publishes its ports, answers `status`, and ends with 0 on SIGTERM."""
    await init(tmp_path, coordinator.url)
    command = [sys.executable, "-m", "fsn.cli.main", "node", "start", "--data-dir", str(tmp_path)]
    environment = {**os.environ, "FSN_P2P__LISTEN_HOST": "127.0.0.1"}
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
        while not (tmp_path / "ports.json").exists():
            assert process.poll() is None
            await trio.sleep(0.02)
        status = json.loads((await run("status", "--data-dir", str(tmp_path), "--json")).output)
        assert status["name"] == "Test Node"
        shown = (await run("status", "--data-dir", str(tmp_path))).output
        assert "Test Node" in shown
        assert "events:      not known now: the database is away" in shown
        coordinator.events = [event(number) for number in range(7)]
        shown = (await run("status", "--data-dir", str(tmp_path))).output
        assert [line for line in shown.splitlines() if line.startswith("event")] == [
            f"event:       2030-01-0{number + 1}T10:00 fault: of 9 asked 8 passed (score 0.9990, answering 1.0000)"
            for number in range(5)
        ]
        assert json.loads((await run("chunks", "list", "--data-dir", str(tmp_path), "--json")).output) == {"chunks": []}
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert not (tmp_path / "ports.json").exists()
