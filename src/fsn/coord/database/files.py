"""Files and uploads in the catalogue."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from fsn.coord.catalog import StoredFile, UploadState
from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.ids import FileId, PeerId, UploadId, UserId

__all__ = [
    "CLEARED_AT_ONCE",
    "clear_next_file",
    "expired_uploads",
    "file_of_user",
    "files_by_id",
    "files_of_user",
    "forget_file",
    "insert_upload",
    "lock_upload",
    "mark_ready",
    "set_upload_state",
    "streamed_uploads",
    "upload_of_user",
]

_FILE: LiteralString = """f.id, f.user_id, f.name, f.size_bytes, f.chunk_bytes, f.pieces, f.status::text as status, f.master_key_id,
    f.wrapped_key, f.wrap_secret, f.created_at, f.ready_at"""
LAST: Final = UUID(int=2**128 - 1)
"""After all ids."""
CLEARED_AT_ONCE: Final = 1000
"""Chunks (262 MB) of a deleted file that leave the catalogue in one transaction: about a tenth of a second."""
_UNCLEARED: LiteralString = """select id from files where status = 'deleted' and cleared_at is null
    order by deleted_at limit 1"""
UploadRow = tuple[StoredFile, UploadState, datetime]


async def insert_upload(
    db: Pool | Connection, upload: UploadId, file: StoredFile, expires_at: datetime, streamed_by: PeerId | None = None
) -> None:
    """Add a file that is coming in, and its open upload. One statement, one commit.

    `streamed_by` is the coordinator that reads it, when it is one request.
    """
    await db.execute(
        """with f as (
               insert into files (id, user_id, name, size_bytes, chunk_bytes, pieces, status, master_key_id,
                                  wrapped_key, wrap_secret, created_at)
               values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning id, user_id, created_at)
           insert into uploads (id, file_id, user_id, created_at, expires_at, streamed_by)
           select %s, f.id, f.user_id, f.created_at, %s, %s from f""",
        [
            file.id, file.user_id, file.name, file.size_bytes, file.chunk_bytes, file.pieces, file.status,
            file.master_key_id, file.wrapped_key, file.wrap_secret, file.created_at, upload, expires_at, streamed_by,
        ],
    )  # fmt: skip


async def file_of_user(db: Pool, user: UserId, file: FileId) -> StoredFile | None:
    """A user's own file; None for another's, and for one that was deleted."""
    sql = f"select {_FILE} from files f where f.id = %s and f.user_id = %s and f.status <> 'deleted'"  # noqa: S608 - a constant
    return await db.fetch_one(sql, [file, user], row=StoredFile)


async def files_by_id(db: Pool, files: Sequence[FileId]) -> dict[FileId, StoredFile]:
    """Those of the files that are not deleted, whoever's they are."""
    sql = f"select {_FILE} from files f where f.id = any (%s::uuid[]) and f.status <> 'deleted'"  # noqa: S608 - a constant
    return {file.id: file for file in await db.fetch_all(sql, [list(files)], row=StoredFile)}


async def files_of_user(
    db: Pool, user: UserId, after: tuple[datetime, FileId] | None, limit: int
) -> Sequence[StoredFile]:
    """Up to `limit` files, newest first, those older than `after` only."""
    sql = f"""select {_FILE} from files f where f.user_id = %s and f.status <> 'deleted'
                and (f.created_at, f.id) < (coalesce(%s::timestamptz, 'infinity'), coalesce(%s::uuid, %s))
              order by f.created_at desc, f.id desc limit %s"""  # noqa: S608 - a constant
    at, last = after or (None, None)
    return await db.fetch_all(sql, [user, at, last, LAST, limit], row=StoredFile)


async def upload_of_user(db: Pool, user: UserId, upload: UploadId) -> UploadRow | None:
    """A user's own upload, with its file."""
    async with db.connection() as connection:
        return await _upload(connection, user, upload, "")


async def lock_upload(db: Connection, user: UserId, upload: UploadId) -> UploadRow | None:
    """As `upload_of_user`, locked until the transaction ends: chunks that are being recorded come before or after.

    The upload is locked before its file, as by everybody who ends an upload (`set_upload_state`, then the file): in any other
    order a completion and a deletion at the same moment would wait for each other.
    """
    return await _upload(db, user, upload, " for update of u, f")


