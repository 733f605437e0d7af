"""As whom and where a user's command runs: the coordinator's URL and the token kept for it."""

import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
import trio

from fsn.cli.credentials import default_credentials
from fsn.client import Client

__all__ = ["url_option", "with_client"]

T = TypeVar("T")

DEFAULT_URL = "http://localhost:8080"

url_option = click.option(
    "--url",
    envvar="FSN_URL",
    default=DEFAULT_URL,
    show_default=True,
    show_envvar=True,
    callback=lambda _context, _parameter, value: value.rstrip("/"),
    help="The coordinator.",
)


def _open_client(url: str) -> Client:
    token = os.environ.get("FSN_TOKEN") or default_credentials().token(url)
    return Client(url, token)


def with_client(url: str, action: Callable[[Client], Awaitable[T]]) -> T:
    """Run one action as the user who is logged in; its own waits are bounded by the client's timeouts."""

    async def act() -> T:
        async with _open_client(url) as client:
            return await action(client)

    return trio.run(act)
