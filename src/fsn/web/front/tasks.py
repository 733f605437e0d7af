"""The tasks of one connection: the application's, one per request, fed from an `Inbox`."""

from collections.abc import Awaitable, Callable

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

from fsn.web.front.config import FrontConfig
from fsn.web.front.inbox import Inbox

__all__ = ["ON_DISCONNECT", "FrontTaskGroup"]

ON_DISCONNECT = "fsn.on_disconnect"
"""Key in the scope's extensions: a function that takes what is to be called as soon as the client has gone. (Not one that waits: that would
be a task more, started and cancelled, for every request.)"""

Put = Callable[[ASGIReceiveEvent], Awaitable[None]]


async def _nothing() -> None:
    """What happens before a body by default."""


class FrontTaskGroup(TaskGroup):
    """Hypercorn's task group with a bounded inbox in place of its channel, which counts messages and not bytes."""

    before_body: Callable[[], Awaitable[None]] = staticmethod(_nothing)
    """Awaited when an application first asks for its body; the connection puts its protocol's `send_continue` here."""

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Put:
        """Start the application for one request; returns where the reader puts what arrives for it."""
        assert isinstance(config, FrontConfig)
        assert scope["type"] == "http"
        assert self._nursery is not None
        inbox = Inbox(config.inbox_bytes, self.before_body)
        scope["extensions"][ON_DISCONNECT] = inbox.call_when_gone  # type: ignore[assignment]  # ASGI lets servers add keys
        self._nursery.start_soon(_run_app, app, config, scope, inbox, send)
        return inbox.put


async def _run_app(
    app: AppWrapper,
    config: Config,
    scope: Scope,
    inbox: Inbox,
    send: Callable[[ASGISendEvent | None], Awaitable[None]],
) -> None:
    try:
        await _handle(app, config, scope, inbox.receive, send, trio.to_thread.run_sync, trio.from_thread.run)
    finally:
        inbox.close()
