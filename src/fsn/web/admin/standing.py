"""Draining and maintenance over a node's admin API."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated

import attrs
import msgspec
import trio

from fsn.core.errors import Conflict, Invalid, StorageError, Unreachable
from fsn.node.services import NodeServices
from fsn.web.operations import Coded, Operations, RequestModel

__all__ = ["ADMIN", "Counted", "Drain", "Maintenance", "counted_of", "declare_standing", "drain_of", "maintenance_of"]

ADMIN = "admin"
"""The security scheme of what changes something: the token in `admin.token`, as a bearer token."""

_LEFT = Coded(Conflict, ("left",))


class Counted(msgspec.Struct, frozen=True):
    """How the coordinators count this node, as the last one of them said: a state, since when, why and until when; `state` is null until
    one has answered."""

    state: str | None
    since: datetime | None
    reason: str
    until: datetime | None


class Drain(msgspec.Struct, frozen=True):
    """A drain, or that there is none. Totals are those at its beginning; what is left is null until a coordinator has counted it.

    `standing` is what the node means to do: active, draining, maintenance, left. `coordinators_told` of `coordinators_connected` know it.
    """

    standing: str
    since: datetime | None
    deadline: datetime | None
    counted: Counted
    replicas_total: int
    bytes_total: int
    replicas_left: int | None
    bytes_left: int | None
    replicas_only_here: int | None
    replicas_stored: int
    bytes_stored: int
    bytes_per_second: float | None
    seconds_left: float | None
    coordinators_told: int
    coordinators_connected: int
    may_be_stopped: bool


class Maintenance(msgspec.Struct, frozen=True):
    """A declared maintenance, or that there is none: `until` is null then."""

    standing: str
    since: datetime | None
    until: datetime | None
    reason: str
    counted: Counted


class DrainRequest(RequestModel, frozen=True, kw_only=True):
    """`deadline_hours`: what is not copied by then is left to repair; without, the drain lasts as long as it takes."""

    deadline_hours: Annotated[float, msgspec.Meta(gt=0, le=24 * 366)] | None = None


class MaintenanceRequest(RequestModel, frozen=True, kw_only=True):
    """How long, and why."""

    hours: Annotated[float, msgspec.Meta(gt=0)]
    reason: str = ""


def declare_standing(operations: Operations, node: NodeServices) -> None:
    """Add the operations."""

    @operations.operation("GET", "/drain", summary="How far the drain is", ok=(200, Drain))
    async def get_drain() -> Drain:
        return drain_of(node)

    @operations.operation(
        "POST", "/drain", summary="Empty the node and leave", body=DrainRequest, ok=(200, Drain), errors=(_LEFT, StorageError),
        security=(ADMIN,),
    )  # fmt: skip
    async def begin_drain(body: DrainRequest) -> Drain:
        """New chunks are refused from the answer on. Copies are made elsewhere; replicas that have enough of them are deleted here; when
        none is left, the node has left. Durable: it goes on after a restart. Again, it changes the deadline."""
        await _to_the_end(lambda: node.declaring.drain(body.deadline_hours))
        return drain_of(node)

    @operations.operation(
        "DELETE", "/drain", summary="Stay after all", ok=(200, Drain), errors=(_LEFT, StorageError), security=(ADMIN,)
    )
    async def cancel_drain() -> Drain:
        """What was not moved yet stays. Harmless when nothing drains."""
        await _to_the_end(node.declaring.cancel_drain)
        return drain_of(node)

    @operations.operation("GET", "/maintenance", summary="The declared maintenance", ok=(200, Maintenance))
    async def get_maintenance() -> Maintenance:
        return maintenance_of(node)

    @operations.operation(
        "POST", "/maintenance", summary="Declare that the node will be away", body=MaintenanceRequest, ok=(200, Maintenance),
        errors=(Invalid, Coded(Conflict, ("left", "maintenance_refused")), Unreachable, StorageError), security=(ADMIN,),
    )  # fmt: skip
    async def begin_maintenance(body: MaintenanceRequest) -> Maintenance:
        """In force once answered: no new chunks come, and silence does not count until the end. Not in force after 409
        `maintenance_refused` (beyond the coordinator's bounds) and 503 (none is connected)."""
        await _to_the_end(lambda: node.declaring.begin_maintenance(body.hours, body.reason))
        return maintenance_of(node)

    @operations.operation(
        "DELETE",
        "/maintenance",
        summary="Back to work",
        ok=(200, Maintenance),
        errors=(StorageError,),
        security=(ADMIN,),
    )
    async def end_maintenance() -> Maintenance:
        """Harmless when there is none; it also ends by itself at its time."""
        await _to_the_end(node.declaring.end_maintenance)
        return maintenance_of(node)


async def _to_the_end(change: Callable[[], Awaitable[None]]) -> None:
    """A caller who goes away in the middle must not leave half a change: it is bounded, and runs on."""
    with trio.CancelScope(shield=True):
        await change()


def drain_of(node: NodeServices) -> Drain:
    """Read from memory."""
    declaring, held = node.declaring, node.store.totals()
    standing, answer = declaring.standing, declaring.answer
    is_draining, speed = standing.kind == "draining", declaring.bytes_per_second
    left = answer.bytes_left if is_draining and answer is not None else None
    links = [link for link in node.reporting.links if link.is_connected]
    return Drain(
        standing=standing.kind,
        since=standing.since if standing.kind in ("draining", "left") else None,
        deadline=standing.until if is_draining else None,
        counted=counted_of(node),
        replicas_total=standing.replicas,
        bytes_total=standing.size_bytes,
        replicas_left=answer.replicas_left if is_draining and answer is not None else None,
        bytes_left=left,
        replicas_only_here=answer.replicas_only_here if is_draining and answer is not None else None,
        replicas_stored=held.count,
        bytes_stored=held.size_bytes,
        bytes_per_second=speed if is_draining else None,
        seconds_left=round(left / speed, 1) if left is not None and speed else None,
        coordinators_told=sum(declaring.knows(link) for link in links),
        coordinators_connected=len(links),
        may_be_stopped=standing.kind == "left",
    )


def maintenance_of(node: NodeServices) -> Maintenance:
    """Read from memory."""
    standing = node.declaring.standing
    if standing.kind != "maintenance":
        standing = attrs.evolve(standing, since=None, until=None, reason="")
    return Maintenance(standing.kind, standing.since, standing.until, standing.reason, counted_of(node))


def counted_of(node: NodeServices) -> Counted:
    """What the coordinators last said."""
    counted = node.declaring.counted
    return Counted(counted.state, counted.since, counted.reason, counted.until)
