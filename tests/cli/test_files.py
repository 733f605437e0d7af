"""The user's commands in processes of their own, against a small coordinator on loopback."""

import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
from click.testing import CliRunner

from fsn.cli.credentials import Credentials
from fsn.cli.files import _local_name
from fsn.cli.main import fsn
from fsn.client import File, Session, User
from fsn.client.values import structure
from fsn.core.errors import ConfigError
from fsn.core.ids import FileId, UserId
from tests.client.fake_coordinator import FakeCoordinator, open_fake_coordinator

DATA = bytes(range(256)) * 1000


@attrs.frozen
class Ended:
    """A command that ended."""

    returncode: int
    stdout: bytes
    stderr: bytes


@attrs.frozen
class Shell:
    """A user at `folder` (the current one), whose configuration lies below it too."""

    coordinator: FakeCoordinator
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"FSN_URL": self.coordinator.url, "XDG_CONFIG_HOME": str(self.folder / "config")}

    async def run(self, *arguments: str, stdin: bytes = b"", password: str | None = None) -> Ended:
        """In this process: a process of its own costs a second of imports."""
        environment = self.environment | {"FSN_PASSWORD": password, "FSN_TOKEN": None}
        invoke = partial(CliRunner(env=environment).invoke, fsn, arguments, input=stdin, prog_name="fsn")
        result = await trio.to_thread.run_sync(invoke)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout_bytes, result.stderr_bytes)

    async def spawn(self, command: str, stdin: bytes = b"") -> Ended:
        """In a shell, with `fsn` as a process of its own; ends with the exit code of the pipe's first command."""
        script = f'fsn() {{ "{sys.executable}" -W error -m fsn.cli.main "$@"; }}; {command}; exit ${{PIPESTATUS[0]}}'
        run = partial(trio.run_process, ["bash", "-c", script], capture_stdout=True, capture_stderr=True, check=False)
        result = await run(stdin=stdin, env=os.environ | self.environment, cwd=self.folder)
        return Ended(result.returncode, result.stdout, result.stderr)

    async def json(self, *arguments: str, code: int = 0, password: str | None = None) -> Any:
        result = await self.run(*arguments, "--json", password=password)
        assert result.returncode == code, result.stderr
        return json.loads(result.stdout)


@pytest.fixture
async def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    monkeypatch.chdir(tmp_path)
    async with open_fake_coordinator() as coordinator:
        with trio.fail_after(30):
            yield Shell(coordinator, tmp_path)


async def test_login_is_kept_for_the_user_alone(shell: Shell) -> None:
    """The token is kept in a 0600 file and used; the password is nowhere; logging out forgets it."""
    answer = await shell.json("login", "ann@example.com", password="test123")
    assert answer["user"]["email"] == "ann@example.com"
    kept = shell.folder / "config" / "fsn" / "credentials.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "t0k3n" in kept.read_text()
    assert "test123" not in kept.read_text()
    assert "t0k3n" not in json.dumps(answer)
    assert (await shell.run("logout")).returncode == 0
    assert "t0k3n" not in kept.read_text()


async def test_wrong_password(shell: Shell) -> None:
    """A wrong password ends with 3; without any way to ask for one the command says what to do."""
    (shell.folder / "password").write_text("wrong\n")
    result = await shell.run("login", "ann@example.com", "--password-file", "password")
    assert (result.returncode, result.stderr) == (3, b"fsn: unknown email or password\n")
    result = await shell.run("login", "ann@example.com")
    assert result.returncode == 2
    assert b"FSN_PASSWORD" in result.stderr


async def test_register_logs_in(shell: Shell) -> None:
    """Registering logs in at once, the password read from standard input here."""
    result = await shell.run("register", "ann@example.com", "--password-file", "-", stdin=b"test123\n")
    assert result.returncode == 0, result.stderr
    assert b"1000.00 credits" in result.stdout


async def test_put_and_get(shell: Shell) -> None:
    """Files go up and come back bit for bit, by name or id; nothing is overwritten unasked."""
    (shell.folder / "a").write_bytes(DATA)
    (shell.folder / "b").write_bytes(b"b")
    put = await shell.json("put", "a", "b")
    assert [file["filename"] for file in put["files"]] == ["a", "b"]
    assert await shell.json("get", "a", code=5) == {
        "error": {"code": "local_exists", "message": "a exists already; give another name with -o, or --force"}
    }
    got = await shell.json("get", put["files"][0]["id"], "-o", "copy")
    assert got["path"] == "copy"
    assert (shell.folder / "copy").read_bytes() == DATA
    assert (await shell.run("get", "b", "-o", "copy", "--force")).returncode == 0
    assert (shell.folder / "copy").read_bytes() == b"b"
    assert (await shell.run("get", "nothing")).returncode == 4


