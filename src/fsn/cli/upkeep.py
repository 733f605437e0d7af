"""`fsn node trash` and `fsn node scrub`: what a node has put aside, and checking all that it has."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click
import trio

from fsn.cli.admin import Call, open_admin
from fsn.cli.exits import json_option, print_json
from fsn.cli.options import data_dir_option
from fsn.core.errors import Invalid
from fsn.core.units import format_size

__all__ = ["scrub", "scrub_line", "trash"]

_PAGE = 1000


@click.group()
def trash() -> None:
    """Garbage that a coordinator found here; it can be taken back for some days."""


@trash.command("list", epilog="\b\nExample:\n  fsn node trash list --json\n")
@data_dir_option
@json_option
def list_trash(*, data_dir: Path, as_json: bool) -> None:
    """List what lies in the trash, in the order of the ids."""

    async def collect() -> list[Any]:
        async with open_admin(data_dir, may_change=False) as call:
            return [each async for each in _all(call)]

    found = trio.run(collect)
    if as_json:
        print_json({"replicas": found})
        return
    for each in found:
        click.echo(f"{each['id']}  {each['size_bytes']:>8}  {each['trashed_at']}")
    click.echo(f"{len(found)} replicas", err=True)


@trash.command(
    epilog="\b\nExamples:\n  fsn node trash restore 0123456789abcdef0123456789abcdef\n  fsn node trash restore --all\n"
)
@click.argument("ids", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="Everything in the trash.")
@data_dir_option
@json_option
def restore(*, ids: tuple[str, ...], is_all: bool, data_dir: Path, as_json: bool) -> None:
    """Make replicas of the trash chunks again: when the coordinator was wrong, as with an old backup of its database."""
    if bool(ids) == is_all:
        raise Invalid("name replicas by their ids, or give --all")

    async def run() -> tuple[int, dict[str, str]]:
        done, failed = 0, {}
        async with open_admin(data_dir) as call:
            wanted = [each["id"] async for each in _all(call)] if is_all else list(ids)
            for start in range(0, len(wanted), _PAGE):
                body = {"ids": wanted[start : start + _PAGE]}
                answer = await call("POST", "/trash/restore", body=body, idempotent=True)
                done += answer["restored"]
                failed.update(answer["failed"])
        return done, failed

    restored, failed = trio.run(run)
    if as_json:
        print_json({"restored": restored, "failed": failed})
        return
    click.echo(f"{restored} replicas are stored again")
    for each, reason in failed.items():
        click.echo(f"{each}: {reason}", err=True)


@trash.command(epilog="\b\nExample:\n  fsn node trash empty\n")
@data_dir_option
@json_option
def empty(*, data_dir: Path, as_json: bool) -> None:
    """Remove everything in the trash for good."""

    async def run() -> tuple[int, int]:
        removed = size_bytes = 0
        async with open_admin(data_dir) as call:
            while (answer := await call("POST", "/trash/empty", idempotent=True))["removed"]:
                removed += answer["removed"]
                size_bytes += answer["removed_bytes"]
        return removed, size_bytes

    removed, size_bytes = trio.run(run)
    if as_json:
        print_json({"removed": removed, "removed_bytes": size_bytes})
    else:
        click.echo(f"{removed} replicas removed, {format_size(size_bytes)}")


@click.group()
def scrub() -> None:
    """Reading all chunks, to find damage before others do."""


@scrub.command(epilog="\b\nExample:\n  fsn node scrub now\n")
@data_dir_option
@json_option
def now(*, data_dir: Path, as_json: bool) -> None:
    """Begin a round now, as fast as [upkeep] scrub_bytes_per_second allows. `fsn node status` shows how far it is."""

    async def run() -> Any:
        async with open_admin(data_dir) as call:
            return await call("POST", "/scrub", idempotent=True)

    found = trio.run(run)
    if as_json:
        print_json(found)
    else:
        click.echo("a round has begun; `fsn node status` shows how far it is")


def scrub_line(found: Any) -> str:
    """For `fsn node status`."""
    lost = f", {found['lost']} found damaged or missing" if found["lost"] else ""
    return f"{found['share']:.0%} of this round, {found['checked']} chunks checked{lost}"


async def _all(call: Call) -> AsyncIterator[Any]:
    params = {"limit": str(_PAGE)}
    while True:
        page = await call("GET", "/trash", params=params)
        for each in page["replicas"]:
            yield each
        if page["next_cursor"] is None:
            return
        params = {"limit": str(_PAGE), "cursor": page["next_cursor"]}
