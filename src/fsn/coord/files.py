"""A user's files: listed, looked at, deleted."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from fsn.coord.catalog import StoredFile
from fsn.coord.database import files as file_table
from fsn.coord.database.charges import paid_for
from fsn.coord.database.chunks import FileHealth, file_health
from fsn.coord.database.pool import Pool
from fsn.coord.database.proof_reports import last_proved
from fsn.coord.membership import Membership
from fsn.core.errors import Conflict, NotFound
from fsn.core.ids import FileId, UserId
from fsn.core.units import MicroCredits
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell

__all__ = ["FileDetails", "Files"]


@attrs.frozen
class FileDetails:
    """A file with its health, as the nodes are now."""

    file: StoredFile
    health: FileHealth
    paid: MicroCredits
    """What storing it has cost so far."""
    proved_at: datetime | None
    """Begin of the last round of proofs that is judged and was not under suspicion, since the file is ready."""


@attrs.frozen
class Files:
    """What a user can do with files that are there."""

    db: Pool
    membership: Membership
    clock: Clock
    deletions_due: Bell

    async def page(self, user: UserId, after: tuple[datetime, FileId] | None, limit: int) -> Sequence[StoredFile]:
        """Up to `limit` of the user's files, newest first."""
        return await file_table.files_of_user(self.db, user, after, limit)

    async def find(self, user: UserId, file: FileId) -> StoredFile:
        """The user's file. Raises NotFound, also for another user's."""
        found = await file_table.file_of_user(self.db, user, file)
        if found is None:
            raise NotFound("there is no such file")
        return found

    async def find_ready(self, user: UserId, file: FileId) -> StoredFile:
        """The user's file, whole. Raises Conflict (`not_ready`) while it is coming in."""
        found = await self.find(user, file)
        if found.status != "ready":
            raise Conflict("the file is still being uploaded", code="not_ready")
        return found

    async def details(self, user: UserId, file: FileId) -> FileDetails:
        """The user's file and its health."""
        found = await self.find(user, file)
        online = [member.node for member in self.membership.online()]
        proved_at = await last_proved(self.db, found.ready_at) if found.ready_at and found.size_bytes else None
        return FileDetails(found, await file_health(self.db, file, online), await paid_for(self.db, file), proved_at)

    async def delete(self, user: UserId, file: FileId) -> None:
        """Destroy the file's key at once and have its replicas deleted, on absent nodes when they are back. Raises NotFound."""
        async with self.db.transaction() as connection:
            await file_table.set_upload_state(connection, file, "aborted")
            if not await file_table.forget_file(connection, user, file, self.clock()):
                raise NotFound("there is no such file")
        self.deletions_due.ring()
