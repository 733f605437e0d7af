"""Is it well? One answer for people and load balancers, with a reason for each part that is not."""

from typing import Literal

import msgspec
import structlog
import trio
from quart import Response

from fsn.coord.database.pool import Pool
from fsn.coord.database.repairs import queue_counts
from fsn.coord.services import Services
from fsn.core.errors import Unavailable
from fsn.core.version import VERSION
from fsn.web.operations import Answer, Operations, json_response

__all__ = ["database_health", "declare_health"]

log = structlog.get_logger()

PING_SECONDS = 2.0
State = Literal["ok", "degraded"]


class PartView(msgspec.Struct, omit_defaults=True):
    """One part; `reason` says why it is not ok."""

    status: State
    reason: str = ""


_UNKNOWN = PartView("degraded", "the database is not available")


class HealthView(msgspec.Struct):
    """`ok` when every part is. A degraded coordinator answers 503 when its database is away, else 200."""

    status: State
    version: str
    database: PartView
    p2p: PartView
    nodes: PartView
    repair: PartView
    nodes_online: int


def declare_health(api: Operations, services: Services) -> None:
    """Add the health operation."""

    @api.operation(
        "GET", "/health", summary="Is the coordinator well?", tags=("health",), ok=(200, HealthView),
        answers=(Answer(status=503, summary="The database is away.", type=HealthView),),
    )  # fmt: skip
    async def health() -> Response:
        """Asks the database, looks at the listener, counts nodes and chunks that wait for repair."""
        online = services.membership.counts["online"]
        database, p2p, nodes = await database_health(services.db), _p2p(services), _nodes(services, online)
        repair = await _repair(services) if database.status == "ok" else _UNKNOWN
        parts = (database, p2p, nodes, repair)
        status: State = "ok" if all(part.status == "ok" for part in parts) else "degraded"
        view = HealthView(status, VERSION, database, p2p, nodes, repair, online)
        return json_response(view, 503 if database.status != "ok" else 200)


async def database_health(db: Pool) -> PartView:
    """Whether `db` answers. Anyone may ask: why it does not, which names hosts and accounts, is in the log."""
    try:
        await db.ping(PING_SECONDS)
    except Unavailable as error:
        log.warning("database_away", reason=error.message)
        return PartView("degraded", "the database is not available")
    return PartView("ok")


async def _repair(services: Services) -> PartView:
    """Degraded while repair is paused, or a chunk has no replica that can be read."""
    outlook = services.repair.outlooks.latest
    if outlook is not None and outlook.paused_because:
        return PartView("degraded", outlook.paused_because)
    with trio.move_on_after(PING_SECONDS):
        try:
            unreadable = (await queue_counts(services.db)).waiting.get(0, 0)
        except Unavailable:
            return _UNKNOWN
        if unreadable:
            return PartView("degraded", f"chunks without a replica that can be read now: {unreadable}")
        return PartView("ok")
    return _UNKNOWN


def _p2p(services: Services) -> PartView:
    return PartView("ok") if services.transport.addresses else PartView("degraded", "not listening")


def _nodes(services: Services, online: int) -> PartView:
    wanted = services.admission.replicas(None)
    if online >= wanted:
        return PartView("ok")
    return PartView("degraded", f"{online} nodes are online; {wanted} are needed to store files")
