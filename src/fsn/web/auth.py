"""Who asks: a user's bearer token or a node's API key, judged before anything of the request is read, and whether not too often."""

from typing import Any

from quart import g

from fsn.coord.catalog import NodeRecord
from fsn.coord.services import Services
from fsn.core.errors import Unauthorized
from fsn.core.ids import UserId
from fsn.web.bearer import bearer
from fsn.web.limits import Limits
from fsn.web.middleware import note_asker
from fsn.web.operations import Guard, Operation
from fsn.web.quart_front import current_request

__all__ = ["NODE", "SCHEMES", "USER", "asking_node", "asking_user", "guard_with"]

USER = "user"
"""A bearer token from a login."""
NODE = "node"
"""The API key that a node was given when it registered, in `X-API-Key`."""

SCHEMES: dict[str, dict[str, Any]] = {
    USER: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The token of a login."},
    NODE: {
        "type": "apiKey", "in": "header", "name": "X-API-Key",
        "description": "The key that a node was given when it registered.",
    },
}  # fmt: skip
"""Both, as OpenAPI's security schemes."""


def guard_with(services: Services, limits: Limits) -> Guard:
    """A guard that lets through who has one of the operation's credentials and asks not too much, and remembers who it is."""

    async def guard(operation: Operation) -> None:
        headers = current_request().headers
        if not operation.security:
            limits.count_request()
        elif NODE in operation.security and (key := headers.get("X-API-Key")):
            limits.count_request()  # before the look into the database
            g.node = await services.registrar.authenticate(key)
            note_asker(node=g.node.id)
        elif USER in operation.security:
            g.user = user = _user(services, limits, headers.get("Authorization", ""))
            note_asker(user=user)
            _hold_slot(operation, limits, user)
        else:
            raise Unauthorized("an X-API-Key header is wanted", code="token_missing")

    return guard


def _user(services: Services, limits: Limits, header: str) -> UserId:
    try:
        user = services.accounts.authenticate(bearer(header))
    except Unauthorized:
        limits.count_request()
        raise
    limits.count_request(user)
    return user


def _hold_slot(operation: Operation, limits: Limits, user: UserId) -> None:
    """Until the response is complete, the request counts among the user's transfers, if it is one."""
    if operation.is_upload:
        current_request().ending.enter_context(limits.uploads.hold(user))
    elif operation.produces is not None:
        current_request().ending.enter_context(limits.downloads.hold(user))


def asking_user() -> UserId:
    """The user that the guard let through."""
    user: UserId = g.user
    return user


def asking_node() -> NodeRecord | None:
    """The node that the guard let through, None when it was a user."""
    node: NodeRecord | None = g.get("node")
    return node
