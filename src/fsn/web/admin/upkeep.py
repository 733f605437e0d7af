"""The trash and the scrubbing over a node's admin API."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec

from fsn.core.errors import DiskFull, Invalid, StorageError
from fsn.core.ids import ReplicaId, parse_uuid
from fsn.node.services import NodeServices
from fsn.web.admin.standing import ADMIN
from fsn.web.operations import Operations, RequestModel

__all__ = ["Scrub", "declare_upkeep", "scrub_of"]

MAX_PAGE = 1000


class Trashed(msgspec.Struct, frozen=True):
    """One replica in the trash: its id (32 hex digits), and since when it lies there."""

    id: str
    size_bytes: int
    trashed_at: datetime


class TrashPage(msgspec.Struct, frozen=True):
    """In the order of their ids; `count` and `total_bytes` are of the whole trash."""

    replicas: tuple[Trashed, ...]
    next_cursor: str | None
    count: int
    total_bytes: int


class TrashQuery(RequestModel, frozen=True, kw_only=True):
    """A page."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100
    cursor: str | None = None


class RestoreRequest(RequestModel, frozen=True, kw_only=True):
    """Which, up to a thousand, each 32 hex digits."""

    ids: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_PAGE)]


class Restored(msgspec.Struct, frozen=True):
    """How many are chunks again, and why others are not."""

    restored: int
    failed: dict[str, str]


class Emptied(msgspec.Struct, frozen=True):
    """What was removed for good."""

    removed: int
    removed_bytes: int


class Scrub(msgspec.Struct, frozen=True):
    """How far the reading of all chunks has come in this round, and what it found; `ended_at` is of the round before."""

    started_at: datetime | None
    share: float
    checked: int
    lost: int
    hurries: bool
    ended_at: datetime | None


def declare_upkeep(operations: Operations, node: NodeServices) -> None:
    """Add them."""

    @operations.operation(
        "GET",
        "/trash",
        summary="Garbage that can be taken back",
        query=TrashQuery,
        ok=(200, TrashPage),
        errors=(Invalid,),
    )
    async def list_trash(query: TrashQuery) -> TrashPage:
        """Replicas that a coordinator found to be garbage, until `[upkeep] trash_days` are over or their room is needed."""
        after = None if query.cursor is None else _replica(query.cursor)
        found = await node.store.list_trash(after, query.limit + 1)
        shown, totals = found[: query.limit], node.store.trash_totals()
        rows = tuple(Trashed(each.chunk.replica.hex, each.chunk.size_bytes, _at(each.trashed_at)) for each in shown)
        more = shown[-1].chunk.replica.hex if len(found) > query.limit else None
        return TrashPage(rows, more, totals.count, totals.size_bytes)

    @operations.operation(
        "POST", "/trash/restore", summary="Take garbage back", body=RestoreRequest, ok=(200, Restored),
        errors=(Invalid, DiskFull, StorageError), security=(ADMIN,),
    )  # fmt: skip
    async def restore(body: RestoreRequest) -> Restored:
        """Durable when answered. What the coordinator still does not know is found to be garbage again, days later."""
        replicas = [_replica(each) for each in body.ids]
        failed = await node.store.restore(replicas)
        return Restored(len(set(replicas)) - len(failed), {each.hex: reason for each, reason in failed.items()})

    @operations.operation(
        "POST",
        "/trash/empty",
        summary="Remove garbage for good",
        ok=(200, Emptied),
        errors=(StorageError,),
        security=(ADMIN,),
    )
    async def empty() -> Emptied:
        """Up to 256 replicas at once: again until nothing is removed."""
        removed = await node.store.empty_trash()
        return Emptied(removed.count, removed.size_bytes)

    @operations.operation("POST", "/scrub", summary="Check all chunks now", ok=(200, Scrub), security=(ADMIN,))
    async def scrub() -> Scrub:
        """Begins a round, as fast as `[upkeep] scrub_bytes_per_second` allows."""
        node.scrubbing.hurry()
        return scrub_of(node)


def scrub_of(node: NodeServices) -> Scrub:
    """Read from memory."""
    status = node.scrubbing.status
    if status is None:
        return Scrub(None, 0.0, 0, 0, hurries=False, ended_at=None)
    ended_at = None if status.ended_at is None else _at(status.ended_at)
    return Scrub(_at(status.started_at), round(status.share, 4), status.checked, status.lost, status.hurries, ended_at)


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _replica(text: str) -> ReplicaId:
    found: UUID | None = parse_uuid(text)
    if found is None:
        raise Invalid(f"a replica's id has 32 hex digits; got {text[:40]!r}")
    return ReplicaId(found)