async def _upload(db: Connection, user: UserId, upload: UploadId, lock: LiteralString) -> UploadRow | None:
    sql = f"""select u.state::text, u.expires_at, {_FILE} from uploads u join files f on f.id = u.file_id
              where u.id = %s and u.user_id = %s{lock}"""  # noqa: S608 - constants
    row = await (await db.execute(sql, [upload, user])).fetchone()
    return (StoredFile(*row[2:]), row[0], row[1]) if row else None


async def set_upload_state(db: Connection, file: FileId, state: UploadState) -> bool:
    """End the upload of `file`, if it is open; whether it was."""
    cursor = await db.execute("update uploads set state = %s where file_id = %s and state = 'open'", [state, file])
    return cursor.rowcount > 0


async def mark_ready(db: Connection, file: FileId, size_bytes: int, at: datetime) -> None:
    """The file is whole from now on."""
    sql = "update files set status = 'ready', size_bytes = %s, ready_at = %s where id = %s"
    await db.execute(sql, [size_bytes, at, file])


async def forget_file(db: Connection, user: UserId, file: FileId, at: datetime) -> bool:
    """Destroy the file's key and name and queue its replicas for deletion; False when there is no such file of this user.

    Chunks and replicas leave the catalogue, the first CLEARED_AT_ONCE of them now, the others by `clear_next_file`; the file's row stays,
    without key and name, for the books.
    """
    cursor = await db.execute(
        """update files set status = 'deleted', name = '', wrapped_key = null, wrap_secret = null, deleted_at = %s
           where id = %s and user_id = %s and status <> 'deleted'""",
        [at, file, user],
    )
    if cursor.rowcount == 0:
        return False
    await _clear(db, file, at)
    return True


async def clear_next_file(db: Pool, at: datetime) -> bool:
    """Take up to CLEARED_AT_ONCE chunks of one deleted file out of the catalogue, and queue their replicas; whether there was one.

    Another coordinator that does the same takes another file.
    """
    if await db.fetch_one(_UNCLEARED) is None:
        return False
    async with db.transaction() as connection:
        row = await (await connection.execute(_UNCLEARED + " for update skip locked")).fetchone()
        if row is None:
            return False
        await _clear(connection, FileId(row[0]), at)
    return True


async def _clear(db: Connection, file: FileId, at: datetime) -> None:
    await db.execute(
        """with c as materialized (select index from chunks where file_id = %(file)s order by index limit %(limit)s),
               gone as (delete from replicas r using c where r.file_id = %(file)s and r.chunk_index = c.index returning r.id, r.node_id)
           insert into replica_deletions (replica_id, node_id, queued_at, next_try_at)
           select id, node_id, %(at)s, %(at)s from gone on conflict do nothing""",
        {"file": file, "limit": CLEARED_AT_ONCE, "at": at},
    )
    cursor = await db.execute(
        """delete from chunks where file_id = %(file)s
               and index = any (array(select index from chunks where file_id = %(file)s order by index limit %(limit)s))""",
        {"file": file, "limit": CLEARED_AT_ONCE},
    )
    if cursor.rowcount < CLEARED_AT_ONCE:
        await db.execute("update files set cleared_at = %s where id = %s", [at, file])


async def expired_uploads(db: Pool, now: datetime, limit: int, us: PeerId) -> Sequence[tuple[UserId, FileId]]:
    """Open uploads whose time is over; not those that another coordinator reads as one request, as long as that one is alive."""
    rows = await db.fetch_all(
        """select user_id, file_id from uploads u where state = 'open' and expires_at <= %(now)s
               and (streamed_by is null or streamed_by = %(us)s or not exists (
                   select from coordinator_watches w where w.coordinator = u.streamed_by and w.ended_at is null))
           order by expires_at limit %(limit)s""",
        {"now": now, "us": us, "limit": limit},
    )
    return [(UserId(user), FileId(file)) for user, file in rows]


async def streamed_uploads(db: Pool, coordinator: PeerId) -> Sequence[tuple[UserId, FileId]]:
    """Open uploads that are requests to `coordinator`, or were when it died."""
    sql = "select user_id, file_id from uploads where state = 'open' and streamed_by = %s"
    return [(UserId(user), FileId(file)) for user, file in await db.fetch_all(sql, [coordinator])]
