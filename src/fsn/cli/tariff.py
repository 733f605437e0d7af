"""`fsn coordinator tariff`: what nodes earn, from when on."""

from datetime import UTC, datetime
from typing import Any

import attrs
import click
import trio

from fsn.cli.coordinator_nodes import open_catalogue
from fsn.cli.coordinator_settings import load_settings, settings_options
from fsn.cli.exits import ReportingGroup, json_option, print_json
from fsn.coord.database.tariffs import Tariff, add_tariff, list_tariffs
from fsn.core.errors import Conflict, Invalid
from fsn.core.units import MicroCredits, format_credits, parse_credits
from fsn.daemon.coordinator import CoordinatorConfig
from fsn.runtime.clock import system_clock

__all__ = ["tariff"]

LONGEST_REASON = 200


@click.group(cls=ReportingGroup)
def tariff() -> None:
    """What a GB-month of sealed bytes earns a node. A tariff is never changed: another one comes after the last."""


@tariff.command("list", epilog="\b\nExample:\n  fsn coordinator tariff list --json\n")
@settings_options
@json_option
def list_command(*, as_json: bool, **flags: Any) -> None:
    """All tariffs, in the order in which they come into force."""
    found = trio.run(_list, load_settings(**flags))
    if as_json:
        print_json({"tariffs": [attrs.asdict(each) for each in found]})
        return
    for each in found:
        click.echo(_line(each))


@tariff.command(
    epilog="""\b
Example:
  fsn coordinator tariff add --from 2027-01-01 --reward 1.25 --reason "disks have become dearer"
"""
)
@click.option(
    "--from", "day", required=True, metavar="DAY", help="The first day (UTC), e.g. 2027-01-01; not today or before."
)
@click.option("--reward", required=True, metavar="CREDITS", help="For 10^9 sealed bytes and 720 hours, e.g. 1.25.")
@click.option("--reason", required=True, help="Why, for the record.")
@settings_options
def add(day: str, reward: str, reason: str, **flags: Any) -> None:
    """Decide on what nodes earn from a day on."""
    if not reason.strip() or not reason.isprintable() or len(reason) > LONGEST_REASON:
        raise Invalid(f"a reason has 1 to {LONGEST_REASON} printable characters; got {reason[:60]!r}")
    wanted = Tariff(0, _midnight(day), _reward(reward), reason.strip())
    click.echo(_line(trio.run(_add, load_settings(**flags), wanted)))


def _midnight(day: str) -> datetime:
    try:
        found = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise Invalid(f"a day like 2027-01-01 is wanted; got {day[:40]!r}") from None
    if found <= system_clock():
        raise Invalid(f"a tariff begins on a day to come: what was held until then is paid as was promised; got {day}")
    return found


def _reward(text: str) -> int:
    if (found := parse_credits(text)) < 0:
        raise Invalid(f"a reward is 0 credits or more; got {text}")
    return found


async def _list(config: CoordinatorConfig) -> list[Tariff]:
    async with open_catalogue(config) as db:
        return list(await list_tariffs(db))


async def _add(config: CoordinatorConfig, wanted: Tariff) -> Tariff:
    async with open_catalogue(config) as db:
        added = await add_tariff(db, valid_from=wanted.valid_from, node_reward=wanted.node_reward, reason=wanted.reason)
        if added is None:
            last = (await list_tariffs(db))[-1]
            raise Conflict(
                f"a tariff from {last.valid_from:%Y-%m-%d} on is there; another one begins later,"
                f" not on {wanted.valid_from:%Y-%m-%d}"
            )
        return added


def _line(found: Tariff) -> str:
    reward = format_credits(MicroCredits(found.node_reward))
    return f"{found.version}  from {found.valid_from:%Y-%m-%d}  {reward} credits a GB-month  ({found.reason})"
