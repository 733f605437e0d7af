"""`fsn node`: make a storage node, run it, look at it."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import click
import trio

from fsn.cli.admin import ask, load
from fsn.cli.again import sibling
from fsn.cli.earnings import earnings
from fsn.cli.exits import json_option, print_json
from fsn.cli.leaving import counted_line, drain, drain_line, maintenance
from fsn.cli.options import data_dir_option
from fsn.cli.progress import printable
from fsn.cli.upkeep import scrub, scrub_line, trash
from fsn.core.errors import FsnError
from fsn.core.units import format_credits, format_size, parse_size
from fsn.node.chunkstore.base import StoredChunk
from fsn.node.chunkstore.index import INDEX_NAME, IndexReader
from fsn.node.config import AdminConfig, NodeConfig
from fsn.node.registration import Application, Initialised, initialise
from fsn.node.reputation import fetch_reputation_events
from fsn.p2p.config import P2pConfig
from fsn.runtime.config import config_as_toml
from fsn.runtime.data_folder import is_in_use
from fsn.runtime.logs import LogConfig, configure_logs

__all__ = ["node"]

_PAGE = 1000
SHOWN_EVENTS = 5
_EPILOG = """\b
Examples:
  fsn node init --name "Test Node" --coordinator-url http://localhost:8080 --capacity 100GB
  fsn node start
  fsn node status
  fsn node chunks list --json
  fsn node maintenance start --hours 4
  fsn node drain
"""


def _size(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    return int(parse_size(text))


port_type = click.IntRange(0, 65535)


@click.group(epilog=_EPILOG)
def node() -> None:
    """Run and administer a storage node."""


node.add_command(drain)
node.add_command(trash)
node.add_command(scrub)
node.add_command(maintenance)
node.add_command(earnings)


@node.command(
    epilog="""\b
Examples:
  fsn node init --name attic --coordinator-url http://localhost:8080
  fsn node init --data-dir /srv/fsn --name attic --coordinator-url https://fsn.example.org --capacity 2TB --region eu
