"""`fsn coordinator proofs`: rounds of proofs, and a node's failures with their evidence, for an operator's eyes."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import click

from fsn.cli.coordinator_nodes import open_catalogue
from fsn.cli.exits import print_json
from fsn.coord.database.nodes import node_by_id
from fsn.coord.database.pool import Pool
from fsn.coord.database.proof_reports import FailureRecord, RoundRecord, list_failures, list_rounds
from fsn.coord.database.reputations import list_events, node_proofs
from fsn.core.errors import NotFound
from fsn.core.ids import NodeId
from fsn.core.reputation import DISQUALIFIED_BELOW, SUSPENDED_BELOW, VETTING_PROOFS
from fsn.daemon.coordinator import CoordinatorConfig

__all__ = ["show_proofs"]


async def show_proofs(config: CoordinatorConfig, node: NodeId | None, limit: int, as_json: bool) -> None:
    """Print up to `limit` rounds; of one node its reputation, too, and up to `limit` events and failures. Safe beside a coordinator."""
    async with open_catalogue(config) as pool:
        rounds = await list_rounds(pool, node, limit)
        if node is None:
            _print({"rounds": [_plain(each) for each in rounds]}, [_round_line(each) for each in rounds], as_json)
        else:
            await _show_node(pool, node, rounds, limit, as_json)


async def _show_node(db: Pool, node: NodeId, rounds: Sequence[RoundRecord], limit: int, as_json: bool) -> None:
    record = await node_by_id(db, node)
    if record is None:
        raise NotFound(f"there is no node {node}")
    found, events = await node_proofs(db, node), await list_events(db, node, None, limit)
    failures = await list_failures(db, node, None, limit)
    reputation = found.reputation
    lines = [
        f"node         {record.id}  {record.name}  {record.status}",
        f"proofs       {found.passed} passed, {found.failed} failed, {found.missed} missed, {found.errors} refused",
        f"vetted       {found.vetted_at or f'not yet: {reputation.passed} of {VETTING_PROOFS} proofs'}",
        f"score        {reputation.score:.4f}  (disqualified below {DISQUALIFIED_BELOW})",
        f"answering    {reputation.answering:.4f}  (suspended below {SUSPENDED_BELOW})",
        *([f"because      {found.reason}"] if found.reason else []),
        "rounds",
        *(f"  {_round_line(each)}" for each in rounds),
        "events",
        *(f"  {each.at:%Y-%m-%d %H:%M}  {each.kind:<12} score {each.score:.4f}: {each.reason}" for each in events),
        "failures",
        *(f"  {_failure_line(each)}" for each in failures),
    ]
    facts = {
        "node": str(node),
        "score": reputation.score,
        "answering": reputation.answering,
        "vetted_at": found.vetted_at,
        "suspended_at": found.suspended_at,
        "reason": found.reason,
        "rounds": [_plain(each) for each in rounds],
        "events": [_plain(each) for each in events],
        "failures": [_plain(each) for each in failures],
    }
    _print(facts, lines, as_json)


def _print(facts: Mapping[str, Any], lines: list[str], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    for line in lines:
        click.echo(line)


def _plain(record: Any) -> dict[str, Any]:
    values = attrs.asdict(record, recurse=False)
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}


def _round_line(found: RoundRecord) -> str:
    state = "" if found.judged_at else "  not judged yet"
    suspicion = f"  suspicious, nobody is blamed: {found.suspicion}" if found.suspicion else ""
    times = (
        "" if found.quickest_ms is None else f", answers in {found.quickest_ms} ms at best, {found.mean_ms} on average"
    )
    return (
        f"{found.round}  {found.begins_at:%Y-%m-%d %H:%M}  asked {found.asked}, passed {found.passed}, failed {found.failed},"
        f" missed {found.missed}, refused {found.errors}, away {found.offline}{times}{state}{suspicion}"
    )


def _failure_line(found: FailureRecord) -> str:
    return (
        f"{found.at:%Y-%m-%d %H:%M}  {found.outcome:<6} replica {found.replica.hex}  challenge {found.challenge.hex}"
        f"  tries {found.tries}: {found.detail}"
    )
