"""`fsn node drain` and `fsn node maintenance`: leave the network for good, or for some hours."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import trio

from fsn.cli.admin import Call, ask, open_admin
from fsn.cli.exits import json_option, print_json
from fsn.cli.options import data_dir_option
from fsn.cli.progress import open_progress
from fsn.core.errors import Conflict, FsnError, Invalid, Unreachable
from fsn.core.maintenance import LONGEST_HOURS
from fsn.core.units import format_size

__all__ = ["counted_line", "drain", "drain_line", "maintenance", "parse_hours"]

LOOK_SECONDS = 2.0
LINE_SECONDS = 60.0
"""Without a terminal, how often a line is printed though nothing has changed."""
AWAY_SECONDS = 900.0
"""For so long a node that does not answer is waited for: it may be starting again."""

_UNITS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


def parse_hours(text: str) -> float:
    """ "90m", "48h" or "3d" in hours. Raises Invalid."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([mhd])", text.strip().lower())
    if found is None or not float(found[1]):
        raise Invalid(f"a time like 90m, 48h or 3d is wanted; got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def _hours(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    return None if text is None else parse_hours(text)


@click.command(
    epilog="""\b
Examples:
  fsn node drain                     empty this node and leave; shows how far it is
  fsn node drain --deadline 48h      leave in two days at the latest
  fsn node drain --no-wait           only begin; fsn node status shows how far it is
  fsn node drain --cancel            stay after all
"""
)
@data_dir_option
@click.option(
    "--deadline",
    "deadline_hours",
    callback=_hours,
    metavar="TIME",
    help="Leave after so long at the latest (90m, 48h, 3d), copied or not: what is not copied then is left to repair.",
)
@click.option("--cancel", is_flag=True, help="Stay after all: what was not moved yet stays here.")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Show how far it is, and return when the node has left."
)
@json_option
def drain(*, data_dir: Path, deadline_hours: float | None, cancel: bool, wait: bool, as_json: bool) -> None:
    """Empty the node and leave the network.

    New chunks are refused at once; copies of those that are here are made elsewhere, and only then they are deleted here. The node has to
    go on running until it has left. Ctrl-C ends only the watching; the drain goes on, also after a restart of the node.
    """
    if cancel and deadline_hours is not None:
        raise Invalid("--cancel and --deadline contradict each other: give one of them")
    trio.run(_cancel if cancel else _drain, data_dir, deadline_hours, wait, as_json)


async def _cancel(data_dir: Path, _: float | None, __: bool, as_json: bool) -> None:
    async with open_admin(data_dir) as call:
        found = await call("DELETE", "/drain")
    _tell(found, f"the node stays; {found['replicas_stored']} replicas are here", as_json=as_json)


async def _drain(data_dir: Path, deadline_hours: float | None, wait: bool, as_json: bool) -> None:
    body = {} if deadline_hours is None else {"deadline_hours": deadline_hours}
    async with open_admin(data_dir) as call:
        found = await _begin(call, body)
    if not wait:
        _tell(found, drain_line(found), as_json=as_json)
        return
    found = await _watch(data_dir, found, as_json=as_json)
    _tell(found, "\n".join(_farewell(found)), as_json=as_json)


async def _begin(call: Call, body: Mapping[str, float]) -> Any:
    """Begin, or go on: without a deadline, one that was set before stays, and who has left need not leave again."""
    found = await call("GET", "/drain")
    if found["standing"] == "left" or (found["standing"] == "draining" and not body):
        return found
    return await call("POST", "/drain", body=body, idempotent=True)


async def _watch(data_dir: Path, found: Any, *, as_json: bool) -> Any:
    """Look until the node has left; a bar on a terminal, lines elsewhere (on standard error, with --json)."""
    with open_progress("moving") as bar:
        said = _Lines(as_json)
        while found["standing"] != "left":
            if found["standing"] != "draining":
                raise Conflict(
                    f"the drain was cancelled: the node is {found['standing']} again", code="drain_cancelled"
                )
            if bar is None:
                said.note(drain_line(found))
            elif found["bytes_left"] is not None:
                total = max(found["bytes_total"], found["bytes_left"])
                bar(total - found["bytes_left"], total)
            await trio.sleep(LOOK_SECONDS)
            found = await _look(data_dir)
    return found


async def _look(data_dir: Path) -> Any:
    """How far it is. A node that is away for a while (it is started again, say) is waited for; raises Unreachable after that."""
    with trio.move_on_after(AWAY_SECONDS):
        while True:
            try:
                async with open_admin(data_dir, may_change=False) as call:
                    return await call("GET", "/drain")
            except FsnError as error:
                if not error.transient:
                    raise
            await trio.sleep(LOOK_SECONDS)
    raise Unreachable(
        f"the node in {data_dir} does not run any more, and has not left yet: start it, and it goes on draining"
    )


