"""What files look like over HTTP."""

from datetime import datetime
from uuid import UUID

import msgspec

from fsn.coord.catalog import FileStatus, StoredFile

__all__ = ["LATER", "FileHealthView", "FileView", "FilesView", "file_view"]

LATER = {"id": ("get_file", "download_file", "delete_file")}
"""Where a FileView leads."""


class FileHealthView(msgspec.Struct):
    """How well a file is kept: live replicas of its worst chunk on nodes that are there now (null without chunks) of those wanted;
    chunks with fewer than wanted; chunks that wait for repair or are in it; when the last round of proofs began that is over and asked
    for its replicas (null: none yet). Who failed it is no live replica any more; nodes with more than 4,096 replicas are asked for
    a part of them in each round."""

    live_replicas: int | None
    wanted_replicas: int
    chunks_below: int
    chunks_in_repair: int
    proved_at: datetime | None


class FileView(msgspec.Struct):
    """A file. `size_bytes` is null while a stream of unknown length comes in; `health` and `cost_so_far` (credits)
    come with one file, not with lists."""

    id: UUID
    filename: str
    size_bytes: int | None
    status: FileStatus
    replicas: int
    created_at: datetime
    ready_at: datetime | None
    health: FileHealthView | msgspec.UnsetType = msgspec.UNSET
    cost_so_far: str | msgspec.UnsetType = msgspec.UNSET


class FilesView(msgspec.Struct):
    """A page of files."""

    files: list[FileView]
    next_cursor: str | None


def file_view(file: StoredFile, health: FileHealthView | msgspec.UnsetType = msgspec.UNSET) -> FileView:
    """`file` for its owner."""
    return FileView(
        id=file.id,
        filename=file.name,
        size_bytes=file.size_bytes,
        status=file.status,
        replicas=file.pieces,
        created_at=file.created_at,
        ready_at=file.ready_at,
        health=health,
    )
