"""Uploads that last longer than one request: begun, filled chunk by chunk in any order, completed or dropped."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Protocol

import attrs
import structlog

from fsn.coord.admission import Admission
from fsn.coord.catalog import StoredFile, Upload, UploadState
from fsn.coord.database import chunks as chunk_table
from fsn.coord.database import files as file_table
from fsn.coord.database import ledger
from fsn.coord.database.base import Connection
from fsn.coord.database.budgets import check_budget
from fsn.coord.database.charges import mark_paid
from fsn.coord.database.pool import Pool
from fsn.core.errors import Conflict, Invalid, NotFound
from fsn.core.ids import FileId, PeerId, UploadId, UserId
from fsn.core.keys import FileKey
from fsn.core.sealing import fingerprint
from fsn.core.tariff import PREPAID_DAYS
from fsn.core.units import MicroCredits
from fsn.runtime.supervise import Bell

__all__ = ["Sessions", "UploadProgress"]

log = structlog.get_logger()

SHOWN_MISSING = 100
"""Missing indexes that an error names at most."""
SHOWN_RANGES = 10_000


@attrs.frozen
class UploadProgress:
    """How far an upload is. `received` are the ranges (first, last) of chunks that are in, at most 10,000 of them."""

    upload: Upload
    received: Sequence[tuple[int, int]]


class Writer(Protocol):
    """What stores one chunk: `upload.ChunkWriter`."""

    async def store_and_record(self, upload: Upload, index: int, data: bytes) -> None:
        """See there."""


class Sessions:
    """Uploads in steps. Every method raises NotFound for what is not the user's own."""

    def __init__(
        self, db: Pool, admission: Admission, writer: Writer, *, coordinator: PeerId, deletions_due: Bell
    ) -> None:
        self._db = db
        self._coordinator = coordinator
        self._streaming: set[FileId] = set()
        self._admission = admission
        self._clock = admission.clock
        self._writer = writer
        self._deletions_due = deletions_due

    async def initiate(self, user: UserId, filename: str, size_bytes: int, replicas: int | None) -> Upload:
        """Begin an upload of `size_bytes`. Raises Invalid, TooLarge, TooFewNodes, InsufficientCredits; nothing is kept then."""
        upload = await self._admission.admit(user, filename, size_bytes, replicas)
        await self._keep(upload, None)
        return upload

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
        there = await chunk_table.chunk_fingerprint(self._db, upload.file.id, index)
        if there is None:
            await self._writer.store_and_record(upload, index, data)
        elif there != fingerprint(upload.key, data):
            raise Conflict(f"chunk {index} is there already, with other bytes", code="chunk_differs")
        return upload

    async def progress(self, user: UserId, upload_id: UploadId) -> UploadProgress:
        """What has come in so far."""
        upload = await self._find(user, upload_id)
        return UploadProgress(upload, await chunk_table.stored_ranges(self._db, upload.file.id, SHOWN_RANGES))

    async def complete(self, user: UserId, upload_id: UploadId) -> StoredFile:
        """Make the file ready, and take the credits; again is a success. Raises Conflict (`chunks_missing`, `upload_closed`)."""
        async with self._db.transaction() as connection:
            file, state = await self._locked(connection, user, upload_id)
            if state in ("aborted", "expired"):
                raise _closed(state)
            if state == "open":
                file = await self._make_ready(connection, file, file.size_bytes or 0)
        if file.status != "ready":
            raise NotFound("the file was deleted")
        return file

    async def abort(self, user: UserId, upload_id: UploadId) -> None:
        """Drop the upload and what was stored of it; again is a success. Raises Conflict when it was completed."""
        async with self._db.transaction() as connection:
            file, state = await self._locked(connection, user, upload_id)
            if state == "completed":
                raise Conflict("the upload was completed: delete the file instead", code="upload_closed")
            await self._drop(connection, user, file.id, "aborted")
        self._deletions_due.ring()

    async def expire(self, limit: int = 100) -> int:
        """Drop uploads whose time is over, and those whose request is; how many were dropped. Requests under way have all the time they
        take, whatever the clock on the wall says."""
        late = await file_table.expired_uploads(self._db, self._clock(), limit, self._coordinator)
        lost = await file_table.streamed_uploads(self._db, self._coordinator)
        # Looked at now, not before: a request is among these before it is in the catalogue.
        due = [pair for pair in {*late, *lost} if pair[1] not in self._streaming]
        for user, file in due:
            async with self._db.transaction() as connection:
                await self._drop(connection, user, file, "expired")
            log.info("upload_expired", file=str(file))
        if due:
            self._deletions_due.ring()
        return len(due)

    # -- for uploads that are one request, but too large to be recorded in one piece

    @asynccontextmanager
    async def streaming(self, upload: Upload) -> AsyncIterator[None]:
        """Put a new upload into the catalogue. When the block ends it must be complete or dropped; one that could not be (the database
        was away, this process was killed) is dropped by `expire`."""
        self._streaming.add(upload.file.id)
        try:
            await self._keep(upload, self._coordinator)
            yield
        finally:
            self._streaming.discard(upload.file.id)

    async def finish(self, upload: Upload, size_bytes: int) -> StoredFile:
        """Make the file ready with the size that came. Raises Conflict when it was dropped meanwhile."""
        # Before the transaction: the price may have to be read, and one connection must not wait for another.
        cost = await self._admission.cost(size_bytes, upload.file.pieces)
        async with self._db.transaction() as connection:
            file, state = await self._locked(connection, upload.file.user_id, upload.id)
            if state != "open":
                raise _closed(state)
            return await self._make_ready(connection, file, size_bytes, cost if file.size_bytes is None else None)

    async def drop(self, upload: Upload) -> None:
        """Forget the upload and delete what was stored of it, unless it is complete."""
        async with self._db.transaction() as connection:
            _, state = await self._locked(connection, upload.file.user_id, upload.id)
            if state == "open":
                await self._drop(connection, upload.file.user_id, upload.file.id, "aborted")
        self._deletions_due.ring()

    # -- parts

    async def _keep(self, upload: Upload, streamed_by: PeerId | None) -> None:
        """In the catalogue, with what it will cost set aside. Raises InsufficientCredits; nothing is kept then."""
        file = upload.file
        cost = await self._admission.cost(file.size_bytes or 0, file.pieces)
        if not cost:
            await file_table.insert_upload(self._db, upload.id, file, upload.expires_at, streamed_by)
            return
        async with self._db.transaction() as connection:
            await file_table.insert_upload(connection, upload.id, file, upload.expires_at, streamed_by)
            now = self._clock()
            await ledger.reserve(connection, file.user_id, file.id, cost, now)
            await check_budget(connection, file.user_id, now)

    async def _locked(
        self, connection: Connection, user: UserId, upload_id: UploadId
    ) -> tuple[StoredFile, UploadState]:
        row = await file_table.lock_upload(connection, user, upload_id)
        if row is None:
            raise _no_upload()
        return row[0], row[1]

    async def _make_ready(
        self, connection: Connection, file: StoredFile, size_bytes: int, unreserved: MicroCredits | None = None
    ) -> StoredFile:
        """`unreserved`: what a stream of unknown size costs, which has nothing set aside."""
        now = self._clock()
        ready = attrs.evolve(file, size_bytes=size_bytes, status="ready", ready_at=now)
        await self._check_whole(connection, ready)
        # What was set aside was agreed on, whatever the price is by now.
        cost = await ledger.release(connection, file.user_id, file.id, now) or unreserved
        if cost:
            await ledger.book(
                connection,
                kind="storage",
                ref=f"storage:{file.id}",
                at=now,
                owner=("user", file.user_id),
                system=ledger.STORAGE,
                amount=MicroCredits(-cost),
            )
            if unreserved:
                await check_budget(connection, file.user_id, now)
            await mark_paid(connection, file.id, cost, now + timedelta(days=PREPAID_DAYS))
        await file_table.mark_ready(connection, file.id, size_bytes, now)
        await file_table.set_upload_state(connection, file.id, "completed")
        return ready

    async def _check_whole(self, connection: Connection, file: StoredFile) -> None:
        count, stored_bytes = await chunk_table.chunk_totals(connection, file.id)
        if (count, stored_bytes) == (file.chunk_count, file.size_bytes):
            return
        missing = await chunk_table.missing_indexes(connection, file.id, file.chunk_count, SHOWN_MISSING)
        raise Conflict(
            f"{file.chunk_count - count} of {file.chunk_count} chunks are missing, first {missing[:10]}",
            code="chunks_missing",
            missing=missing,
            missing_count=file.chunk_count - count,
        )

    async def _drop(self, connection: Connection, user: UserId, file: FileId, state: UploadState) -> None:
        # Completed since somebody looked (an upload that expires in this moment, say), it is no upload any more.
        if await file_table.set_upload_state(connection, file, state):
            await ledger.release(connection, user, file, self._clock())
            await file_table.forget_file(connection, user, file, self._clock())

    async def _find(self, user: UserId, upload_id: UploadId) -> Upload:
        row = await file_table.upload_of_user(self._db, user, upload_id)
        if row is None:
            raise _no_upload()
        file, state, expires_at = row
        key = self._admission.keyring.open(file) if file.status != "deleted" else FileKey(b"")
        return Upload(upload_id, file, key, state, expires_at)

    async def _open_upload(self, user: UserId, upload_id: UploadId) -> Upload:
        upload = await self._find(user, upload_id)
        if upload.state != "open":
            raise _closed(upload.state)
        if upload.expires_at <= self._clock():
            raise _closed("expired")
        return upload


def _no_upload() -> NotFound:
    return NotFound("there is no such upload")


def _closed(state: str) -> Conflict:
    return Conflict(f"the upload is {state}: begin a new one", code="upload_closed")
