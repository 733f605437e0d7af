"""`fsn coordinator tariff`: what nodes earn and users pay, from when on."""

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
from fsn.core.names import check_words
from fsn.core.units import MicroCredits, format_credits, parse_credits
from fsn.daemon.coordinator import CoordinatorConfig
from fsn.runtime.clock import system_clock

__all__ = ["tariff"]


@attrs.frozen
class _Wanted:
    """A tariff to be; amounts in micro-credits, None for no change."""

    valid_from: datetime
    reward: int | None
    price: int | None
    reason: str


@click.group(cls=ReportingGroup)
def tariff() -> None:
    """What a GB-month earns a node and costs a user. A tariff is never changed: another one comes after the last."""


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
  fsn coordinator tariff add --from 2027-01-01 --reward 1.25 --price 1.8 --reason "disks have become dearer"
"""
)
@click.option(
    "--from", "day", required=True, metavar="DAY", help="The first day (UTC), e.g. 2027-01-01; not today or before."
)
@click.option(
    "--reward",
    metavar="CREDITS",
    help="Of nodes, for 10^9 sealed bytes and 720 hours, e.g. 1.25. Not given: as before.",
)
@click.option(
    "--price",
    metavar="CREDITS",
    help="Of users, for 10^9 bytes, 30 days and a replica, e.g. 1.8. Not given: as before.",
)
@click.option("--reason", required=True, help="Why, for the record.")
@settings_options
def add(day: str, reward: str | None, price: str | None, reason: str, **flags: Any) -> None:
    """Decide on what nodes earn, or users pay for new files, from a day on."""
    if reward is None and price is None:
        raise Invalid("what changes? --reward, --price or both are wanted; got neither")
    words = check_words("a reason", reason)
    wanted = _Wanted(_midnight(day), _amount(reward), _amount(price), words)
    click.echo(_line(trio.run(_add, load_settings(**flags), wanted)))


def _midnight(day: str) -> datetime:
    try:
        found = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise Invalid(f"a day like 2027-01-01 is wanted; got {day[:40]!r}") from None
    if found <= system_clock():
        raise Invalid(f"a tariff begins on a day to come: what was held until then is paid as was promised; got {day}")
    return found


def _amount(text: str | None) -> int | None:
    if text is not None and parse_credits(text) < 0:
        raise Invalid(f"rewards and prices are 0 credits or more; got {text}")
    return None if text is None else parse_credits(text)


async def _list(config: CoordinatorConfig) -> list[Tariff]:
    async with open_catalogue(config) as db:
        return list(await list_tariffs(db))


async def _add(config: CoordinatorConfig, wanted: _Wanted) -> Tariff:
    async with open_catalogue(config) as db:
        added = await add_tariff(
            db, valid_from=wanted.valid_from, node_reward=wanted.reward, user_price=wanted.price, reason=wanted.reason
        )
        if added is None:
            last = (await list_tariffs(db))[-1]
            raise Conflict(
                f"a tariff from {last.valid_from:%Y-%m-%d} on is there; another one begins later,"
                f" not on {wanted.valid_from:%Y-%m-%d}"
            )
        return added


def _line(found: Tariff) -> str:
    reward, price = (_exactly(each) for each in (found.node_reward, found.user_price))
    return f"{found.version}  from {found.valid_from:%Y-%m-%d}  nodes earn {reward}, users pay {price} a GB-month  ({found.reason})"


def _exactly(micro: int) -> str:
    """With as many decimals as it has, two at least."""
    shown = format_credits(MicroCredits(micro))
    return shown if parse_credits(shown) == micro else f"{micro / 1e6:.6f}"
