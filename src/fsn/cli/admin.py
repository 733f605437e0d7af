"""A command line's way to the admin API of the node in a folder."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from fsn.client.connection import Connection, Timeouts
from fsn.client.retrying import Retrying
from fsn.core.errors import ConfigError, Unreachable
from fsn.node.admin_token import read_admin_token
from fsn.node.config import CONFIG_NAME, NodeConfig
from fsn.node.registration import load_node_config
from fsn.runtime.data_folder import is_in_use, read_ports

__all__ = ["Call", "ask", "load", "open_admin"]

Call = Callable[..., Awaitable[Any]]
"""`await call(method, path, params=..., body=...)`: the JSON answer. Raises `FsnError`s."""

ANSWER_SECONDS = 30.0
"""A change is told to the coordinators before it is answered, for which they have 10 s."""


def load(data_dir: Path) -> NodeConfig:
    """The settings in force of the node in this folder. Raises ConfigError when there is none."""
    if not (data_dir / CONFIG_NAME).exists():
        raise ConfigError(f"there is no node in {data_dir}: make one with `fsn node init --data-dir {data_dir} ...`")
    return load_node_config(data_dir, environment=os.environ)


def ask(data_dir: Path, path: str, **params: str) -> Any:
    """What the running node's admin API answers to a GET. Raises `Unreachable` when the node does not run."""

    async def ask_once() -> Any:
        async with open_admin(data_dir, may_change=False) as call:
            return await call("GET", path, params=params)

    return trio.run(ask_once)


@asynccontextmanager
async def open_admin(data_dir: Path, *, may_change: bool = True) -> AsyncIterator[Call]:
    """Calls of the running node's admin API, with its token if they are to change something.

    Raises Unreachable when the node does not run, ConfigError when there is none.
    """
    url = _url(data_dir)
    token = read_admin_token(data_dir) if may_change else None
    timeouts = Timeouts(connect_seconds=5.0, answer_seconds=ANSWER_SECONDS, send_seconds=10.0)
    async with Connection(url, token, timeouts, Retrying(attempts=2)) as connection:
        yield connection.call


def _url(data_dir: Path) -> str:
    config = load(data_dir)
    port = read_ports(data_dir).get("admin") if is_in_use(data_dir) else None
    if port is None:
        raise Unreachable(f"the node in {data_dir} does not run; start it with `fsn node start --data-dir {data_dir}`")
    host = config.admin.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
