"""Nodes that cheat at proofs: they serve users' chunks, and do not show what they hold as they should."""

from collections.abc import Awaitable, Callable
from typing import Final, Literal, get_args

import attrs
import trio

from fsn.core.errors import NotFound, Unavailable
from fsn.core.ids import PeerId, ReplicaId
from fsn.core.proofs import Challenge, Proof, prove
from fsn.node.proving import Proving
from fsn.p2p.wire.messages import HeldProof, ProveHeld, Response

__all__ = ["HOW", "CheatingProving", "How", "nobody_else_has"]

How = Literal[
    "honest", "forgets", "keeps_hashes", "truncates", "other_copy", "old_proof", "refuses", "silent", "lies_about_time", "proxies",
    "slow_disk",
]  # fmt: skip
"""forgets: says of every replica that it is gone. keeps_hashes: has only hashes, and makes the leaves up. truncates: has the first half.
other_copy: answers over the replica of the same chunk that another node holds.
old_proof: gives its first answer again. refuses: is always busy. silent: never answers.
lies_about_time: says that it took no time. proxies: fetches each replica from 50 ms away. slow_disk: an honest disk that seeks 15 ms."""
HOW: Final[tuple[How, ...]] = get_args(How)

PROXY_SECONDS: Final = 0.1
"""There and back."""
SEEK_SECONDS: Final = 0.015


@attrs.define(eq=False)
class CheatingProving(Proving):
    """Answers challenges as its disk's faults say it does."""

    how: Callable[[], How] = attrs.field(kw_only=True)
    """As it cheats now."""
    other_copy: Callable[[ReplicaId], Awaitable[bytes]] = attrs.field(kw_only=True)
    """The bytes that another node holds of the chunk that this is a replica of."""
    _first: dict[ReplicaId, Proof] = attrs.field(factory=dict, init=False)

    async def prove_held(self, peer: PeerId, message: ProveHeld) -> Response:
        """See `Proving.prove_held`."""
        how = self.how()
        if how == "refuses":
            raise Unavailable("this node is busy")
        if how == "silent":
            await trio.sleep_forever()
        if how == "forgets":
            await self.store.delete([message.replica])
        answer = await super().prove_held(peer, message)
        assert isinstance(answer, HeldProof)
        if how == "lies_about_time":
            return attrs.evolve(answer, duration_ms=0)
        if how == "old_proof":
            return attrs.evolve(answer, proof=self._first.setdefault(message.replica, answer.proof))
        return answer

    async def _prove(self, challenge: Challenge) -> Proof:
        how = self.how()
        if how in {"proxies", "slow_disk"}:
            await trio.sleep(PROXY_SECONDS if how == "proxies" else SEEK_SECONDS)
        if how == "other_copy":
            return prove(challenge, await self.other_copy(challenge.replica))
        if how not in {"keeps_hashes", "truncates"}:
            return await super()._prove(challenge)
        data, _ = await self.store.retrieve(challenge.replica)
        return prove(challenge, bytes(len(data)) if how == "keeps_hashes" else data[: len(data) // 2 or 1])


async def nobody_else_has(replica: ReplicaId) -> bytes:
    """Raises NotFound."""
    raise NotFound(f"no other node holds the chunk of {replica.hex}")
