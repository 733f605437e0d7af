"""`fsn coordinator`: start a coordinator, bring its database up to date, show its configuration, judge its nodes."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import attrs
import click
import trio

from fsn.cli.coordinator_nodes import nodes, parse_node
from fsn.cli.coordinator_settings import load_settings, settings_options
from fsn.cli.exits import ReportingGroup, json_option, print_json
from fsn.cli.payouts import payouts
from fsn.cli.proofs import show_proofs
from fsn.cli.repairs import show_repairs
from fsn.cli.tariff import tariff
from fsn.coord.database.migrate import migrate as apply_migrations
from fsn.coord.database.pool import Pool, open_pool
from fsn.coord.database.reconciliations import allow_garbage, garbage_held
from fsn.core.errors import NotFound
from fsn.core.ids import NodeId
from fsn.daemon.coordinator import Coordinator, CoordinatorConfig, open_database, run_coordinator
from fsn.runtime.clock import system_clock
from fsn.runtime.config import config_as_toml
from fsn.runtime.data_folder import locked_folder
from fsn.runtime.logs import configure_logs

__all__ = ["coordinator"]

T = TypeVar("T")


@click.group(cls=ReportingGroup)
def coordinator() -> None:
    """Run and administer a coordinator.

    Settings come from a TOML file (--config, else coordinator.toml in the data folder), then from the environment
    (FSN_HTTP__PORT=8080), then from flags.
    """


coordinator.add_command(nodes)
coordinator.add_command(tariff)
coordinator.add_command(payouts)


@coordinator.command(
    epilog="""\b
Examples:
  fsn coordinator start
  fsn coordinator start --data-dir ./coordinator --http-port 8080 --p2p-port 4001
  PGPASSFILE=~/.pgpass fsn coordinator start --dsn postgresql://fsn@localhost/fsn
"""
)
@settings_options
def start(**flags: Any) -> None:
    """Run until SIGTERM or Ctrl-C; a second one ends at once. The ports in force are printed and written to ports.json."""
    config = load_settings(**flags)
    configure_logs(config.log)
    trio.run(lambda: run_coordinator(config, announce=_announce))


@coordinator.command(epilog="\b\nExample:\n  fsn coordinator migrate --dsn postgresql://fsn@localhost/fsn\n")
@settings_options
def migrate(**flags: Any) -> None:
    """Bring the database up to date without starting (start does it, too). Safe beside running coordinators."""
    config = load_settings(**flags)
    configure_logs(config.log)
    applied = trio.run(_migrate, config)
    click.echo(f"applied: {', '.join(map(str, applied))}" if applied else "the database is up to date")


async def _migrate(config: CoordinatorConfig) -> list[int]:
    with locked_folder(config.data_dir, mode=0o711):
        async with open_database(config) as dsn:
            return await trio.to_thread.run_sync(apply_migrations, dsn)


@coordinator.command(
    epilog="""\b
Examples:
  fsn coordinator repairs
  fsn coordinator repairs --limit 20 --dsn postgresql://fsn@localhost/fsn
"""
)
@settings_options
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Show so many at most.")
@json_option
def repairs(limit: int, as_json: bool, **flags: Any) -> None:
    """Show which chunks wait for repair, worst first, and why. Safe beside running coordinators."""
    config = load_settings(**flags)
    configure_logs(config.log)
    trio.run(show_repairs, config, limit, as_json)


@coordinator.command(
    epilog="""\b
Examples:
  fsn coordinator proofs
  fsn coordinator proofs NODE_ID --limit 10
  fsn coordinator proofs NODE_ID --json | jq .failures
"""
)
@click.argument("node_id", required=False)
@settings_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=42, show_default=True, help="Show so many at most.")
@json_option
def proofs(node_id: str | None, limit: int, as_json: bool, **flags: Any) -> None:
    """Show the last rounds of proofs; with NODE_ID how one node stands, what moved its reputation, and each failure."""
    config = load_settings(**flags)
    configure_logs(config.log)
    trio.run(show_proofs, config, None if node_id is None else parse_node(node_id), limit, as_json)


@coordinator.group(cls=ReportingGroup)
def config() -> None:
    """The coordinator's settings."""


@config.command(epilog="\b\nExample:\n  fsn coordinator config show > coordinator.toml\n")
@settings_options
def show(**flags: Any) -> None:
    """Print what is in force, as TOML."""
    click.echo(config_as_toml(load_settings(**flags)), nl=False)


@coordinator.group(cls=ReportingGroup)
def garbage() -> None:
    """Replicas on nodes that stand nowhere in the catalogue, where there are too many to be deleted unasked."""


@garbage.command("list", epilog="\b\nExample:\n  fsn coordinator garbage list --json\n")
@settings_options
@json_option
def list_garbage(*, as_json: bool, **flags: Any) -> None:
    """Name the nodes whose garbage waits for `allow`. Was an old backup of the database put back? Then put the newest one back instead."""
    held = trio.run(_with_database, load_settings(**flags), garbage_held)
    if as_json:
        print_json({"nodes": [{**attrs.asdict(each), "node": str(each.node)} for each in held]})
        return
    for each in held:
        state = "allowed" if each.is_allowed else f"held since {each.held_at:%Y-%m-%d %H:%M}"
        click.echo(f"{each.node}  {each.name}  {each.garbage} replicas of {each.garbage + each.agreed}  {state}")
    if not held:
        click.echo("nothing is held")


@garbage.command(epilog="\b\nExample:\n  fsn coordinator garbage allow 5a2f0c5e-6f0e-4d5e-9c3e-0d5e2f5a0c5e\n")
@click.argument("node", type=click.UUID)
@settings_options
def allow(*, node: UUID, **flags: Any) -> None:
    """Let the garbage of NODE be deleted in its next round, through the node's trash."""

    async def permit(db: Pool) -> bool:
        return await allow_garbage(db, NodeId(node), system_clock())

    if not trio.run(_with_database, load_settings(**flags), permit):
        raise NotFound(f"no garbage of node {node} is held; `fsn coordinator garbage list` names those that have some")
    click.echo("allowed: it is deleted in the node's next round")


async def _with_database(config: CoordinatorConfig, work: Callable[[Pool], Awaitable[T]]) -> T:
    async with open_database(config) as dsn, open_pool(dsn, config.database.pool, driver=config.database.driver) as db:
        return await work(db)


def _announce(running: Coordinator) -> None:
    click.echo(f"coordinator {running.peer}")
    click.echo(f"  HTTP API       {running.url}")
    for address in running.addresses:
        click.echo(f"  storage nodes  {address}")
