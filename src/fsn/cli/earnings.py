"""`fsn node earnings`: what this node was paid, whether that follows from what stands beside it, and payouts."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import attrs
import click
import trio

from fsn.cli.admin import ask, load
from fsn.cli.exits import json_option, print_json
from fsn.cli.options import data_dir_option
from fsn.cli.progress import printable
from fsn.core.errors import Corrupt, Invalid, Unreachable
from fsn.core.units import MicroCredits, format_credits, format_size, parse_credits
from fsn.node.config import NodeConfig
from fsn.node.earnings import (
    Payout,
    Received,
    ask_for_payout,
    fetch_payouts,
    fetch_statements,
    first_difference,
)

__all__ = ["earnings"]


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  fsn node earnings --days 7
  fsn node earnings --json
  fsn node earnings verify
  fsn node earnings payout 12.50 --to "my account"
""",
)
@data_dir_option
@click.option("--days", type=click.IntRange(1), default=31, show_default=True, help="Show so many days at most.")
@json_option
@click.pass_context
def earnings(context: click.Context, *, data_dir: Path, days: int, as_json: bool) -> None:
    """Show what this node was paid, day by day, by which rules; and today's estimate, if it runs."""
    if context.invoked_subcommand is not None:
        return
    config = load(data_dir)
    statements = trio.run(fetch_statements, config)
    told = _told(data_dir)
    if as_json:
        print_json({"statements": [_plain(each) for each in statements[-days:]], "told": told})
        return
    for each in statements[-days:]:
        click.echo(_line(each))
    if not statements:
        click.echo("no day was paid yet: a day is paid when its uptime and proofs are final, on the third day after it")
    click.echo(f"earned in all: {_credits(sum(each.statement.earned for each in statements))} credits")
    if told is not None:
        click.echo(
            f"balance: {_credits(told['balance_micro_credits'])}, held back: {_credits(told['held_micro_credits'])}"
        )
        click.echo(f"today, as an estimate: {_credits(told['today_micro_credits'])}")


@earnings.command(epilog="\b\nExample:\n  fsn node earnings verify && echo right\n")
@data_dir_option
@json_option
def verify(*, data_dir: Path, as_json: bool) -> None:
    """Compute every statement anew from its inputs; check the chain of hashes and each signature. Names the first that differs."""
    config: NodeConfig = load(data_dir)
    statements = trio.run(fetch_statements, config)
    wrong = first_difference(statements, config.node_id)
    if as_json:
        print_json({"statements": len(statements), "difference": wrong})
    if wrong is not None:
        raise Corrupt(f"the statements do not add up: {wrong}")
    if not as_json:
        total = sum(each.statement.earned for each in statements)
        click.echo(f"{len(statements)} statements, {_credits(total)} credits: all as computed, in one chain, signed")


@earnings.command(epilog='\b\nExample:\n  fsn node earnings payout 12.50 --to "IBAN DE02 1203 0000 0000 2020 51"\n')
@click.argument("amount")
@click.option("--to", "destination", required=True, help="Where to: whoever pays out reads it, e.g. an account.")
@click.option(
    "--id",
    "wanted",
    type=click.UUID,
    help="Of a request whose answer was lost: with the same id again nothing more is asked for.",
)
@data_dir_option
@json_option
def payout(*, amount: str, destination: str, wanted: UUID | None, data_dir: Path, as_json: bool) -> None:
    """Ask for a payout of AMOUNT credits: the balance falls by it at once, and the request is on record until somebody pays."""
    config, micro, named = load(data_dir), parse_credits(amount), wanted or uuid4()
    if micro <= 0:
        raise Invalid(f"a payout is of more than 0 credits; got {amount}")
    if not as_json:
        click.echo(f"asking for {_credits(micro)} credits; should the answer be lost: --id {named}")
    found = trio.run(ask_for_payout, config, named, micro, destination)
    _show([each for each in found if each.id == named], as_json=as_json)


@earnings.command(epilog="\b\nExample:\n  fsn node earnings payouts --json\n")
@data_dir_option
@json_option
def payouts(*, data_dir: Path, as_json: bool) -> None:
    """List the payouts that were asked for, the newest first, and how each stands."""
    found = trio.run(fetch_payouts, load(data_dir))
    _show(found, as_json=as_json)
    if not found and not as_json:
        click.echo("no payout was asked for yet")


def _show(found: Sequence[Payout], *, as_json: bool) -> None:
    if as_json:
        print_json({"payouts": [attrs.asdict(each) for each in found]})
        return
    for each in found:
        note = f"  ({each.note})" if each.note else ""
        line = f"{each.at:.19}Z  {_credits(each.micro_credits)} credits  {each.status}  to {each.destination}  {each.id}{note}"
        click.echo(printable(line))


def _told(data_dir: Path) -> Any:
    """What the running node was told; None when it does not run, or was told nothing yet."""
    try:
        return ask(data_dir, "/status")["earnings"]
    except Unreachable:
        return None


def _line(each: Received) -> str:
    statement, inputs = each.statement, each.statement.inputs
    day = date(1970, 1, 1) + timedelta(days=inputs.day)
    uptime = f"{inputs.present / inputs.counted:.2%}" if inputs.counted else "not counted"
    held = f", {_credits(statement.held)} held back" if statement.held else ""
    rules = ", ".join(f"{line.rule} {line.micro_credits / 1e6:+.6f}" for line in statement.lines if line.micro_credits)
    return (
        f"{day}  {statement.earned / 1e6:.6f} credits{held}: {format_size(inputs.byte_seconds // 86_400)} for a day, uptime {uptime},"
        f" {inputs.asked} challenges, {inputs.missed} missed, {inputs.failed} failed ({rules or 'nothing'})"
    )


def _plain(each: Received) -> dict[str, Any]:
    inputs = attrs.asdict(each.statement.inputs)
    lines = [attrs.asdict(line) for line in each.statement.lines]
    return {
        "inputs": inputs,
        "lines": lines,
        "earned": each.statement.earned,
        "held": each.statement.held,
        "previous": each.previous.hex(),
        "hash": each.hash.hex(),
        "coordinator": each.coordinator,
        "signature": each.signature.hex(),
    }


def _credits(micro: int) -> str:
    return format_credits(MicroCredits(micro))
