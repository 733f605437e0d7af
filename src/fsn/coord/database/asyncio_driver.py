"""`AsyncioConnection`: psycopg's asyncio connection, run by trio-asyncio; by nothing but public names of psycopg.

For versions of psycopg that the native driver was not made for, at four to five times its CPU: docs/decisions/0003. The one module that
may import asyncio. Each operation of psycopg is an asyncio task; a trio task waits for it.

Cancelling: asyncio cancels by edge (once, and the clean-up may wait), trio by level. A trio task that is cancelled cancels the asyncio
task, once. psycopg then asks the server to stop and reads to the end of the query; the trio task waits for that, shielded. psycopg would
wait for a server that is silent for ever: after `CLEANUP_SECONDS` it is cancelled again, which ends it at once, and the connection is
dropped. What ends a transaction is not cancelled at all before these seconds are over.

Two traps. A descriptor must not be closed while trio-asyncio watches it: a connection is closed when no task runs on it any more. And
psycopg takes `get_running_loop` from asyncio when it is imported, trio-asyncio replaces it when it is: whoever imports psycopg first
gets "no running event loop". To be independent of that, each step of a task is told its loop as asyncio's own loops do it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Generic, Self, TypeVar

import psycopg
import trio
import trio_asyncio
from psycopg import errors, pq
from psycopg.rows import AsyncRowFactory, TupleRow, tuple_row

from fsn.coord.database.base import CLEANUP_SECONDS, Connect, Parameters, Query
from fsn.runtime.groups import sole_error

__all__ = ["AsyncioConnection", "open_asyncio_driver"]

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]


@asynccontextmanager
async def open_asyncio_driver() -> AsyncIterator[Connect]:
    """An asyncio loop beside the block, and what opens connections on it. The loop lives until the block ends, though it is cancelled:
    clean-up in a shield may need the database."""
    with sole_error():
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            loop = await nursery.start(_run_loop, scope)
            try:
                yield partial(_connect, loop)
            finally:
                scope.cancel()


async def _run_loop(
    scope: trio.CancelScope, task_status: trio.TaskStatus[asyncio.AbstractEventLoop] = trio.TASK_STATUS_IGNORED
) -> None:
    with scope:
        async with trio_asyncio.open_loop() as loop:
            task_status.started(loop)
            scope.shield = True  # not before: a start that is cancelled must end
            await trio.sleep_forever()


async def _connect(
    loop: asyncio.AbstractEventLoop, conninfo: str, /, *, autocommit: bool, prepare_threshold: int | None
) -> "AsyncioConnection":
    connect = psycopg.AsyncConnection[TupleRow].connect
    operation = _Operation(loop, partial(connect, conninfo, autocommit=autocommit, prepare_threshold=prepare_threshold))
    try:
        await operation.wait()
    except BaseException:
        await operation.stop()
        if operation.has_result:
            operation.result().pgconn.finish()
        raise
    return AsyncioConnection(loop, operation.result())


class AsyncioConnection:
    """See `base.Connection`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: psycopg.AsyncConnection[TupleRow]) -> None:
        self._loop = loop
        self._connection = connection
        self._running: set[_Operation[Any]] = set()
        self._blocks = 0
        self._is_abandoned = False

    async def execute(self, query: Query, params: Parameters | None = None, /) -> "AsyncioCursor":
        return await self.cursor(row_factory=tuple_row).execute(query, params)

    def cursor(self, *, row_factory: AsyncRowFactory[Any]) -> "AsyncioCursor":
        return AsyncioCursor(self, self._connection.cursor(row_factory=row_factory))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        block = self._connection.transaction()
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.run_to_the_end(block.__aenter__)
        self._blocks += 1
        try:
            yield
        except BaseException as error:
            with suppress(errors.Error):  # a ROLLBACK that fails costs the connection, the error at hand is what counts
                await self.run_to_the_end(partial(block.__aexit__, type(error), error, error.__traceback__))
            raise
        else:
            await self.run_to_the_end(partial(block.__aexit__, None, None, None))
        finally:
            self._blocks -= 1

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def closed(self) -> bool:
        return self._is_abandoned or self._connection.closed

    @property
    def is_clean(self) -> bool:
        info = self._connection.info
        return (
            not self.closed
            and not self._running
            and not self._blocks
            and info.transaction_status == pq.TransactionStatus.IDLE
            and info.pipeline_status == pq.PipelineStatus.OFF
        )

    async def reset(self) -> None:
        if self.is_clean or self.closed or self._running or self._blocks:
            return
        with suppress(errors.Error):
            await self.run_to_the_end(self._connection.rollback)

    def abandon(self) -> None:
        self._is_abandoned = True
        for operation in self._running:
            operation.interrupt()
        self._close_if_abandoned()

    async def run(self, work: Work[T]) -> T:
        """Run one of psycopg's coroutines; when cancelled, until the server has stopped working on it, or the connection is dropped."""
        await trio.lowlevel.checkpoint_if_cancelled()  # do not send what is already cancelled
        with self._running_operation(work) as operation:
            try:
                await operation.wait()
            except BaseException:
                await operation.stop()
                if self._connection.info.transaction_status == pq.TransactionStatus.ACTIVE:
                    self.abandon()
                raise
        return self._result(operation)

    async def run_to_the_end(self, work: Work[T]) -> T:
        """Run it to its end though cancelled, `CLEANUP_SECONDS` longer at most; then the connection is dropped (OperationalError)."""
        with self._running_operation(work) as operation:
            try:
                await operation.wait()
            except trio.Cancelled:
                # psycopg's clean-up must run. Nothing is lost, as trio raises it again at the caller's next checkpoint.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANUP_SECONDS):
                    await operation.wait()
                if not operation.is_done:
                    self.abandon()
                    await operation.stop(patience_seconds=0)
        return self._result(operation)

    @contextmanager
    def _running_operation(self, work: Work[T]) -> "Iterator[_Operation[T]]":
        operation = _Operation(self._loop, work)
        self._running.add(operation)
        try:
            yield operation
        finally:
            self._running.discard(operation)
            self._close_if_abandoned()

    def _close_if_abandoned(self) -> None:
        if self._is_abandoned and not self._running:
            self._connection.pgconn.finish()

    def _result(self, operation: "_Operation[T]") -> T:
        try:
            return operation.result()
        except asyncio.CancelledError:
            raise errors.OperationalError("the connection was closed before the answer came") from None


