"""`fsn coordinator nodes`: an administrator looks at nodes and judges them, over the database; a coordinator may run beside or not."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import click
import trio

from fsn.cli.coordinator_settings import load_settings, settings_options
from fsn.cli.exits import ReportingGroup
from fsn.coord.catalog import NodeRecord
from fsn.coord.database.migrate import migrate
from fsn.coord.database.node_states import change_status, transitions_of
from fsn.coord.database.nodes import list_nodes, node_by_id
from fsn.coord.database.pool import Pool, open_pool
from fsn.coord.database.repairs import queue_node
from fsn.coord.database.reputations import exclude, start_anew
from fsn.coord.liveness.uptime import uptimes
from fsn.core.errors import ConfigError, Conflict, Invalid, NotFound
from fsn.core.ids import NodeId, parse_uuid
from fsn.core.names import check_words
from fsn.core.node_states import NODE_STATES, NodeState
from fsn.core.units import format_size
from fsn.daemon.coordinator import CoordinatorConfig, open_database
from fsn.runtime.clock import system_clock

__all__ = ["nodes", "open_catalogue", "parse_node"]

T = TypeVar("T")

PAGE: Final = 500
SHOWN_TRANSITIONS: Final = 20


@click.group(cls=ReportingGroup)
def nodes() -> None:
    """Look at storage nodes, and judge them."""


@nodes.command("list", epilog="\b\nExample:\n  fsn coordinator nodes list --status offline\n")
@click.option("--status", type=click.Choice(NODE_STATES), help="Only nodes in this state.")
@settings_options
def list_command(status: NodeState | None, **flags: Any) -> None:
    """All nodes: how they stand, since when, and why."""
    _run(flags, lambda db: _list(db, status))


@nodes.command(epilog="\b\nExample:\n  fsn coordinator nodes show 6b1f0a5e-0c8e-4a51-9c0b-0a2f7f6b7c11\n")
@click.argument("node_id")
@settings_options
def show(node_id: str, **flags: Any) -> None:
    """One node, its uptime, and what it went through."""
    _run(flags, lambda db: _show(db, parse_node(node_id)))


@nodes.command(epilog='\b\nExample:\n  fsn coordinator nodes disqualify NODE_ID --reason "serves wrong bytes"\n')
@click.argument("node_id")
@click.option("--reason", required=True, help="Why, for the record; anybody can read it.")
@settings_options
def disqualify(node_id: str, reason: str, **flags: Any) -> None:
    """Exclude a node: it is given nothing any more, and its replicas count as lost. Again is harmless."""
    _run(flags, lambda db: _judge(db, parse_node(node_id), "disqualified", check_words("a reason", reason)))


@nodes.command(epilog='\b\nExample:\n  fsn coordinator nodes reinstate NODE_ID --reason "a mistake of ours"\n')
@click.argument("node_id")
@click.option("--reason", required=True, help="Why, for the record; anybody can read it.")
@settings_options
def reinstate(node_id: str, reason: str, **flags: Any) -> None:
    """Take a disqualified node back, or end a suspension: what it still holds counts again, and it is vetted anew."""
    _run(flags, lambda db: _reinstate(db, parse_node(node_id), check_words("a reason", reason)))


def _run(flags: dict[str, Any], act: Callable[[Pool], Awaitable[None]]) -> None:
    config = load_settings(**flags)

    async def main() -> None:
        async with open_catalogue(config) as db:
            await act(db)

    trio.run(main)


@asynccontextmanager
async def open_catalogue(config: CoordinatorConfig) -> AsyncIterator[Pool]:
    """The database, brought up to date; an embedded server that runs is shared, one that does not runs as long as the block."""
    if config.database.dsn is None and not (config.data_dir / "postgres").exists():
        raise ConfigError(f"there is no database in {config.data_dir}: name the coordinator's --data-dir, or its --dsn")
    async with open_database(config) as dsn:
        await trio.to_thread.run_sync(migrate, dsn)
        async with open_pool(dsn, config.database.pool, driver=config.database.driver) as pool:
            yield pool


def parse_node(text: str) -> NodeId:
    """A node's id. Raises Invalid."""
    if (found := parse_uuid(text)) is None:
        raise Invalid(f"a node's id is a UUID, as `fsn coordinator nodes list` shows it; got {text[:60]!r}")
    return NodeId(found)


async def _list(db: Pool, status: NodeState | None) -> None:
    after: NodeId | None = None
    while page := await list_nodes(db, after, PAGE):
        for record in page:
            if status in (None, record.status):
                since = record.status_since.isoformat(sep=" ", timespec="seconds")
                click.echo(f"{record.id}  {record.status:<12}  since {since}  {record.name}  ({record.status_reason})")
        after = page[-1].id


async def _show(db: Pool, node: NodeId) -> None:
    record = await _existing(db, node)
    click.echo(f"node         {record.id}  {record.name}")
    click.echo(f"peer         {record.peer_id}")
    click.echo(f"status       {record.status} since {_time(record.status_since)}: {record.status_reason}")
    click.echo(f"heard        {'now' if record.absent_since is None else f'not since {_time(record.absent_since)}'}")
    click.echo(f"holds        {record.chunk_count} replicas, {format_size(record.used_bytes)}")
    now = system_clock()
    for name, window in (("uptime 24 h", timedelta(days=1)), ("uptime 30 d", timedelta(days=30))):
        share = (await uptimes(db, [node], now - window, now))[node].share
        click.echo(f"{name}  {'not known' if share is None else f'{share:.2%}'}")
    for each in await transitions_of(db, node, None, SHOWN_TRANSITIONS):
        until = f" until {_time(each.until)}" if each.until else ""
        click.echo(f"  {_time(each.at)}  {each.begin or '-'} -> {each.end}{until}: {each.reason}")


async def _judge(db: Pool, node: NodeId, to: NodeState, reason: str) -> None:
    record, now = await _existing(db, node), system_clock()
    async with db.transaction() as connection:
        if not await change_status(connection, node, to, reason=f"an administrator: {reason}", at=now):
            raise Conflict(f"a node that is {record.status} cannot become {to}")
        await queue_node(connection, node, reason=f"the node is {to}", at=now)
        decide = exclude if to == "disqualified" else start_anew
        await decide(connection, node, reason=f"an administrator: {reason}", at=now)
    click.echo(f"{record.name} is {to}; running coordinators know within seconds")


async def _reinstate(db: Pool, node: NodeId, reason: str) -> None:
    record, now = await _existing(db, node), system_clock()
    if record.status != "disqualified" and record.suspended_at is not None:
        async with db.transaction() as connection:
            await start_anew(connection, node, reason=f"an administrator: {reason}", at=now)
        click.echo(f"{record.name} is suspended no more; running coordinators know within a minute")
        return
    if record.status != "disqualified":
        raise Conflict(f"only a disqualified or suspended node can be reinstated; this one is {record.status}")
    # Whoever hears it says within seconds that it is online.
    await _judge(db, node, "offline", reason)


async def _existing(db: Pool, node: NodeId) -> NodeRecord:
    record = await node_by_id(db, node)
    if record is None:
        raise NotFound(f"there is no node {node}")
    return record


def _time(at: datetime) -> str:
    return at.isoformat(sep=" ", timespec="seconds")
