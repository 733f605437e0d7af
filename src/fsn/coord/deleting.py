"""Workers that tidy up: replicas that nodes should forget, uploads whose time is over."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

import attrs
import structlog

from fsn.coord.database.files import clear_next_file
from fsn.coord.database.nodes import DueDeletion, deletions_done, due_deletions, postpone_deletions
from fsn.coord.database.pool import Pool
from fsn.coord.membership import Membership
from fsn.coord.sessions import Sessions
from fsn.core.errors import PeerError, ProtocolViolation
from fsn.core.ids import NodeId, ReplicaId
from fsn.p2p.client import Requester
from fsn.p2p.wire.messages import ChunksDeleted, DeleteChunks
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell, Rest

__all__ = ["Deleting", "Expiring"]

log = structlog.get_logger()

BATCH_REPLICAS = 1000
DELETING_SECONDS = 30.0
RETRY_AFTER = timedelta(minutes=5)


@attrs.frozen
class Deleting:
    """Tells connected nodes which replicas to forget; those of absent nodes wait until they are back."""

    db: Pool
    membership: Membership
    requester: Requester
    clock: Clock
    bell: Bell
    name: str = "deleting"

    async def step(self) -> Rest | None:
        """A batch of a deleted file's chunks out of the catalogue; a batch of replicas off the nodes, one node after the other."""
        online = [member.node for member in self.membership.online()]
        is_clearing = await clear_next_file(self.db, self.clock())
        due = await due_deletions(self.db, online, self.clock(), RETRY_AFTER, BATCH_REPLICAS) if online else ()
        for (node, to_trash), replicas in _by_node(due).items():
            await self._delete(node, replicas, to_trash)
        return None if due or is_clearing else Rest(5, self.bell)

    async def _delete(self, node: NodeId, replicas: Sequence[ReplicaId], to_trash: bool) -> None:
        try:
            failed = await self._ask(node, DeleteChunks(tuple(replicas), to_trash))
        except PeerError as error:
            log.warning("delete_failed", node=str(node), replicas=len(replicas), reason=error.message)
            failed = set(replicas)
        if failed:
            await postpone_deletions(self.db, list(failed), self.clock() + RETRY_AFTER)
        done = [replica for replica in replicas if replica not in failed]
        await deletions_done(self.db, done)
        log.info("replicas_deleted", node=str(node), deleted=len(done), failed=len(failed))

    async def _ask(self, node: NodeId, message: DeleteChunks) -> set[ReplicaId]:
        member = self.membership.member(node)
        if member is None:
            return set(message.replicas)
        answer = await self.requester.request(member.peer, message, within_seconds=DELETING_SECONDS)
        if not isinstance(answer, ChunksDeleted):
            raise ProtocolViolation(f"{member.peer} answered a delete with {type(answer).__name__}")
        return set(answer.failed)


@attrs.frozen
class Expiring:
    """Drops uploads that were begun and never completed."""

    sessions: Sessions
    name: str = "expiring"

    async def step(self) -> Rest | None:
        """Drop a hundred."""
        return None if await self.sessions.expire() else Rest(60)


def _by_node(due: Sequence[DueDeletion]) -> dict[tuple[NodeId, bool], list[ReplicaId]]:
    found: dict[tuple[NodeId, bool], list[ReplicaId]] = defaultdict(list)
    for deletion in due:
        found[deletion.node, deletion.to_trash].append(deletion.replica)
    return found