class AsyncioCursor:
    """See `base.Cursor`. The rows are read with the statement, in one go: each crossing between the loops costs as much as the query."""

    def __init__(self, connection: AsyncioConnection, cursor: psycopg.AsyncCursor[Any]) -> None:
        self._connection = connection
        self._cursor = cursor
        self._rows: Iterator[Any] | None = None

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    async def execute(self, query: Query, params: Parameters | None = None, /) -> Self:
        self._rows = await self._connection.run(partial(self._fetch, query, params))
        return self

    async def fetchone(self) -> Any:
        return next(self._left(), None)

    async def fetchall(self) -> list[Any]:
        return list(self._left())

    async def _fetch(self, query: Query, params: Parameters | None) -> Iterator[Any] | None:
        """On asyncio's side."""
        await self._cursor.execute(query, params)
        return iter(await self._cursor.fetchall()) if self._cursor.description is not None else None

    def _left(self) -> Iterator[Any]:
        if self._rows is None:
            raise psycopg.ProgrammingError("the last operation didn't produce records")
        return self._rows


class _Operation(Generic[T]):
    """An asyncio task that runs a coroutine of psycopg, and what a trio task needs to wait for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Work[T]) -> None:
        self._loop = loop
        self._done = trio.Event()
        self._reminders: list[asyncio.TimerHandle] = []
        self._task: asyncio.Task[T] = loop.create_task(_ToldItsLoop(loop, work()))
        self._task.add_done_callback(self._end)

    async def wait(self) -> None:
        """Until it has ended. Cancelling this does nothing to it."""
        await self._done.wait()

    async def stop(self, patience_seconds: float = CLEANUP_SECONDS) -> None:
        """Cancel it, and wait until it has ended; shielded."""
        self.interrupt(patience_seconds)
        with trio.CancelScope(shield=True):
            await self._done.wait()

    def interrupt(self, patience_seconds: float = CLEANUP_SECONDS) -> None:
        """Cancel it: psycopg asks the server to stop, and waits for that. Not longer than this: then cancel it again."""
        self._task.cancel()
        self._reminders.append(self._loop.call_later(patience_seconds, self._task.cancel))

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    @property
    def has_result(self) -> bool:
        """Whether it has ended well."""
        return self._task.done() and not self._task.cancelled() and self._task.exception() is None

    def result(self) -> T:
        """What came of it. Raises its error; CancelledError when it was interrupted."""
        return self._task.result()

    def _end(self, task: asyncio.Task[T]) -> None:
        # Looked at in any case: an error that nobody waits for any more would end the loop, and one that stays in its task would keep,
        # in a cycle, what psycopg had half opened.
        with suppress(asyncio.CancelledError):
            task.exception()
        for reminder in self._reminders:
            reminder.cancel()
        self._done.set()


class _ToldItsLoop(Coroutine[Any, Any, T]):
    """A coroutine that finds `loop` running in each of its steps, whichever of psycopg and trio-asyncio was imported first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, inner: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._inner = inner

    def send(self, value: Any) -> Any:
        return self._step(self._inner.send, value)

    def throw(self, *error: Any) -> Any:
        try:
            return self._step(self._inner.throw, *error)
        finally:
            del error  # it holds this frame: no cycle here either

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._inner.__await__()

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        asyncio._set_running_loop(self._loop)
        try:
            return step(*args)
        finally:
            asyncio._set_running_loop(None)
            del args
