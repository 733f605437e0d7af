"""Nodes that cheat at proofs: they serve users' chunks, and do not show what they hold as they should."""

from typing import Final, Literal, get_args

import attrs
import trio

from fsn.core.errors import Unavailable
from fsn.core.ids import PeerId, ReplicaId
from fsn.core.proofs import Challenge, Proof, prove
from fsn.node.proving import Proving
from fsn.p2p.wire.messages import HeldProof, ProveHeld, Response
from fsn.sim.disks import Disk

__all__ = ["HOW", "CheatingProving", "How"]

How = Literal[
    "honest", "forgets", "keeps_hashes", "truncates", "other_copy", "old_proof", "refuses", "silent", "lies_about_time", "proxies",
    "slow_disk",
]  # fmt: skip
"""forgets: says of every replica that it is gone. keeps_hashes: has only hashes, and makes the leaves up. truncates: has the first half.
other_copy: answers over another copy of the data. old_proof: gives its first answer again. refuses: is always busy. silent: never answers.
lies_about_time: says that it took no time. proxies: fetches each replica from 50 ms away. slow_disk: an honest disk that seeks 15 ms."""
HOW: Final[tuple[How, ...]] = get_args(How)

PROXY_SECONDS: Final = 0.1
"""There and back."""
SEEK_SECONDS: Final = 0.015


@attrs.define(eq=False)
class CheatingProving(Proving):
    """Answers challenges as its disk's faults say it does."""

    disk: Disk = attrs.field(kw_only=True)
    _first: dict[ReplicaId, Proof] = attrs.field(factory=dict, init=False)

    async def prove_held(self, peer: PeerId, message: ProveHeld) -> Response:
        """See `Proving.prove_held`."""
        how = self.disk.faults.proofs
        if how == "refuses":
            raise Unavailable("this node is busy")
        if how == "silent":
            await trio.sleep_forever()
        if how == "forgets":
            await self.disk.forget([message.replica])
        answer = await super().prove_held(peer, message)
        assert isinstance(answer, HeldProof)
        if how == "lies_about_time":
            return attrs.evolve(answer, duration_ms=0)
        if how == "old_proof":
            return attrs.evolve(answer, proof=self._first.setdefault(message.replica, answer.proof))
        return answer

    async def _prove(self, challenge: Challenge) -> Proof:
        how = self.disk.faults.proofs
        if how in {"proxies", "slow_disk"}:
            await trio.sleep(PROXY_SECONDS if how == "proxies" else SEEK_SECONDS)
        if how not in {"keeps_hashes", "truncates", "other_copy"}:
            return await super()._prove(challenge)
        data, _ = await self.store.retrieve(challenge.replica)
        made_up = {"keeps_hashes": bytes(len(data)), "truncates": data[: len(data) // 2 or 1], "other_copy": data[::-1]}
        return prove(challenge, made_up[how])
