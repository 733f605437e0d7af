"""`fsn node earnings`: what this node was paid, and whether that follows from what stands beside it."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import attrs
import click
import trio

from fsn.cli.admin import ask, load
from fsn.cli.exits import json_option, print_json
from fsn.cli.options import data_dir_option
from fsn.core.errors import Corrupt, Unreachable
from fsn.core.units import MicroCredits, format_credits, format_size
from fsn.node.config import NodeConfig
from fsn.node.earnings import Received, fetch_statements, first_difference

__all__ = ["earnings"]


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  fsn node earnings --days 7
  fsn node earnings --json
  fsn node earnings verify
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
