"""Into the catalogue: whatever is waiting goes into one statement, so that many chunks and small files share one commit."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random

import attrs
import structlog
import trio

from fsn.coord.catalog import ChunkRecord, PlacedReplica, WholeFile
from fsn.coord.database.base import Connection
from fsn.coord.database.chunks import ChunkKey, fingerprints, insert_recorded, queue_deletions
from fsn.coord.database.pool import Pool
from fsn.coord.database.small_charges import charge_files
from fsn.coord.metrics import CoordinatorMetrics
from fsn.core.errors import Conflict, FsnError, InsufficientCredits, Unavailable
from fsn.core.ids import FileId
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell

__all__ = ["Recorder"]

log = structlog.get_logger()

BATCH_CHUNKS = 512
"""Entries of one statement: 512 chunks with three replicas each are 2048 rows, about 50 ms of PostgreSQL."""
LAST_SECONDS = 2.0
"""How long a recorder that is stopped may take to write down what is to be deleted."""
SLOTS = 16384


@attrs.define(eq=False)
class _Waiting:
    """One chunk of a file that is coming in, or a whole small file."""

    chunks: tuple[ChunkRecord, ...]
    whole: WholeFile | None = None
    done: trio.Event = attrs.field(factory=trio.Event)
    failure: FsnError | None = None

    @property
    def replicas(self) -> list[PlacedReplica]:
        return [replica for chunk in self.chunks for replica in chunk.replicas]


class Recorder:
    """The one writer of chunk rows in this process. `run` must be running for the other methods to return."""

    def __init__(
        self, db: Pool, *, clock: Clock, chance: Random, deletions_due: Bell, metrics: CoordinatorMetrics | None = None
    ) -> None:
        self._db = db
        self._clock = clock
        self._chance = chance
        self._deletions_due = deletions_due
        self._metrics = metrics or CoordinatorMetrics()
        self._waiting: list[_Waiting] = []
        self._unwanted: list[PlacedReplica] = []
        self._work = trio.Event()

    @property
    def waiting(self) -> int:
        """How many chunks and whole files wait for the next transaction."""
        return len(self._waiting)

    async def record(self, record: ChunkRecord) -> None:
        """Return when the chunk and its replicas are committed; or the same chunk with the same bytes was there already.

        Raises Conflict (`chunk_differs`) when other bytes are there, Conflict (`upload_closed`) when the upload has ended, Unavailable
        when the database is away. In all cases in which the replicas are not recorded they are queued for deletion. Cancelled, the
        chunk may be recorded all the same.
        """
        await self._wait(_Waiting((record,)))

    async def record_whole(self, whole: WholeFile) -> None:
        """Return when the file is in the catalogue, ready, with all its chunks, and its cost is charged. Raises InsufficientCredits,
        Unavailable; its replicas are queued for deletion then. Cancelled, it may be recorded all the same."""
        await self._wait(_Waiting(whole.chunks, whole))

    def discard(self, replicas: Sequence[PlacedReplica]) -> None:
        """Queue replicas for deletion that never became part of a chunk; does not wait. A crash before it is written leaves
        garbage that nobody counts on."""
        self._unwanted.extend(replicas)
        self._work.set()

    async def run(self) -> None:
        """Write batch after batch, until cancelled.

        Cancelled (or ended by a bug), who still waits gets Unavailable, and what is to be deleted is written down within a moment.
        """
        try:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                while self._waiting or self._unwanted:
                    await self._write_batch()
        finally:
            self._abandon(self._waiting)
            with trio.CancelScope(shield=True), trio.move_on_after(LAST_SECONDS), suppress(Unavailable):
                await self._queue_deletions(self._unwanted)

    async def _wait(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._work.set()
        await waiting.done.wait()
        if waiting.failure is not None:
            raise waiting.failure

    async def _write_batch(self) -> None:
        batch, self._waiting = self._waiting[:BATCH_CHUNKS], self._waiting[BATCH_CHUNKS:]
        unwanted, self._unwanted = self._unwanted, []
        try:
            with self._metrics.recording(len(batch)):
                unwanted += await self._write(batch)
            for waiting in batch:
                waiting.done.set()
            await self._queue_deletions(unwanted)
        except Unavailable as error:
            log.warning("recording_failed", entries=len(batch), reason=error.message)
            self._fail(batch, unwanted, error)
            await trio.sleep(0.2)  # the database is away: do not spin
        except BaseException:
            self._abandon(batch)
            self._unwanted += unwanted
            raise

    def _abandon(self, waiting: Sequence[_Waiting]) -> None:
        """What has no outcome yet gets none: a write that was cut off may or may not have been committed."""
        lost = [each for each in waiting if not each.done.is_set()]
        self._unwanted += [replica for each in lost for replica in each.replicas]
        for each in lost:
            each.failure = Unavailable("the coordinator is stopping: whether the chunk is stored is not known")
            each.done.set()

    def _fail(self, batch: Sequence[_Waiting], unwanted: Sequence[PlacedReplica], error: Unavailable) -> None:
        """Nothing was written, as far as we know. What was stored becomes garbage: unless the commit did happen (an outage in its
        middle), which the deletion, guarded by the replica rows, finds out."""
        lost = [waiting for waiting in batch if not waiting.done.is_set()]
        for waiting in lost:
            waiting.failure = Unavailable(error.message)
            waiting.done.set()
        self._unwanted = [*unwanted, *self._unwanted, *(replica for waiting in lost for replica in waiting.replicas)]
        self._work.set()

    async def _queue_deletions(self, unwanted: Sequence[PlacedReplica]) -> None:
        if unwanted:
            await queue_deletions(self._db, unwanted, self._clock())
            self._deletions_due.ring()

    async def _write(self, batch: Sequence[_Waiting]) -> list[PlacedReplica]:
        """Insert what is new; those who came second are told how they stand. Returns the replicas of these."""
        if not batch:
            return []
        winners, losers = _first_of_each(batch)
        winners.sort(key=_keys)  # two coordinators with the same chunks in other orders would wait for each other
        inserted, refused = await self._insert(winners)
        losers += [waiting for waiting in winners if waiting.whole is None and _key(waiting) not in inserted]
        if losers:
            await self._judge(losers)
        for waiting in winners:
            if waiting.whole is not None and (reason := refused.get(waiting.whole.file.id)):
                waiting.failure = reason
                losers.append(waiting)
        return [replica for waiting in losers for replica in waiting.replicas]

    async def _insert(self, new: Sequence[_Waiting]) -> tuple[set[ChunkKey], Mapping[FileId, InsufficientCredits]]:
        """The keys of the chunks inserted, and the files that could not be charged: of these nothing was. In one transaction; when nothing
        costs anything, in one statement."""
        paid = [waiting.whole for waiting in new if waiting.whole is not None and waiting.whole.cost]
        if not paid:
            async with self._db.connection() as connection:
                return await self._insert_all(connection, new), {}
        async with self._db.transaction() as connection:
            # Files that are coming in are locked before accounts are, as everywhere.
            inserted = await self._insert_all(connection, [waiting for waiting in new if waiting.whole is None])
            refused = await charge_files(connection, paid, self._clock())
            wholes = [waiting for waiting in new if waiting.whole is not None and waiting.whole.file.id not in refused]
            return inserted | await self._insert_all(connection, wholes), refused

    async def _insert_all(self, connection: Connection, new: Sequence[_Waiting]) -> set[ChunkKey]:
        if not new:
            return set()
        chunks = [chunk for waiting in new for chunk in waiting.chunks]
        slots = [self._chance.randrange(SLOTS) for chunk in chunks for _ in chunk.replicas]
        wholes = [waiting.whole for waiting in new if waiting.whole is not None]
        return await insert_recorded(connection, chunks, wholes, slots, self._clock())

    async def _judge(self, losers: Sequence[_Waiting]) -> None:
        marks = await fingerprints(self._db, [_key(waiting) for waiting in losers])
        for waiting in losers:
            waiting.failure = _verdict(waiting.chunks[0], marks.get(_key(waiting)))


def _key(waiting: _Waiting) -> ChunkKey:
    return (waiting.chunks[0].file, waiting.chunks[0].index)


def _keys(waiting: _Waiting) -> list[ChunkKey]:
    return [(chunk.file, chunk.index) for chunk in waiting.chunks]


def _first_of_each(batch: Sequence[_Waiting]) -> tuple[list[_Waiting], list[_Waiting]]:
    """Two clients may send the same chunk at once: the first of each, and the rest. A whole file is its own."""
    seen: set[ChunkKey] = set()
    first: list[_Waiting] = []
    rest: list[_Waiting] = []
    for waiting in batch:
        is_again = waiting.whole is None and _key(waiting) in seen
        (rest if is_again else first).append(waiting)
        seen.update(_keys(waiting))
    return first, rest


def _verdict(record: ChunkRecord, fingerprint: bytes | None) -> FsnError | None:
    """How a chunk stands that was not inserted."""
    if fingerprint is None:
        return Conflict("the upload has ended: no more chunks are taken", code="upload_closed")
    if fingerprint != record.fingerprint:
        return Conflict(f"chunk {record.index} is there already, with other bytes", code="chunk_differs")
    return None
