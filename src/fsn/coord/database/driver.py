"""`TrioConnection`: psycopg's asynchronous connection, run by trio itself (no asyncio loop, no threads, no
trio-asyncio).

Measured beside trio-asyncio on PostgreSQL 18: 74-106 us of client CPU a SELECT instead of 356-526, and a query can be
cancelled (threads: 155-195 us, and it cannot). The price is that this module leans on private names of psycopg 3.3 (>=
3.3.6; 3.3.0 to 3.3.5 hang in `notifies(timeout=)`); all of them are named at import, so a release that moves one fails
loudly: docs/decisions/0003.

Cursors, transactions, pipelines, COPY, `stream` and `notifies` are psycopg's own: they only use `lock` and `wait()`.
What is replaced here is what asyncio does inside psycopg, and above all cancellation. asyncio cancels by edge (an
`__aexit__` can await as usual), trio by level (each await in a cancelled scope raises again), so psycopg's own clean-up
would never run. Hence:

* a query that is already cancelled is not sent;
* a cancelled `execute()` sends a cancel request and reads to the end of the query, shielded, `CLEANUP_SECONDS` at most:
  the connection stays good. Cancelled amid COPY, `stream()`, a pipeline or `executemany()`, the connection is dropped
  instead;
* what opens or ends something (BEGIN, COMMIT, ROLLBACK, SAVEPOINT, the end of a pipeline or COPY) runs to its end
  though cancelled, `CLEANUP_SECONDS` more at most. A COMMIT that takes longer raises OperationalError: its outcome is
  unknown.

Upstream: psycopg issue #29 "Trio support", open since 2021. One of psycopg's bugs shows through (3.3.9, on asyncio
too): after a finished `cursor.stream()` a `pipeline()` on the same connection raises InternalError, as libpq stays in
single-row mode until the next plain query.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Self, TypeVar

import psycopg
import trio
from psycopg import errors, pq
from psycopg._connection_base import BaseConnection
from psycopg._copy_base import BaseCopy
from psycopg._cursor_base import BaseCursor
from psycopg._pipeline_base import BasePipeline
from psycopg.abc import AdaptContext, ConnDict, ConnParam, PQGen
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict, make_conninfo, timeout_from_conninfo
from psycopg.generators import copy_end
from psycopg.rows import AsyncRowFactory, TupleRow
from psycopg.transaction import BaseTransaction

from fsn.coord.database.base import CLEANUP_SECONDS
from fsn.coord.database.waiting import drive, drive_connecting

__all__ = ["TrioConnection"]

T = TypeVar("T")

_RUN_TO_THE_END: Final = frozenset(
    generator.__qualname__
    for generator in (
        BaseTransaction._enter_gen,
        BaseTransaction._exit_gen,
        BasePipeline._exit_gen,
        BasePipeline._sync_gen,
        BaseCopy._end_copy_out_gen,
        copy_end,
        BaseConnection._commit_gen,
        BaseConnection._rollback_gen,
    )
)
_CAN_BE_DRAINED: Final = frozenset({BaseCursor._execute_gen.__qualname__})
# The other private names used below. Named here so that a psycopg without them fails at import, not in the middle of a
# cancellation.
_PRIVATE_NAMES: Final = (
    BaseConnection._connect_gen,
    BaseConnection._cancel_gen,
    BaseConnection._should_cancel,
    psycopg.AsyncConnection._try_cancel,
    psycopg.capabilities.has_cancel_safe,
    errors._WaitTimeout,
)


class TrioConnection(psycopg.AsyncConnection[TupleRow]):
    """One connection for one task at a time. Everything of `psycopg.AsyncConnection` but two-phase commit, on trio.

    Raises psycopg's errors untranslated; `Pool` translates them. `close` wakes a task that waits on the connection with
    OperationalError.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock = _Lock()  # type: ignore[assignment]  # asyncio's lock breaks as soon as it is contended

    @classmethod
    async def connect(  # type: ignore[override]  # the rarely used cursor_factory is left out
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        row_factory: AsyncRowFactory[TupleRow] | None = None,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect; with several hosts (or addresses of a host) to the first that answers.

        Each attempt has `connect_timeout` of the conninfo (seconds, libpq's rule: 2 at least, 130 when absent). Raises
        OperationalError of the last attempt. The lookup of host names runs in a thread, which cannot be cancelled.
        """
        params = conninfo_to_dict(conninfo, **kwargs)
        connection = await cls._connect_first(params)
        connection._autocommit = autocommit
        connection.prepare_threshold = prepare_threshold
        if row_factory is not None:
            connection.row_factory = row_factory
        if context is not None:
            connection._adapters = AdaptersMap(context.adapters)
        return connection

    @classmethod
    async def _connect_first(cls, params: ConnDict) -> Self:
        last: errors.Error = errors.OperationalError("no host to connect to")
        for attempt in await trio.to_thread.run_sync(conninfo_attempts, params):
            try:
                with trio.fail_after(timeout_from_conninfo(params)):
                    return await drive_connecting(cls._connect_gen(make_conninfo("", **attempt)))
            except trio.TooSlowError:
                last = errors.ConnectionTimeout("connection timeout expired")
            except errors.Error as error:
                last = error
        raise last.with_traceback(None)

    @property
    def is_clean(self) -> bool:
        """Whether the next user may have this connection: alive, idle, out of any transaction block and pipeline."""
        return (
            self.pgconn.status == pq.ConnStatus.OK
            and self.pgconn.transaction_status == pq.TransactionStatus.IDLE
            and self.pgconn.pipeline_status == pq.PipelineStatus.OFF
            and self._pipeline is None
            and not self._num_transactions
        )

    async def reset(self) -> None:
        """Roll back a transaction that was left open by hand.

        Harmless otherwise. Shielded; afterwards look at `is_clean`.
        """
        if self.is_clean or self._is_active or self._num_transactions or self._pipeline is not None:
            return
        with suppress(errors.Error):
            await self.rollback()  # one of the generators that run to their end though cancelled

    async def close(self) -> None:
        """Close at once; harmless when closed. A running statement may or may not be finished by the server."""
        self.abandon()

    def abandon(self) -> None:
        """`close` for those who cannot wait."""
        if not self.closed:
            with suppress(errors.Error, RuntimeError):
                trio.lowlevel.notify_closing(
                    self.pgconn.socket
                )  # wakes tasks that wait on it, before epoll loses the descriptor
        self._closed = True
        self.pgconn.finish()

    async def wait(self, gen: PQGen[T], interval: float = 0, timeout: float | None = None) -> T:
        """What every operation of psycopg goes through.

        Run `gen` to its end; the module docstring says what cancelling does.
        """
        if getattr(gen, "__qualname__", "") in _RUN_TO_THE_END:
            return await self._run_to_the_end(gen)
        await trio.lowlevel.checkpoint_if_cancelled()  # do not send what is already cancelled
        try:
            return await self._drive_within(gen, timeout)
        except BaseException as error:
            if not isinstance(error, Exception) and self._is_active:  # cancelled, or Ctrl-C
                await self._stop_query(gen)
            raise

    async def _run_to_the_end(self, gen: PQGen[T]) -> T:
        try:
            return await self._drive(gen)
        except trio.Cancelled:
            # The one place that catches it: level cancellation is turned into the edge that psycopg expects. Nothing is
            # lost, as trio raises it again at the caller's next checkpoint.
            with self._cleaning_up():
                return await self._drive(gen, started=True)

    async def _drive(self, gen: PQGen[T], *, started: bool = False) -> T:
        """Run `gen` on the connected socket."""
        return await drive(gen, self.pgconn.socket, started=started)

    async def _drive_within(self, gen: PQGen[T], timeout: float | None) -> T:
        if timeout is None:
            return await self._drive(gen)
        with trio.move_on_after(timeout):
            return await self._drive(gen)
        raise errors._WaitTimeout("wait timeout expired")  # psycopg's notifies() ends its loop by it

    async def _stop_query(self, gen: PQGen[Any]) -> None:
        """The task was interrupted while the server works.

        Make it stop, and read what it still sends, or drop the connection.
        """
        try:
            with self._cleaning_up():
                await self.cancel_safe(timeout=CLEANUP_SECONDS)
                if getattr(gen, "__qualname__", "") in _CAN_BE_DRAINED:
                    await self._drive(gen, started=True)
                else:
                    self.abandon()  # amid COPY, stream() or a pipeline there is no state to go on from
        except errors.QueryCanceled:
            pass  # as asked
        except (errors.Error, OSError):
            self.abandon()

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Ask the server to cancel what runs on this connection; whoever waits for the result gets QueryCanceled.

        Raises CancellationTimeout after `timeout` seconds. Before libpq 17 a thread does it, which cannot be cancelled.
        """
        if not self._should_cancel():
            return
        try:
            with trio.fail_after(timeout):
                if psycopg.capabilities.has_cancel_safe():
                    await drive_connecting(self._cancel_gen())
                else:
                    await trio.to_thread.run_sync(self.cancel)
        except trio.TooSlowError:
            raise errors.CancellationTimeout("cancellation timeout expired") from None

    async def _try_cancel(self, *, timeout: float = CLEANUP_SECONDS) -> None:
        with self._cleaning_up():  # psycopg calls it to clean up, in a scope that is cancelled already
            await super()._try_cancel(timeout=timeout)

    @property
    def _is_active(self) -> bool:
        return self.pgconn.status == pq.ConnStatus.OK and self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE

    @contextmanager
    def _cleaning_up(self) -> Iterator[None]:
        """Shield the block for `CLEANUP_SECONDS`.

        Without an answer by then the connection is dropped (OperationalError).
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANUP_SECONDS) as scope:
            yield
        if scope.cancelled_caught:
            self.abandon()
            raise errors.OperationalError("no answer from the server: connection dropped")


class _Lock:
    """A lock without a checkpoint while it is free; another task may release it (asynchronous generators do)."""

    def __init__(self) -> None:
        self._semaphore = trio.Semaphore(1, max_value=1)

    async def __aenter__(self) -> None:
        try:
            self._semaphore.acquire_nowait()
        except trio.WouldBlock:
            await self._semaphore.acquire()

    async def __aexit__(self, *exc: object) -> None:
        self._semaphore.release()
