"""A private PostgreSQL under a data folder: made, started, joined, watched and stopped by the processes that use it.

Several processes may share one folder: the first one starts the server, the last one to leave stops it. Who uses it is known by file
locks, which the kernel drops with a killed process; so the folder must be on a local file system (flock does not work on some NFS).
Linux and macOS; elsewhere give a DSN. No TCP port is opened; the socket's folder is private, and peer authentication
lets in the server's own user (and root).

What is done differently from the wheels' own Python layers, each after a failure seen with two of them: a recycled or zombie pid in
postmaster.pid is no server, and its process is never signalled; a long path moves the socket into a private folder, never one
open to all; nothing above the data folder is chmodded; a crash recovery may take its time: docs/decisions/0005.
"""

import fcntl
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import psycopg
import structlog
import trio
from psycopg import sql

from fsn.coord.database.binaries import Binaries, copy_binaries, find_binaries
from fsn.coord.database.cluster import ROLE, make_cluster, make_socket_folder, write_settings
from fsn.coord.database.server_process import postmaster_of, remove_stale_locks
from fsn.coord.database.server_user import ServerUser, server_user, text_of
from fsn.core.errors import ConfigError, Unavailable

__all__ = ["EmbeddedPostgres", "open_embedded_postgres"]

log = structlog.get_logger(__name__)

START_SECONDS: Final = 600
"""How long a start may take. Seconds are usual; a crash recovery reads up to `max_wal_size` of log."""
STOP_SECONDS: Final = 120
ORPHAN_SECONDS: Final = 20
"""How long to wait for back ends of a killed server: PostgreSQL refuses to start beside one that is still busy."""
WATCH_SECONDS: Final = 1.0


@asynccontextmanager
async def open_embedded_postgres(
    folder: Path, *, bindir: str | None = None, run_as: str | None = None, settings: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """Start or join the server under `folder`, yield its DSN, leave when the block ends (the last one stops the server).

    A server that dies meanwhile is started again within a second or two. Takes 1-2 s on a fresh folder, 0.2 s later, longer after a
    crash. What is raised in the block leaves it in an exception group, as from any nursery. Raises ConfigError when no server can
    run here at all, Unavailable when this one does not start. A cancelled start is finished first, then undone.
    """
    server = EmbeddedPostgres(folder, bindir=bindir, run_as=run_as, settings=settings)
    try:
        dsn = await trio.to_thread.run_sync(server.start)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.watch)
            yield dsn
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):  # 0.1 s as a rule, STOP_SECONDS at most
            await trio.to_thread.run_sync(server.stop)


