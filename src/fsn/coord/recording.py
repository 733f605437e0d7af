"""Chunks into the catalogue: whatever is waiting goes into one transaction, so that many chunks share one commit."""

from collections.abc import Sequence
from random import Random

import attrs
import structlog
import trio

from fsn.coord.catalog import ChunkRecord, PlacedReplica
from fsn.coord.database.chunks import ChunkKey, fingerprints, insert_chunks, insert_replicas, queue_deletions
from fsn.coord.database.driver import TrioConnection
from fsn.coord.database.pool import Pool
from fsn.core.errors import Conflict, FsnError, Unavailable
from fsn.runtime.clock import Clock

__all__ = ["Recorder"]

log = structlog.get_logger()

BATCH_CHUNKS = 512
"""Chunks of one transaction: 512 chunks with three replicas each are 2048 rows, about 50 ms of PostgreSQL."""
SLOTS = 16384


@attrs.define(eq=False)
class _Waiting:
    record: ChunkRecord
    done: trio.Event = attrs.field(factory=trio.Event)
    failure: FsnError | None = None


class Recorder:
    """The one writer of chunk rows in this process. `run` must be running for the other methods to return."""

    def __init__(self, db: Pool, *, clock: Clock, chance: Random) -> None:
        self._db = db
        self._clock = clock
        self._chance = chance
        self._waiting: list[_Waiting] = []
        self._unwanted: list[PlacedReplica] = []
        self._work = trio.Event()

    async def record(self, record: ChunkRecord) -> None:
        """Return when the chunk and its replicas are committed; or the same chunk with the same bytes was there already.

        Raises Conflict (`chunk_differs`) when other bytes are there, Conflict (`upload_closed`) when the upload has ended, Unavailable
        when the database is away. In all cases in which the replicas are not recorded they are queued for deletion. Cancelled, the
        chunk may be recorded all the same.
        """
        waiting = _Waiting(record)
        self._waiting.append(waiting)
        self._work.set()
        await waiting.done.wait()
        if waiting.failure is not None:
            raise waiting.failure

    def discard(self, replicas: Sequence[PlacedReplica]) -> None:
        """Queue replicas for deletion that never became part of a chunk; does not wait. A crash before it is written leaves
        garbage that nobody counts on."""
        self._unwanted.extend(replicas)
        self._work.set()

    async def run(self) -> None:
        """Write batch after batch, until cancelled."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._waiting or self._unwanted:
                await self._write_batch()

    async def _write_batch(self) -> None:
        batch, self._waiting = self._waiting[:BATCH_CHUNKS], self._waiting[BATCH_CHUNKS:]
        unwanted, self._unwanted = self._unwanted, []
        try:
            await self._write(batch, unwanted)
        except Unavailable as error:
            log.warning("recording_failed", chunks=len(batch), reason=error.message)
            self._fail(batch, unwanted, error)
            await trio.sleep(0.2)  # the database is away: do not spin
        finally:
            for waiting in batch:
                waiting.done.set()

    def _fail(self, batch: Sequence[_Waiting], unwanted: Sequence[PlacedReplica], error: Unavailable) -> None:
        """Nothing was written, as far as we know. What was stored becomes garbage: unless the commit did happen (an outage in its
        middle), which the deletion, guarded by the replica rows, finds out."""
        for waiting in batch:
            waiting.failure = Unavailable(error.message)
        self._unwanted = [*unwanted, *(replica for waiting in batch for replica in waiting.record.replicas)]
        self._work.set()

    async def _write(self, batch: Sequence[_Waiting], unwanted: list[PlacedReplica]) -> None:
        async with self._db.transaction() as connection:
            losers = await self._insert(connection, batch)
            unwanted.extend(replica for waiting in losers for replica in waiting.record.replicas)
            if unwanted:
                await queue_deletions(connection, unwanted, self._clock())

    async def _insert(self, connection: TrioConnection, batch: Sequence[_Waiting]) -> list[_Waiting]:
        """Insert what is new; those who came second are told how they stand, and returned."""
        if not batch:
            return []
        winners, losers = _first_of_each(batch)
        inserted = await insert_chunks(connection, [waiting.record for waiting in winners])
        losers += [waiting for waiting in winners if _key(waiting) not in inserted]
        winners = [waiting for waiting in winners if _key(waiting) in inserted]
        records = [waiting.record for waiting in winners]
        slots = [self._chance.randrange(SLOTS) for record in records for _ in record.replicas]
        await insert_replicas(connection, records, slots, self._clock())
        if losers:
            marks = await fingerprints(connection, [_key(waiting) for waiting in losers])
            for waiting in losers:
                waiting.failure = _verdict(waiting.record, marks.get(_key(waiting)))
        return losers


def _key(waiting: _Waiting) -> ChunkKey:
    return (waiting.record.file, waiting.record.index)


def _first_of_each(batch: Sequence[_Waiting]) -> tuple[list[_Waiting], list[_Waiting]]:
    """Two clients may send the same chunk at once: the first of each, and the rest."""
    first: dict[ChunkKey, _Waiting] = {}
    rest = [waiting for waiting in batch if first.setdefault(_key(waiting), waiting) is not waiting]
    return list(first.values()), rest


def _verdict(record: ChunkRecord, fingerprint: bytes | None) -> FsnError | None:
    """How a chunk stands that was not inserted."""
    if fingerprint is None:
        return Conflict("the upload has ended: no more chunks are taken", code="upload_closed")
    if fingerprint != record.fingerprint:
        return Conflict(f"chunk {record.index} is there already, with other bytes", code="chunk_differs")
    return None