async def test_pipes(shell: Shell) -> None:
    """Standard input goes up, and a file comes out of standard output."""
    result = await shell.spawn("fsn put - --filename piped", stdin=DATA)
    assert result.returncode == 0, result.stderr
    result = await shell.spawn("fsn get piped -o -")
    assert (result.stdout, result.stderr) == (DATA, b"")
    assert (await shell.run("put", "-")).returncode == 2


async def test_put_in_steps(shell: Shell) -> None:
    """`put --resumable` sends chunks."""
    (shell.folder / "a").write_bytes(DATA[:5500])
    assert (await shell.run("put", "--resumable", "a")).returncode == 0
    assert [file.data for file in shell.coordinator.files.values()] == [DATA[:5500]]


async def test_ls_and_rm(shell: Shell) -> None:
    """In a pipe `ls` is columns without colours, in which a hostile name can do nothing; `rm` wants ids and a yes."""
    file = shell.coordinator.add(DATA, "evil\x1b[2J\tname")
    line = (await shell.run("ls")).stdout.decode()
    assert line == f"{file.id}\t256.0 kB\tready\t\tevil\ufffd[2J\ufffdname\n"
    assert [f["id"] for f in (await shell.json("ls"))["files"]] == [file.id]
    assert (await shell.run("rm", file.id)).returncode == 2
    assert (await shell.run("rm", "photo.jpg", "--yes")).returncode == 2
    assert await shell.json("rm", file.id, "--yes") == {"deleted": [file.id]}
    assert (await shell.run("rm", file.id, "--yes")).returncode == 4


async def test_money(shell: Shell) -> None:
    """Balance and price are shown with two decimals."""
    await shell.run("login", "ann@example.com", password="test123")
    assert (await shell.run("balance")).stdout == b"1,000.00 credits\n"
    shell.coordinator.account = {
        "past_due_since": "2027-01-02T00:00:00Z", "kept_until": "2027-01-16T00:00:00Z", "monthly_budget": "50.00",
        "spent_this_month": "12.50",
    }  # fmt: skip
    lines = (await shell.run("balance")).stdout.decode().splitlines()
    assert lines[1] == "12.50 of 50.00 spent this month"
    assert lines[2].startswith(
        "past due since 2027-01-02: nothing new is taken, and what is not paid is deleted after 2027-01-16"
    )
    found = await shell.json("balance")
    assert (found["balance"], found["monthly_budget"], found["kept_until"]) == (
        "1000.00",
        "50.00",
        "2027-01-16T00:00:00Z",
    )
    assert (await shell.run("quote", "10GB")).stdout == b"4.50 credits for 30 days, 3 replicas\n"


async def test_two_files_of_one_name(shell: Shell) -> None:
    """A name that stands for two files is refused with both ids."""
    ids = [shell.coordinator.add(DATA, "x").id for _ in range(2)]
    result = await shell.run("get", "x")
    assert result.returncode == 5
    assert all(id_.encode() in result.stderr for id_ in ids)


async def test_reader_has_enough(shell: Shell) -> None:
    """`fsn get ... | head -c 1` ends quietly."""
    shell.coordinator.add(DATA * 40, "big")
    result = await shell.spawn("fsn get big -o - | head -c 1")
    assert (result.returncode, result.stdout, result.stderr) == (141, b"\0", b"")


@pytest.mark.parametrize(
    ("name", "local"),
    [("../../etc/passwd", "passwd"), ("a\\b", "b"), ("..", None), ("x/", None), ("a\nb", "a\ufffdb"), ("ü 🎉", "ü 🎉")],
)
def test_names_from_the_server_stay_in_the_folder(name: str, local: str | None) -> None:
    """Whatever a file is called on the server, it lands in the folder of the user."""
    file = File(FileId(UUID(int=1)), name, 1, "ready")
    assert _local_name(file) == (local or str(file.id))


def test_tokens_that_others_can_read_are_not_used(tmp_path: Path) -> None:
    """A credentials file open to others, or a damaged one, is refused with what to do."""
    credentials = Credentials(tmp_path / "deep" / "credentials.json")
    assert credentials.token("http://x") is None
    session = structure(
        {"token": "t", "expires_at": "2027-01-01T00:00:00Z", "user": {"id": str(UUID(int=1)), "email": "a@b"}}, Session
    )
    assert session.user == User(UserId(UUID(int=1)), "a@b")
    credentials.keep("http://x", session)
    assert credentials.token("http://x") == "t"
    assert credentials.token("http://y") is None
    credentials.path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        credentials.token("http://x")
    credentials.path.chmod(0o600)
    credentials.path.write_text('{"servers": {"http://x": 1}}')
    with pytest.raises(ConfigError, match="log in again"):
        credentials.token("http://x")
