"""`fsn coordinator payouts`: what nodes want paid out, and how it ended: paying is done by hand."""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

import attrs
import click
import trio

from fsn.cli.coordinator_nodes import open_catalogue
from fsn.cli.coordinator_settings import load_settings, settings_options
from fsn.cli.exits import ReportingGroup, json_option, print_json
from fsn.cli.progress import printable
from fsn.coord.database.payouts import Payout, pending_payouts, settle_payout
from fsn.core.names import check_words
from fsn.core.units import format_credits
from fsn.daemon.coordinator import CoordinatorConfig
from fsn.runtime.clock import system_clock

__all__ = ["payouts"]


@click.group(cls=ReportingGroup)
def payouts() -> None:
    """Payouts that nodes asked for. Pay them as you like, then say so here: the node's operator sees it."""


@payouts.command("list", epilog="\b\nExample:\n  fsn coordinator payouts list --json\n")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="So many at most.")
@settings_options
@json_option
def list_command(*, limit: int, as_json: bool, **flags: Any) -> None:
    """Those that wait, the oldest first."""
    found = trio.run(_list, load_settings(**flags), limit)
    if as_json:
        print_json({"payouts": [attrs.asdict(each) for each in found]})
        return
    for each in found:
        click.echo(_line(each))
    if not found:
        click.echo("no payout waits")


@payouts.command(epilog='\b\nExample:\n  fsn coordinator payouts paid ID --note "transfer 4711"\n')
@click.argument("payout", type=click.UUID)
@click.option("--note", required=True, help="How, for the record; the node sees it.")
@settings_options
def paid(*, payout: UUID, note: str, **flags: Any) -> None:
    """Say that PAYOUT was paid."""
    click.echo(_line(trio.run(_settle, load_settings(**flags), payout, "paid", check_words("a note", note))))


@payouts.command(epilog='\b\nExample:\n  fsn coordinator payouts refuse ID --note "there is no such account"\n')
@click.argument("payout", type=click.UUID)
@click.option("--note", required=True, help="Why, for the record; the node sees it.")
@settings_options
def refuse(*, payout: UUID, note: str, **flags: Any) -> None:
    """Refuse PAYOUT: its credits go back to the node's balance."""
    click.echo(_line(trio.run(_settle, load_settings(**flags), payout, "refused", check_words("a note", note))))


async def _list(config: CoordinatorConfig, limit: int) -> Sequence[Payout]:
    async with open_catalogue(config) as db:
        return await pending_payouts(db, limit)


async def _settle(config: CoordinatorConfig, payout: UUID, status: Literal["paid", "refused"], note: str) -> Payout:
    async with open_catalogue(config) as db:
        return await settle_payout(db, payout, status, note=note, at=system_clock())


def _line(found: Payout) -> str:
    note = f"  ({found.note})" if found.note else ""
    return (
        f"{found.id}  {found.at:%Y-%m-%d %H:%M}  {format_credits(found.amount)} credits  node {found.node}"
        f"  to {printable(found.destination)}  {found.status}{note}"
    )
