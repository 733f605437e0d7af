"""What moved this node's reputation, as its coordinator has it on record for everybody."""

from collections.abc import Mapping
from typing import Any, Final

import attrs
import trio

from fsn.client.connection import Connection, Timeouts
from fsn.client.retrying import Retrying
from fsn.core.errors import ProtocolViolation, Unreachable
from fsn.node.config import NodeConfig

__all__ = ["ReputationEvent", "fetch_reputation_events"]

PATIENCE_SECONDS: Final = 5.0
_TIMEOUTS: Final = Timeouts(connect_seconds=2.0, answer_seconds=3.0, send_seconds=2.0)


@attrs.frozen
class ReputationEvent:
    """`at` (RFC 3339) something of this `kind` happened (fault, suspended, vetted, ...) with what the two tracks were after it."""

    at: str
    kind: str
    score: float
    answering: float
    reason: str


async def fetch_reputation_events(config: NodeConfig) -> list[ReputationEvent]:
    """The last ones, newest first, within five seconds. Raises Unreachable, ProtocolViolation, and what the coordinator refuses with."""
    with trio.move_on_after(PATIENCE_SECONDS):
        async with Connection(config.coordinator.url, None, _TIMEOUTS, Retrying(attempts=1)) as connection:
            answer = await connection.call("GET", f"/api/v1/nodes/{config.node_id}/proofs")
        try:
            return [_event(each) for each in answer["events"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolViolation(f"{config.coordinator.url} sent what is no list of events: {error}") from None
    raise Unreachable(f"{config.coordinator.url} did not answer within {PATIENCE_SECONDS:g} s")


def _event(given: Mapping[str, Any]) -> ReputationEvent:
    words = {name: str(given[name]) for name in ("at", "kind", "reason")}
    return ReputationEvent(score=float(given["score"]), answering=float(given["answering"]), **words)