"""
)
@data_dir_option
@click.option("--name", required=True, help="What people call this node.")
@click.option("--coordinator-url", required=True, help="The coordinator's HTTP address, e.g. http://localhost:8080.")
@click.option(
    "--capacity", "capacity_bytes", default="10GB", show_default=True, callback=_size, help="How much may be stored."
)
@click.option(
    "--p2p-port",
    type=port_type,
    default=0,
    show_default=True,
    help="TCP port for peers; 0: any free one at each start.",
)
@click.option(
    "--admin-port",
    type=port_type,
    default=8090,
    show_default=True,
    help="Port of the admin API on 127.0.0.1; 0: any free one.",
)
@click.option("--region", help="Where the node stands, e.g. eu-north.")
@json_option
def init(
    *,
    data_dir: Path,
    name: str,
    coordinator_url: str,
    capacity_bytes: int,
    p2p_port: int,
    admin_port: int,
    region: str | None,
    as_json: bool,
) -> None:
    """Make a key and register at a coordinator. Harmless to repeat.

    FSN_OPERATOR_TOKEN, a user's login token, puts the node under that user's account.
    """
    application = Application(
        data_dir=data_dir,
        name=name,
        coordinator_url=coordinator_url.rstrip("/"),
        capacity_bytes=capacity_bytes,
        region=region,
        operator_token=os.environ.get("FSN_OPERATOR_TOKEN") or None,
        p2p=P2pConfig(tcp_port=p2p_port),
        admin=AdminConfig(port=admin_port),
    )
    configure_logs(LogConfig(level="warning"))
    _tell_initialised(trio.run(initialise, application), as_json=as_json)


def _tell_initialised(done: Initialised, *, as_json: bool) -> None:
    config = done.config
    if as_json:
        facts = {"node_id": config.coordinator.node_id, "name": config.name, "coordinator": config.coordinator.peer_id}
        print_json({**facts, "data_dir": str(config.data_dir), "new": done.is_new})
        return
    how = "registered" if done.is_new else "already initialised"
    click.echo(f"{how} as {config.name} ({config.coordinator.node_id}) at {config.coordinator.url}")
    if done.is_new:
        click.echo(f"start it with: {sibling('start', '--data-dir', config.data_dir)}")


@node.command(epilog="\b\nExample:\n  fsn node start --data-dir /srv/fsn")
@data_dir_option
def start(*, data_dir: Path) -> None:
    """Run the node until SIGTERM or SIGINT; a second signal ends it at once.

    Settings come from config.toml in the data folder, then the environment (FSN_P2P__TCP_PORT=4002).
    """
    config = load(data_dir)
    configure_logs(config.log)
    # Imported here: libp2p takes two seconds, which `status` and `--help` need not wait for.
    from fsn.daemon.node import Node, run_node

    def announce(running: Node) -> None:
        click.echo(f"node {config.name} ({running.node_id}) is {running.peer}")
        click.echo(f"admin API: http://{config.admin.host}:{running.admin_port}   p2p: TCP port {running.p2p_port}")

    async def run() -> None:
        await run_node(config, announce=announce)

    trio.run(run)


@node.command(epilog="\b\nExamples:\n  fsn node status\n  fsn node status --json | jq .used_bytes")
@data_dir_option
@json_option
def status(*, data_dir: Path, as_json: bool) -> None:
    """Show the running node at a glance, and what moved its reputation lately, as its coordinator tells."""
    found = ask(data_dir, "/status")
    if as_json:
        print_json(found)
        return
    lines = [*_status_lines(found), *_event_lines(load(data_dir))]
    if found["standing"] in ("draining", "left"):
        lines.insert(2, ("drain", drain_line(ask(data_dir, "/drain"))))
    for label, text in lines:
        click.echo(f"{label + ':':13}{text}")


_REACH = {
    "direct": "directly",
    "own_connection": "through its own connections only",
    "untested": "not tested yet",
    "none": "not at all",
}


_CARRIERS = {"tcp": "TCP", "quic-v1": "QUIC (TCP did not get through)"}


def _status_lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "node", f"{found['name']} ({found['node_id']})"
    yield "state", counted_line(found["counted"])
    yield "peer", found["peer_id"]
    yield "chunks", f"{found['chunk_count']}"
    yield "used", f"{format_size(found['used_bytes'])} of {format_size(found['capacity_bytes'])}"
    yield "free", format_size(found["free_bytes"])
    yield "running for", f"{found['uptime_seconds']:.0f} s, fsn {found['version']}"
    for link in found["coordinators"]:
        over = f" by {_CARRIERS.get(link['transport'], link['transport'])}" if link.get("transport") else ""
        state = f"connected{over}" if link["connected"] else f"not connected ({link['failure'] or 'dialling'})"
        yield "coordinator", f"{link['peer_id']} {state}"
        yield "earned", f"{format_credits(link['earned_micro_credits'])} credits"
    yield from _proof_lines(found["proofs"])
    yield from _earnings_lines(found["earnings"])
    yield "reachable", f"{_REACH[found['reachability']['reach']]}: {found['reachability']['reason']}"
    yield "dht", f"{found['dht']['peers']} peers known in the network {found['dht']['network']}"
    yield "scrub", scrub_line(found["scrub"])
    if found["trash_count"]:
        yield "trash", f"{found['trash_count']} replicas, {format_size(found['trash_bytes'])}"
    if found["recovery"]["lost_total"]:
        yield "lost", f"{found['recovery']['lost']} chunks at this start, {found['recovery']['lost_total']} in all"


def _proof_lines(proofs: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if proofs is None:
        yield "proofs", "no coordinator has told yet"
        return
    yield "proofs", f"{proofs['passed']} passed, {proofs['missed']} missed, {proofs['failed']} failed"
    if proofs["vetted_proofs"] < proofs["vetting_proofs"] or proofs["vetting_seconds_left"]:
        done = min(proofs["vetted_proofs"], proofs["vetting_proofs"])
        days = proofs["vetting_seconds_left"] / 86_400
        yield (
            "vetting",
            f"{done} of {proofs['vetting_proofs']} proofs, {days:.1f} days left: little new data until then",
        )
    yield "reputation", f"{proofs['score']:.4f}" + (f", {proofs['reason']}" if proofs["reason"] else "")


def _event_lines(config: NodeConfig) -> Iterator[tuple[str, str]]:
    try:
        events = trio.run(fetch_reputation_events, config)
    except FsnError as error:
        yield "events", printable(f"not known now: {error.message}")
        return
    for each in events[:SHOWN_EVENTS]:
        tracks = f"score {each.score:.4f}, answering {each.answering:.4f}"
        yield "event", printable(f"{each.at:.16} {each.kind}: {each.reason} ({tracks})")


def _earnings_lines(earnings: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if earnings is None:
        return
    yield "today", f"about {format_credits(earnings['today_micro_credits'])} credits so far"
    yield "balance", f"{format_credits(earnings['balance_micro_credits'])} credits"
    if earnings["pending_micro_credits"]:
        yield "in payout", f"{format_credits(earnings['pending_micro_credits'])} credits"
    if earnings["held_micro_credits"]:
        yield "held back", f"{format_credits(earnings['held_micro_credits'])} credits"


@node.group()
def chunks() -> None:
    """What is stored on this node."""


@chunks.command("list", epilog="\b\nExamples:\n  fsn node chunks list --limit 20\n  fsn node chunks list --json")
@data_dir_option
@click.option("--limit", type=click.IntRange(1), help="At most so many; all without it.")
@json_option
def list_chunks(*, data_dir: Path, limit: int | None, as_json: bool) -> None:
    """List the stored chunks in the order of their ids; reads the index when the node does not run."""
    found = _running_chunks(data_dir, limit) if is_in_use(data_dir) else _resting_chunks(data_dir, limit)
    if as_json:
        print_json({"chunks": found})
        return
    for chunk in found:
        click.echo(f"{chunk['id']}  {chunk['size_bytes']:>8}  {chunk['stored_at']}  {_challenge(chunk)}")
    click.echo(f"{len(found)} chunks", err=True)


@node.group()
def config() -> None:
    """The node's settings."""


