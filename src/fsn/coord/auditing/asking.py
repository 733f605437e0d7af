"""One challenge: ask a node for a proof of a replica, judge what comes."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final
from uuid import UUID

import attrs
import structlog
import trio

from fsn.coord.config import AuditConfig
from fsn.coord.database.proof_writing import AskedReplica
from fsn.coord.membership import Member, Membership
from fsn.core.audit import Outcome
from fsn.core.errors import PeerError, PeerRefused, PeerTimeout
from fsn.core.ids import NodeId
from fsn.core.proofs import SEED_BYTES, Challenge, Verdict, verify
from fsn.p2p.client import Requester
from fsn.p2p.wire.messages import HeldProof, ProveHeld, RefusalCode

__all__ = ["Asked", "Asking"]

log = structlog.get_logger()

LATE_SECONDS: Final = 0.5
"""A time-out that fires so much too late says that we were busy, not that the node was."""
LONGEST_DETAIL: Final = 300
GONE: Final = frozenset({RefusalCode.NOT_FOUND, RefusalCode.CORRUPT})


@attrs.frozen
class Asked:
    """A challenge and how it ended; None: it does not count, for we did not look in time."""

    challenge: Challenge
    replica: AskedReplica
    outcome: Outcome | None
    detail: str = ""
    seconds: float = 0.0
    """From the question to the answer, by our clock."""


@attrs.define(eq=False)
class Asking:
    """Asks nodes that are connected here, a few challenges of each node at a time."""

    membership: Membership
    requester: Requester
    network: UUID
    random_bytes: Callable[[int], bytes]
    config: AuditConfig
    _all: trio.CapacityLimiter = attrs.field(init=False)
    _of_node: dict[NodeId, trio.CapacityLimiter] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._all = trio.CapacityLimiter(self.config.in_flight)

    def new_challenge(self, replica: AskedReplica) -> Challenge:
        """With an id and a seed that nobody could know."""
        return Challenge(
            self.network,
            replica.node,
            UUID(bytes=self.random_bytes(16)),
            replica.replica,
            self.random_bytes(SEED_BYTES),
            self.config.difficulty,
        )

    async def ask(self, replica: AskedReplica, challenge: Challenge) -> Asked:
        """How it ended. The time counts from when the node's turn has come, by our clock; never raises for what the node does."""
        limiter = self._of_node.setdefault(replica.node, trio.CapacityLimiter(self.config.in_flight_per_node))
        async with AsyncExitStack() as turn:
            await turn.enter_async_context(limiter)
            await turn.enter_async_context(self._all)
            member = self.membership.member(replica.node)
            if member is None or not self.membership.is_connected(member):
                return Asked(challenge, replica, "offline")
            began = trio.current_time()
            outcome, detail = await self._ask(member, replica, challenge)
            seconds = trio.current_time() - began
        return Asked(challenge, replica, outcome, _printable(detail), seconds)

    async def _ask(self, member: Member, replica: AskedReplica, challenge: Challenge) -> tuple[Outcome | None, str]:
        message = ProveHeld(challenge.challenge, challenge.replica, challenge.seed, challenge.difficulty)
        began, limit = trio.current_time(), self.config.timeout_seconds
        try:
            answer = await self.requester.request(member.peer, message, within_seconds=limit)
        except PeerRefused as error:
            return ("gone" if error.refusal in GONE else "error"), f"the node refused with {error.refusal}"
        except PeerTimeout:
            if trio.current_time() - began > limit + LATE_SECONDS:
                return None, ""
            return "timeout", f"no answer within {limit:g} s"
        except PeerError as error:
            if not self.membership.is_connected(member):
                return "timeout", "the connection ended in place of an answer"
            return "error", error.message
        if isinstance(answer, HeldProof):
            seconds = trio.current_time() - began
            log.debug("proof_answered", node=str(replica.node), seconds=seconds, node_says_ms=answer.duration_ms)
        return _judge(challenge, replica, answer)


def _printable(text: str) -> str:
    """A node's words, as a database takes them and a terminal shows them."""
    return "".join(each if each.isprintable() else "?" for each in text[:LONGEST_DETAIL])


def _judge(challenge: Challenge, replica: AskedReplica, answer: object) -> tuple[Outcome, str]:
    if not isinstance(answer, HeldProof) or answer.challenge_id != challenge.challenge:
        return "error", "an answer to another challenge"
    if verify(challenge, answer.proof, root=replica.root, size_bytes=replica.sealed_bytes) is Verdict.PASSED:
        return "passed", ""
    return "bad", f"the answer, hash {answer.proof.proof_hash.hex()}, is no proof for this root and size"
