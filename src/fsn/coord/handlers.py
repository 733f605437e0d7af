"""What nodes ask of a coordinator over libp2p."""

from collections.abc import Callable

import attrs

from fsn.coord.membership import Membership
from fsn.core.ids import PeerId
from fsn.p2p.wire.messages import Contact, Heartbeat, HeartbeatAnswer, Refusal, RefusalCode, Response

__all__ = ["NodeHandlers"]


@attrs.frozen
class NodeHandlers:
    """Answers nodes. Only registered ones: who asks is judged by the peer id that the connection has proved."""

    membership: Membership
    contacts: Callable[[], tuple[Contact, ...]]

    async def heartbeat(self, peer: PeerId, message: Heartbeat) -> Response:
        """Take a node's word on itself; tell it what it earned and which coordinators there are."""
        member = await self.membership.heard(peer, message)
        if member is None:
            return Refusal(RefusalCode.NOT_AUTHORISED, f"{peer} is not registered here: run `fsn node init`")
        return HeartbeatAnswer(earned_micro_credits=0, coordinators=self.contacts())
