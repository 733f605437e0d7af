"""Who asks: a user's bearer token or a node's API key, judged before anything of the request is read."""

from quart import g

from fsn.coord.catalog import NodeRecord
from fsn.coord.services import Services
from fsn.core.errors import Unauthorized
from fsn.core.ids import UserId
from fsn.web.operations import Guard, Operation
from fsn.web.quart_front import current_request

__all__ = ["NODE", "USER", "asking_node", "asking_user", "guard_with"]

USER = "user"
"""A bearer token from a login."""
NODE = "node"
"""The API key that a node was given when it registered, in `X-API-Key`."""


def guard_with(services: Services) -> Guard:
    """A guard that lets through who has one of the operation's credentials, and remembers who it is."""

    async def guard(operation: Operation) -> None:
        if not operation.security:
            return
        headers = current_request().headers
        if NODE in operation.security and (key := headers.get("X-API-Key")):
            g.node = await services.registrar.authenticate(key)
        elif USER in operation.security:
            g.user = services.accounts.authenticate(_bearer(headers.get("Authorization", "")))
        else:
            raise Unauthorized("an X-API-Key header is wanted", code="token_missing")

    return guard


def asking_user() -> UserId:
    """The user that the guard let through."""
    user: UserId = g.user
    return user


def asking_node() -> NodeRecord | None:
    """The node that the guard let through, None when it was a user."""
    node: NodeRecord | None = g.get("node")
    return node


def _bearer(header: str) -> str:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("a header `Authorization: Bearer <token>` is wanted: log in", code="token_missing")
    return token.strip()