class _Lines:
    """Progress as lines: when something has changed, and once a minute."""

    def __init__(self, to_stderr: bool) -> None:
        self._to_stderr = to_stderr
        self._last = ""
        self._at = -math.inf

    def note(self, line: str) -> None:
        """Print it, if it is new or the last one is old."""
        if line != self._last or trio.current_time() - self._at >= LINE_SECONDS:
            click.echo(line, err=self._to_stderr)
            self._last, self._at = line, trio.current_time()


def drain_line(found: Mapping[str, Any]) -> str:
    """How far a drain is, in one line."""
    if found["standing"] == "left":
        return "this node has left the network and may be stopped"
    if found["standing"] != "draining":
        return f"no drain: the node is {found['standing']}"
    return "; ".join(_drain_parts(found))


def _drain_parts(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["coordinators_told"]:
        yield "draining; no coordinator has been told yet (it will be as soon as one is connected)"
        return
    if found["replicas_left"]:
        yield f"draining: {found['replicas_left']} replicas ({format_size(found['bytes_left'])}) still to be moved"
    else:
        yield f"draining: everything is elsewhere, {found['replicas_stored']} replicas here still to be deleted"
    if found["bytes_per_second"]:
        yield f"{format_size(int(found['bytes_per_second']))}/s, about {_span(found['seconds_left'])} left"
    if found["replicas_only_here"]:
        yield f"{found['replicas_only_here']} are nowhere else yet"
    if found["counted"]["reason"]:
        yield str(found["counted"]["reason"])


def _farewell(found: Mapping[str, Any]) -> Iterator[str]:
    yield "this node has left the network and may be stopped; its folder can be deleted"
    if found["counted"]["reason"]:
        yield str(found["counted"]["reason"])


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "some time"
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _tell(found: Any, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        click.echo(text)


@click.group(epilog="\b\nExample:\n  fsn node maintenance start --hours 4 --reason 'a new disk'")
def maintenance() -> None:
    """Be away for some hours without it counting against the node."""


@maintenance.command(epilog="\b\nExample:\n  fsn node maintenance start --hours 4 --reason 'a new disk'")
@data_dir_option
@click.option(
    "--hours",
    type=click.FloatRange(0, LONGEST_HOURS, min_open=True),
    required=True,
    help="How long; it ends by itself then.",
)
@click.option("--reason", default="", help="For people; shown beside the node's state.")
@json_option
def start(*, data_dir: Path, hours: float, reason: str, as_json: bool) -> None:
    """Declare maintenance; in force when this returns with 0.

    The coordinators give no new chunks and do not count silence until its end; reads go on while the node is up. At most 72 hours at a
    time, and in any 30 days together. A node that does not run cannot declare anything: declare first, then stop it.
    """

    async def begin(call: Call) -> Any:
        return await call("POST", "/maintenance", body={"hours": hours, "reason": reason}, idempotent=True)

    found = _change(data_dir, begin)
    _tell(found, f"in maintenance until {_time(found['until'])}; the node may be stopped until then", as_json=as_json)


@maintenance.command(epilog="\b\nExample:\n  fsn node maintenance end")
@data_dir_option
@json_option
def end(*, data_dir: Path, as_json: bool) -> None:
    """Back to work; harmless when there is no maintenance. It also ends by itself at its time."""

    async def finish(call: Call) -> Any:
        return await call("DELETE", "/maintenance")

    found = _change(data_dir, finish)
    _tell(found, f"no maintenance: the node is {found['standing']}", as_json=as_json)


@maintenance.command("status", epilog="\b\nExample:\n  fsn node maintenance status --json")
@data_dir_option
@json_option
def maintenance_status(*, data_dir: Path, as_json: bool) -> None:
    """Show the declared maintenance, and how the coordinators count the node."""
    found = ask(data_dir, "/maintenance")
    said = (
        f"in maintenance until {_time(found['until'])}"
        if found["until"]
        else f"no maintenance: the node is {found['standing']}"
    )
    _tell(found, f"{said}\ncounted as {counted_line(found['counted'])}", as_json=as_json)


def _change(data_dir: Path, change: Callable[[Call], Any]) -> Any:
    async def run() -> Any:
        async with open_admin(data_dir) as call:
            return await change(call)

    return trio.run(run)


def counted_line(counted: Mapping[str, Any]) -> str:
    """How the coordinators count the node, in one line."""
    if counted["state"] is None:
        return "not known (no coordinator has answered yet)"
    until = f", until {_time(counted['until'])}" if counted["until"] else ""
    reason = f" ({counted['reason']})" if counted["reason"] else ""
    return f"{counted['state']} since {_time(counted['since'])}{until}{reason}"


def _time(text: str) -> str:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone().strftime("%Y-%m-%d %H:%M")