@config.command("show", epilog="\b\nExample:\n  fsn node config show > node.toml")
@data_dir_option
@json_option
def show(*, data_dir: Path, as_json: bool) -> None:
    """Print the settings in force: config.toml with the environment applied."""
    in_force = load(data_dir)
    if as_json:
        print_json(attrs.asdict(in_force))
    else:
        click.echo(config_as_toml(in_force), nl=False)


def _running_chunks(data_dir: Path, limit: int | None) -> list[Any]:
    def page(cursor: str | None, size: int) -> tuple[list[Any], str | None]:
        place = {} if cursor is None else {"cursor": cursor}
        answer = ask(data_dir, "/chunks", limit=str(size), **place)
        return answer["chunks"], answer["next_cursor"]

    return _collect(page, limit)


def _resting_chunks(data_dir: Path, limit: int | None) -> list[Any]:
    with closing(IndexReader(data_dir / INDEX_NAME)) as index:
        last: list[StoredChunk] = []

        def page(_: str | None, size: int) -> tuple[list[Any], str | None]:
            found = index.page(last[-1].replica if last else None, size)
            last.extend(found[-1:])
            return [_as_answered(chunk) for chunk in found], "more" if len(found) == size else None

        return _collect(page, limit)


def _collect(page: Callable[[str | None, int], tuple[list[Any], str | None]], limit: int | None) -> list[Any]:
    """Pages until there are no more, or `limit` is reached."""
    found: list[Any] = []
    cursor: str | None = None
    while limit is None or len(found) < limit:
        more, cursor = page(cursor, _PAGE if limit is None else min(_PAGE, limit - len(found)))
        found.extend(more)
        if cursor is None:
            break
    return found


def _challenge(chunk: Mapping[str, Any]) -> str:
    if chunk["challenged_at"] is None:
        return "never challenged"
    return f"challenged {chunk['challenged_at']}: {chunk['challenge_ended']}"


def _as_answered(chunk: StoredChunk) -> Mapping[str, object]:
    """As `/chunks` gives it."""
    challenged = chunk.challenged
    return {
        "id": chunk.replica.hex,
        "size_bytes": chunk.size_bytes,
        "root": chunk.root.hex(),
        "stored_at": _time(chunk.stored_at),
        "challenged_at": _time(challenged.at) if challenged else None,
        "challenge_ended": challenged.how if challenged else None,
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
