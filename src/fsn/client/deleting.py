"""Deleting a file, when an answer may be lost on its way."""

from fsn.client.connection import Connection
from fsn.core.errors import FsnError, NotFound
from fsn.core.ids import FileId

__all__ = ["delete_file"]


async def delete_file(connection: Connection, file_id: FileId) -> None:
    """Delete `file_id`; NotFound only when it was not there before the first try, as far as anyone can tell."""
    was_sent = False

    async def attempt() -> None:
        nonlocal was_sent
        try:
            await connection.call("DELETE", f"/api/v1/files/{file_id}", idempotent=False)
        except NotFound:
            if not was_sent:
                raise
        except FsnError as error:
            was_sent = error.transient
            raise

    await connection.retrying.call(attempt)