class EmbeddedPostgres:
    """One process's share in the server of a folder. The methods block, but for `watch`; call them from one thread at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        bindir: str | None = None,
        run_as: str | None = None,
        settings: Mapping[str, str] | None = None,
        database: str = "fsn",
    ) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self._database = database
        self._bindir, self._run_as = bindir, run_as
        self._settings = dict(settings or {})
        self._share: IO[str] | None = None
        self._user: ServerUser
        self._binaries: Binaries
        self._socket_folder: Path

    @property
    def dsn(self) -> str:
        """Where the server listens; known after `start`. Contains no secret."""
        return self._dsn_of(self._database)

    def start(self, timeout_seconds: float = START_SECONDS) -> str:
        """Start the server or join the running one, make our database if it is missing; the DSN. Start once.

        Raises ConfigError (no programs, a folder out of reach) and Unavailable (it did not start).
        """
        deadline = time.monotonic() + timeout_seconds
        with _folder_errors(self.folder):
            self._user = server_user(self._run_as)
            self._make_folder()
            with self._mutex(deadline):
                self._share = _open_locked(self.folder / "users.lock", fcntl.LOCK_SH)
                try:
                    self._prepare()
                    self._ensure_running(deadline)
                    self._ensure_database()
                except BaseException:
                    self._leave()
                    raise
        return self.dsn

    def stop(self) -> bool:
        """Leave; the last one to leave stops the server. Whether it was stopped. Harmless without a `start`."""
        if self._share is None:
            return False
        with _folder_errors(self.folder), self._mutex(time.monotonic() + START_SECONDS):
            try:
                is_last = _lock_nowait(self._share)
                if is_last and postmaster_of(self.data) is not None:
                    self._pg_ctl("stop", "-m", "fast", "-w", "-t", str(STOP_SECONDS))
            finally:
                self._leave()
        return is_last

    async def watch(self) -> None:
        """Start the server again whenever it has died; runs until cancelled. For a nursery, after `start`.

        Looks once a second. What cannot be started is tried again for ever, with a line in the log each time.
        """
        while True:
            await trio.sleep(WATCH_SECONDS)
            if self.is_listening():
                continue
            log.warning("database_server_died", folder=str(self.folder))
            try:
                await trio.to_thread.run_sync(self.revive)
            except Unavailable as error:
                log.error("database_server_not_started", reason=error.message)
            else:
                log.info("database_server_started_again", folder=str(self.folder))

    def is_listening(self) -> bool:
        """Whether a postmaster listens on the socket (it may refuse us just now). Unlike a pid this cannot be a zombie's."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(0)
            try:
                probe.connect(str(self._socket_folder / ".s.PGSQL.5432"))
            except BlockingIOError:
                return True  # many others are waiting to be let in
            except OSError:
                return False
        return True  # PostgreSQL forgets, without a line in its log, a client that leaves before it said a word

    def revive(self, timeout_seconds: float = START_SECONDS) -> None:
        """Start the server if it does not run; several processes may call it at once. Raises Unavailable when it does not start."""
        deadline = time.monotonic() + timeout_seconds
        with _folder_errors(self.folder), self._mutex(deadline):
            self._ensure_running(deadline)

    def _make_folder(self) -> None:
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            if self._user.is_lent:
                self.folder.chmod(0o711)  # the server's user passes through, whatever our umask
        if not self._user.reaches(self.folder):
            raise ConfigError(
                f"PostgreSQL does not run as root, and its user {self._user.name} cannot reach {self.folder}: choose a data folder"
                " outside a private home (e.g. /var/lib/fsn), run fsn as an ordinary user, or give a DSN"
            )

    def _prepare(self) -> None:
        """Everything that must be there before the server can be started."""
        version = self.data / "PG_VERSION"
        major = int(version.read_text()) if version.exists() else None
        self._binaries = find_binaries(self._bindir, major)
        if not self._user.reaches(self._binaries.folder / "postgres"):
            self._binaries = copy_binaries(self._binaries, self.folder)
        if major is None:
            make_cluster(self.folder, self.data, self._binaries, self._user)
        self._socket_folder = make_socket_folder(self.folder, self._user)
        write_settings(self.data, self._socket_folder, self._settings, self._user)

    def _ensure_running(self, deadline: float) -> None:
        """Return once the server takes connections, having started it if need be."""
        orphans_until = time.monotonic() + ORPHAN_SECONDS
        while (state := self._state()) != _READY:
            if time.monotonic() > deadline:
                raise Unavailable(f"the embedded PostgreSQL in {self.folder} did not start in time")
            if state == _DOWN:
                remove_stale_locks(self.data, self._socket_folder)
                self._start_server(deadline, orphans_until)
            else:  # starting up, in recovery or shutting down: somebody else started or stopped it and was killed
                time.sleep(0.1)

    def _state(self) -> int:
        command: list[str | Path] = [
            self._binaries.folder / "pg_isready",
            "-q",
            "-t",
            "3",
            "-h",
            self._socket_folder,
            "-d",
            "postgres",
        ]
        return subprocess.run(command, stdin=subprocess.DEVNULL).returncode

    def _start_server(self, deadline: float, orphans_until: float) -> None:
        seconds = max(1, int(deadline - time.monotonic()))
        try:
            self._pg_ctl("start", "-w", "-t", str(seconds), "-l", str(self.data / "server.log"))
        except Unavailable as error:
            # A back end of a killed server notices that it is an orphan when it next waits for something.
            if "pre-existing shared memory block" not in error.message or time.monotonic() > orphans_until:
                raise
            time.sleep(0.5)

    def _pg_ctl(self, action: str, *options: str) -> None:
        log_file = self.data / "server.log"
        read_from = log_file.stat().st_size if log_file.exists() else 0
        with tempfile.TemporaryFile() as output:  # a pipe would be held open by the server
            if self._user.run(self._binaries.folder / "pg_ctl", "-D", self.data, action, *options, output=output):
                said = log_file.read_bytes()[read_from:][-2000:].decode(errors="replace") if log_file.exists() else ""
                raise Unavailable(f"pg_ctl {action} failed: {text_of(output)} {said}".strip())

    def _ensure_database(self) -> None:
        try:
            with psycopg.connect(self._dsn_of("postgres"), autocommit=True, connect_timeout=30) as connection:
                if not connection.execute("select 1 from pg_database where datname = %s", [self._database]).fetchone():
                    connection.execute(sql.SQL("create database {}").format(sql.Identifier(self._database)))
        except psycopg.Error as error:
            raise Unavailable(f"the embedded PostgreSQL in {self.folder} does not let us in: {error}") from error

    def _dsn_of(self, database: str) -> str:
        return f"postgresql://{ROLE}@/{database}?host={quote(str(self._socket_folder), safe='')}"

    @contextmanager
    def _mutex(self, deadline: float) -> Iterator[None]:
        """One process at a time makes, starts or stops the server. Raises Unavailable when `deadline` passes."""
        with (self.folder / "start.lock").open("a") as file:
            while not _lock_nowait(file):
                if time.monotonic() > deadline:
                    raise Unavailable(f"another process has been starting the PostgreSQL in {self.folder} for too long")
                time.sleep(0.02)
            yield

    def _leave(self) -> None:
        if self._share is not None:
            self._share.close()
        self._share = None


_READY: Final = 0  # pg_isready's exit codes; 1 is "rejecting connections (for example during startup)"
_DOWN: Final = 2


@contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise ConfigError(f"the embedded PostgreSQL needs {folder} for itself: {error}") from error
    except OSError as error:
        raise Unavailable(f"the embedded PostgreSQL in {folder} cannot run: {error}") from error


def _open_locked(path: Path, operation: int) -> IO[str]:
    file = path.open("a")
    fcntl.flock(file, operation | fcntl.LOCK_NB)  # cannot block: an exclusive lock is taken under the mutex only
    return file


def _lock_nowait(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
