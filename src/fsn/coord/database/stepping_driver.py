"""A third driver, for simulations: while a statement runs, nothing else does.

A simulation in virtual time must not depend on how fast the server is. So a statement keeps the whole process until its answer is there:
to the simulation it takes no time at all, and statements run one after the other, in an order that the tasks decide. Everything
else (transactions, cursors, what cancelling means) is the native driver's.

One thing lets others run in between: a statement that waits for a lock which another connection of ours holds. It is put aside until a
transaction has ended, and goes on then, in the order in which PostgreSQL lets it. A deadlock is broken by PostgreSQL, after
`deadlock_timeout`, for which a virtual clock must stand still: `is_waiting_for_server`.
"""

import select
import time
from typing import Any, Final, Self, TypeVar, cast

import psycopg
import trio
from psycopg import errors, pq
from psycopg.abc import ConnDict, PQGen, PQGenConn
from psycopg.conninfo import conninfo_attempts, make_conninfo
from psycopg.waiting import Ready, Wait

from fsn.coord.database.base import Connection
from fsn.coord.database.driver import TrioConnection

__all__ = ["SteppingDriver"]

T = TypeVar("T")

PATIENCE_SECONDS: Final = 0.02
"""A statement without an answer for so long may be waiting for a lock: the server is asked."""
SERVER_SECONDS: Final = 60.0
"""A server that has not answered after so long, and is not waiting for us, counts as gone."""
DEADLOCK_SECONDS: Final = 2.0
"""PostgreSQL finds a deadlock after one second, by default."""
GONE_SECONDS: Final = 10.0
_BLOCKED: Final = "select cardinality(pg_blocking_pids(%s)) > 0"
_ALIVE: Final = "select exists (select from pg_stat_activity where pid = %s)"


class SteppingDriver:
    """Opens connections to one database for `Pool`s; all pools of a simulation share one. Close it when they are closed."""

    def __init__(self, dsn: str) -> None:
        self.statements = 0
        """How many operations were run so far."""
        self.waits = 0
        """How often one waited for a lock."""
        self._watcher = psycopg.connect(dsn, autocommit=True)
        self._parked: list[_Parked] = []
        self._is_settled = True

    def close(self) -> None:
        """Close its own connection; harmless when closed."""
        self._watcher.close()

    def connector(self) -> "Connector":
        """A way to open connections that can be cut all at once: one for each simulated process."""
        return Connector(self)

    @property
    def is_waiting_for_server(self) -> bool:
        """Whether a statement waits for a lock and PostgreSQL may yet find that it waits in vain. Blocks until that is known."""
        if not self._parked or self._is_settled:
            return False
        descriptors = select.poll()
        for parked in self._parked:
            descriptors.register(parked.fd, select.POLLIN)
        if descriptors.poll(DEADLOCK_SECONDS * 1000):
            self.settle()
            return True
        self._is_settled = True  # who holds the locks waits for something else: let time go on
        return False

    def settle(self) -> None:
        """A transaction has ended: wait until each statement put aside has its answer or is known to wait on."""
        while answered := [each for each in self._parked if self._has_answer(each)]:
            for parked in answered:  # what it held may be what the next one waits for
                self._parked.remove(parked)
                parked.may_go_on.set()

    async def park(self, pid: int, fd: int) -> None:
        """Let others run until the statement on this connection has its answer."""
        self.waits += 1
        parked = _Parked(pid, fd)
        self._parked.append(parked)
        self._is_settled = False
        try:
            await parked.may_go_on.wait()
        finally:
            if parked in self._parked:  # cancelled
                self._parked.remove(parked)

    def step(self, pid: int, fd: int, wanted: int) -> int:
        """Wait, with everything else, until `fd` is ready for `wanted`; 0 when the statement waits for a lock of ours."""
        return self._wait_answer(pid, fd, wanted) or 0

    def wait_gone(self, pid: int) -> None:
        """Wait until a back end whose connection was closed has let go of everything."""
        until = time.monotonic() + GONE_SECONDS
        while time.monotonic() < until and self._ask(_ALIVE, pid):
            time.sleep(0.001)

    def _has_answer(self, parked: "_Parked") -> bool:
        return self._wait_answer(parked.pid, parked.fd, int(Wait.R)) is not None

    def _wait_answer(self, pid: int, fd: int, wanted: int) -> int | None:
        until = time.monotonic() + SERVER_SECONDS
        while time.monotonic() < until:
            if ready := _poll(fd, wanted, PATIENCE_SECONDS):
                return ready
            if self._ask(_BLOCKED, pid):
                return None
        raise errors.OperationalError(f"the server has not answered within {SERVER_SECONDS:g} s")

    def _ask(self, question: str, pid: int) -> bool:
        row = self._watcher.execute(cast(Any, question), [pid]).fetchone()
        return bool(row and row[0])


