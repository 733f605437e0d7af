"""Proving to coordinators that replicas are here; and the node's own record of how each challenge ended."""

from typing import Final
from uuid import UUID

import attrs
import structlog
import trio

from fsn.core.errors import Corrupt, FsnError, NotFound
from fsn.core.ids import NodeId, PeerId, ReplicaId
from fsn.core.proofs import Challenge, Proof, prove
from fsn.node.chunkstore.base import ChunkStore, Ended
from fsn.p2p.wire.messages import HeldProof, ProveHeld, Response
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Rest
from fsn.runtime.threads import run_in_thread

__all__ = ["Proving"]

log = structlog.get_logger()

AT_ONCE: Final = 2
"""Challenges that are read for together, however many have been asked: users' chunks go by them. A disk that takes 15 ms to seek still
answers more than a hundred in a second, which is all chunks of a gigabyte in under a minute."""
KEEP_SECONDS: Final = 60.0
"""How often the record is written down; what is not yet is lost with the process."""
SLICE: Final = 1000


@attrs.define(eq=False)
class Proving:
    """Answers challenges; as a worker it writes down how they ended."""

    store: ChunkStore
    network: UUID
    """`core.proofs.network_id` of the network's name."""
    node: NodeId
    clock: Clock
    name: str = "proving"
    _room: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(AT_ONCE), init=False)
    _ended: dict[ReplicaId, Ended] = attrs.field(factory=dict, init=False)

    async def prove_held(self, peer: PeerId, message: ProveHeld) -> Response:
        """The proof over the bytes as they lie on the disk; nothing is judged here. Raises `NotFound` and `Corrupt` (the replica is
        gone), `StorageError` when the disk fails otherwise."""
        began = trio.current_time()
        challenge = Challenge(
            self.network, self.node, message.challenge_id, message.replica, message.seed, message.difficulty
        )
        try:
            proof = await self._prove(challenge)
        except FsnError as error:
            self._note(message.replica, "gone" if isinstance(error, NotFound | Corrupt) else "failed")
            log.error("proof_failed", chunk=message.replica.hex, peer=peer, reason=error.message)
            raise
        self._note(message.replica, "answered")
        return HeldProof(message.challenge_id, proof, int((trio.current_time() - began) * 1000))

    async def _prove(self, challenge: Challenge) -> Proof:
        async with self._room:
            data, _ = await self.store.retrieve(challenge.replica)
            return await run_in_thread(prove, challenge, data)

    def _note(self, replica: ReplicaId, how: str) -> None:
        self._ended[replica] = Ended(int(self.clock().timestamp()), how)

    async def step(self) -> Rest | None:
        """Write down how some challenges ended. Raises `StorageError`; they are written the next time then."""
        some = {replica: self._ended[replica] for replica in list(self._ended)[:SLICE]}
        if not some:
            return Rest(KEEP_SECONDS)
        await self.store.note_challenges(some)
        for replica, ended in some.items():
            if self._ended.get(replica) is ended:
                del self._ended[replica]
        return None if self._ended else Rest(KEEP_SECONDS)
