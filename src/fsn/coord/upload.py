"""Uploads: begun, filled chunk by chunk in any order, completed or dropped; or the whole story in one stream."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import attrs
import structlog
import trio

from fsn.coord.catalog import ChunkRecord, StoredFile, Upload
from fsn.coord.config import CreditsConfig, UploadConfig
from fsn.coord.database import chunks as chunk_table
from fsn.coord.database import files as file_table
from fsn.coord.database import ledger
from fsn.coord.database.driver import TrioConnection
from fsn.coord.database.pool import Pool
from fsn.coord.keyring import Keyring
from fsn.coord.membership import Membership
from fsn.coord.recording import Recorder
from fsn.coord.replication import Replicator
from fsn.core.chunking import CHUNK_BYTES, MAX_FILE_BYTES, Chunker
from fsn.core.errors import Conflict, InsufficientCredits, Invalid, NotFound, TooLarge
from fsn.core.ids import FileId, UploadId, UserId, chunk_id
from fsn.core.keys import FileKey
from fsn.core.names import check_filename
from fsn.core.sealing import fingerprint
from fsn.core.tariff import storage_cost
from fsn.core.units import MicroCredits, format_credits
from fsn.runtime.clock import Clock
from fsn.runtime.groups import sole_error
from fsn.runtime.supervise import Bell
from fsn.runtime.window import Window

__all__ = ["MOST_REPLICAS", "UploadProgress", "Uploads"]

log = structlog.get_logger()

MOST_REPLICAS = 10
SHOWN_MISSING = 100
"""Missing indexes that an error or an answer names at most."""
SHOWN_RANGES = 10_000
ABORTING_SECONDS = 10.0


@attrs.frozen
class UploadProgress:
    """How far an upload is. `received` are the ranges (first, last) of chunks that are in, at most 10,000 of them."""

    upload: Upload
    received: Sequence[tuple[int, int]]


class Uploads:
    """The upload story. Every method raises NotFound for what is not the user's own."""

    def __init__(
        self,
        db: Pool,
        membership: Membership,
        replicator: Replicator,
        recorder: Recorder,
        keyring: Keyring,
        *,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        deletions_due: Bell,
        config: UploadConfig,
        credits: CreditsConfig,
    ) -> None:
        self._db = db
        self._membership = membership
        self._replicator = replicator
        self._recorder = recorder
        self._keyring = keyring
        self._clock = clock
        self._random_bytes = random_bytes
        self._deletions_due = deletions_due
        self._config = config
        self._credits = credits
        self._window = Window(config.total_window_bytes)

    # -- in three steps

    async def initiate(self, user: UserId, filename: str, size_bytes: int, replicas: int | None) -> Upload:
        """Begin an upload of `size_bytes`. Raises Invalid, TooLarge, TooFewNodes, InsufficientCredits; nothing is kept then."""
        self._check_size(size_bytes)
        if self.cost(size_bytes, replicas) > await ledger.balance(self._db, "user", user):
            raise InsufficientCredits(
                f"storing this file costs {format_credits(self.cost(size_bytes, replicas))} credits, more than the balance"
            )
        return await self._begin(user, filename, size_bytes, replicas)

    async def put_chunk(self, user: UserId, upload_id: UploadId, index: int, data: bytes) -> Upload:
        """Store chunk `index`; on return all its replicas are durable and recorded. The same bytes again are a success.

        Raises Invalid (no such index, wrong size), Conflict (ended, or other bytes are there), TooFewNodes, TooFewCopies, Unavailable.
        """
        upload = await self._open_upload(user, upload_id)
        wanted = upload.file.chunk_size(index)
        if len(data) != wanted:
            raise Invalid(
                f"chunk {index} must be {wanted} bytes (only the last chunk may be shorter); got {len(data)}",
                code="wrong_chunk_size",
                wanted=wanted,
                found=len(data),
            )
        mark = fingerprint(upload.key, data)
        there = await chunk_table.chunk_fingerprint(self._db, upload.file.id, index)
        if there is not None:
            if there != mark:
                raise Conflict(f"chunk {index} is there already, with other bytes", code="chunk_differs")
            return upload
        async with self._window.holding(len(data)):
            await self._store(upload.file.id, upload.key, index, data, upload.file.pieces, mark)
        return upload

    async def progress(self, user: UserId, upload_id: UploadId) -> UploadProgress:
        """What has come in so far."""
        upload = await self._find(user, upload_id)
        return UploadProgress(upload, await chunk_table.stored_ranges(self._db, upload.file.id, SHOWN_RANGES))

    async def complete(self, user: UserId, upload_id: UploadId) -> StoredFile:
        """Make the file ready, and take the credits; again is a success. Raises Conflict (`chunks_missing`, `upload_closed`)."""
        async with self._db.transaction() as connection:
            row = await file_table.lock_upload(connection, user, upload_id)
            if row is None:
                raise _no_upload()
            file, state, _ = row
            if state in ("aborted", "expired"):
                raise _closed(state)
            if state == "open":
                await self._finish(connection, file, file.size_bytes or 0)
        return await self._ready_file(user, file.id)

    async def abort(self, user: UserId, upload_id: UploadId) -> None:
        """Drop the upload and what was stored of it; again is a success. Raises Conflict when it was completed."""
        async with self._db.transaction() as connection:
            row = await file_table.lock_upload(connection, user, upload_id)
            if row is None:
                raise _no_upload()
            file, state, _ = row
            if state == "completed":
                raise Conflict("the upload was completed: delete the file instead", code="upload_closed")
            await self._drop(connection, user, file.id, "aborted")
        self._deletions_due.ring()

    # -- in one stream

    async def store_stream(
        self, user: UserId, filename: str, size_bytes: int | None, replicas: int | None, body: AsyncIterator[bytes]
    ) -> StoredFile:
        """The whole upload from one stream of bytes; on return the file is ready, every replica durable.

        `size_bytes` is what the client declared, None when it did not. On failure or cancellation the upload is dropped.
        Memory is bounded by the window, whatever the size.
        """
        if size_bytes is not None:
            self._check_size(size_bytes)
        upload = await self._begin(user, filename, size_bytes, replicas)
        async with self._dropped_unless_done(user, upload):
            received = await self._store_all(upload, body)
            if size_bytes is not None and received != size_bytes:
                raise Invalid(f"{size_bytes} bytes were announced; {received} came", code="size_mismatch")
            async with self._db.transaction() as connection:
                await file_table.lock_upload(connection, user, upload.id)
                await self._finish(connection, upload.file, received)
        return await self._ready_file(user, upload.file.id)

    async def _store_all(self, upload: Upload, body: AsyncIterator[bytes]) -> int:
        """Cut `body` into chunks and store them, a window of them at a time; how many bytes came."""
        chunker, window, index, received = Chunker(), Window(self._config.window_bytes), 0, 0
        with sole_error():
            async with trio.open_nursery() as nursery:

                async def start(chunk: memoryview) -> None:
                    nonlocal index
                    await window.acquire(len(chunk))
                    nursery.start_soon(self._store_one, upload, index, chunk, window)
                    index += 1

                async for piece in body:
                    received += len(piece)
                    if received > self._config.max_file_bytes:
                        raise self._too_large(received)
                    for chunk in chunker.feed(piece):
                        await start(chunk)
                if (last := chunker.finish()) is not None:
                    await start(last)
        return received

    async def _store_one(self, upload: Upload, index: int, chunk: memoryview, window: Window) -> None:
        try:
            async with self._window.holding(len(chunk)):
                mark = fingerprint(upload.key, chunk)
                await self._store(upload.file.id, upload.key, index, chunk, upload.file.pieces, mark)
        finally:
            window.release(len(chunk))

    @asynccontextmanager
    async def _dropped_unless_done(self, user: UserId, upload: Upload) -> AsyncIterator[None]:
        is_done = False
        try:
            yield
            is_done = True
        finally:
            if not is_done:
                with trio.CancelScope(shield=True), trio.move_on_after(ABORTING_SECONDS):
                    await self._abandon(user, upload.file.id)

    async def _abandon(self, user: UserId, file: FileId) -> None:
        async with self._db.transaction() as connection:
            await self._drop(connection, user, file, "aborted")
        self._deletions_due.ring()

    # -- the parts of both

    def cost(self, size_bytes: int, replicas: int | None) -> MicroCredits:
        """Micro-credits for storing a file for 30 days."""
        return storage_cost(size_bytes, self.replicas(replicas), self._credits.price_micro)

    async def _begin(self, user: UserId, filename: str, size_bytes: int | None, replicas: int | None) -> Upload:
        copies, now = self.replicas(replicas), self._clock()
        check_filename(filename)
        if size_bytes != 0:
            self._membership.require(copies)
        file_id = FileId(self._new_id())
        drawn = self._keyring.draw(file_id)
        file = StoredFile(
            id=file_id, user_id=user, name=filename, size_bytes=size_bytes, chunk_bytes=CHUNK_BYTES, pieces=copies,
            status="uploading", master_key_id=drawn.master_key_id, wrapped_key=drawn.wrapped, wrap_secret=drawn.secret,
            created_at=now, ready_at=None,
        )  # fmt: skip
        upload = Upload(
            id=UploadId(self._new_id()), file=file, key=drawn.key, state="open",
            expires_at=now + timedelta(hours=self._config.expire_hours),
        )  # fmt: skip
        async with self._db.transaction() as connection:
            await file_table.insert_file(connection, file)
            await file_table.insert_upload(connection, upload.id, file, upload.expires_at)
        return upload

    async def _store(
        self, file: FileId, key: FileKey, index: int, data: memoryview | bytes, copies: int, mark: bytes
    ) -> None:
        """Seal, place, send, record: the way of one chunk."""
        chunk = chunk_id(file, index)
        replicas = await self._replicator.store(file, key, index, chunk, data, copies)
        await self._recorder.record(ChunkRecord(file, index, chunk, len(data), mark, replicas))

    async def _finish(self, connection: TrioConnection, file: StoredFile, size_bytes: int) -> None:
        whole = attrs.evolve(file, size_bytes=size_bytes)
        count, stored_bytes = await chunk_table.chunk_totals(connection, file.id)
        if (count, stored_bytes) != (whole.chunk_count, size_bytes):
            missing = await chunk_table.missing_indexes(connection, file.id, whole.chunk_count, SHOWN_MISSING)
            raise Conflict(
                f"{whole.chunk_count - count} of {whole.chunk_count} chunks are missing, first {missing[:10]}",
                code="chunks_missing",
                missing=missing,
                missing_count=whole.chunk_count - count,
            )
        cost = storage_cost(size_bytes, file.pieces, self._credits.price_micro)
        if cost:
            await ledger.book(
                connection,
                kind="storage",
                ref=f"storage:{file.id}",
                at=self._clock(),
                owner=("user", file.user_id),
                system=ledger.STORAGE,
                amount=MicroCredits(-cost),
            )
        await file_table.mark_ready(connection, file.id, size_bytes, self._clock())
        await file_table.set_upload_state(connection, file.id, "completed")

    async def _drop(self, connection: TrioConnection, user: UserId, file: FileId, state: str) -> None:
        await file_table.set_upload_state(connection, file, "expired" if state == "expired" else "aborted")
        await file_table.forget_file(connection, user, file, self._clock())

    async def expire(self, limit: int = 100) -> int:
        """Drop uploads whose time is over; how many were dropped."""
        due = await file_table.expired_uploads(self._db, self._clock(), limit)
        for user, file in due:
            async with self._db.transaction() as connection:
                await self._drop(connection, user, file, "expired")
            log.info("upload_expired", file=str(file))
        if due:
            self._deletions_due.ring()
        return len(due)

    async def _find(self, user: UserId, upload_id: UploadId) -> Upload:
        row = await file_table.upload_of_user(self._db, user, upload_id)
        if row is None:
            raise _no_upload()
        file, state, expires_at = row
        key = self._keyring.open(file) if file.status != "deleted" else FileKey(b"")
        return Upload(upload_id, file, key, state, expires_at)

    async def _open_upload(self, user: UserId, upload_id: UploadId) -> Upload:
        upload = await self._find(user, upload_id)
        if upload.state != "open":
            raise _closed(upload.state)
        if upload.expires_at <= self._clock():
            raise _closed("expired")
        return upload

    async def _ready_file(self, user: UserId, file: FileId) -> StoredFile:
        found = await file_table.file_of_user(self._db, user, file)
        if found is None:
            raise NotFound("the file was deleted")
        return found

    def replicas(self, replicas: int | None) -> int:
        """How many replicas a file gets whose upload asks for so many (None: the default). Raises Invalid."""
        wanted = self._config.replicas if replicas is None else replicas
        if not 1 <= wanted <= MOST_REPLICAS:
            raise Invalid(f"replicas must be 1 to {MOST_REPLICAS}; got {wanted}")
        return wanted

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes < 0:
            raise Invalid(f"a file's size is 0 or more bytes; got {size_bytes}")
        if size_bytes > min(self._config.max_file_bytes, MAX_FILE_BYTES):
            raise self._too_large(size_bytes)

    def _too_large(self, size_bytes: int) -> TooLarge:
        limit = min(self._config.max_file_bytes, MAX_FILE_BYTES)
        return TooLarge(f"a file may have up to {limit} bytes here; this one has {size_bytes} or more", wanted=limit)

    def _new_id(self) -> UUID:
        return UUID(bytes=self._random_bytes(16), version=4)


def _no_upload() -> NotFound:
    return NotFound("there is no such upload")


def _closed(state: str) -> Conflict:
    return Conflict(f"the upload is {state}: begin a new one", code="upload_closed")