class _Parked:
    """A statement that waits for a lock."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.may_go_on = trio.Event()


class Connector:
    """The connections of one simulated process; a `base.Connect`."""

    def __init__(self, driver: SteppingDriver) -> None:
        self._driver = driver
        self._connections: list[SteppingConnection] = []
        self.is_cut = False
        """Whether the database cannot be reached."""

    async def __call__(self, conninfo: str, /, *, autocommit: bool, prepare_threshold: int | None) -> Connection:
        """See `base.Connect`."""
        await trio.lowlevel.checkpoint()
        if self.is_cut:
            raise errors.OperationalError("the database cannot be reached")
        connection = await SteppingConnection.connect(
            conninfo, autocommit=autocommit, prepare_threshold=prepare_threshold
        )
        connection.driver = self._driver
        self._connections = [each for each in self._connections if not each.closed] + [connection]
        return connection

    def cut(self) -> None:
        """As the end of the process would: all connections close, what they had begun is rolled back. No new ones until `mend`."""
        self.is_cut = True
        for connection in self._connections:
            connection.abandon()
        self._driver.settle()

    def mend(self) -> None:
        """The database can be reached again."""
        self.is_cut = False


class SteppingConnection(TrioConnection):
    """A connection whose statements take no turn of trio's."""

    driver: SteppingDriver | None = None

    @classmethod
    async def _connect_first(cls, params: ConnDict) -> Self:
        last: errors.Error = errors.OperationalError("no host to connect to")
        for attempt in conninfo_attempts(params):
            try:
                return _run_connecting(cls._connect_gen(make_conninfo("", **attempt)))
            except errors.Error as error:
                last = error
        raise last.with_traceback(None)

    async def _drive(self, gen: PQGen[T], *, started: bool = False) -> T:
        driver, pid, fd = self.driver, self.pgconn.backend_pid, self.pgconn.socket
        if driver is None:  # while it is opened
            return _run(gen, fd)
        driver.statements += 1
        await trio.lowlevel.cancel_shielded_checkpoint()  # as over a socket, others may come first
        try:
            wanted = gen.send(Ready.NONE) if started else next(gen)
            while True:
                while not (ready := driver.step(pid, fd, wanted)):
                    await driver.park(pid, fd)
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            if self.pgconn.transaction_status == pq.TransactionStatus.IDLE:
                driver.settle()

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """See `TrioConnection`."""
        if self._should_cancel():
            _run_connecting(self._cancel_gen())

    def abandon(self) -> None:
        """See `TrioConnection`; on return the server has rolled back what was open."""
        if self.closed:
            return
        pid = self.pgconn.backend_pid
        super().abandon()
        if self.driver is not None:
            self.driver.wait_gone(pid)


def _run(gen: PQGen[T], fd: int) -> T:
    try:
        wanted = next(gen)
        while True:
            wanted = gen.send(_poll(fd, wanted, SERVER_SECONDS))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _run_connecting(gen: PQGenConn[T]) -> T:
    try:
        fd, wanted = next(gen)
        while True:
            fd, wanted = gen.send(_poll(fd, wanted, SERVER_SECONDS))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _poll(fd: int, wanted: int, seconds: float) -> int:
    """Which of `wanted` (flags of `Wait`) `fd` is ready for (flags of `Ready`) within so many real seconds; 0 for none."""
    poll = select.poll()
    poll.register(fd, (select.POLLIN if wanted & Wait.R else 0) | (select.POLLOUT if wanted & Wait.W else 0))
    events = poll.poll(seconds * 1000)
    if not events:
        return 0
    mask = events[0][1]
    if mask & ~(select.POLLIN | select.POLLOUT):  # an error or a hang-up: libpq finds out which
        return wanted
    return (Ready.R if mask & select.POLLIN else 0) | (Ready.W if mask & select.POLLOUT else 0)
