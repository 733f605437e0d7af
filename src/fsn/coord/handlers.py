"""What nodes ask of a coordinator over libp2p."""

from collections.abc import Callable

import attrs

from fsn.coord.membership import Membership
from fsn.core.errors import Invalid
from fsn.core.ids import NodeId, PeerId
from fsn.p2p.wire.messages import (
    Contact,
    Earnings,
    Heartbeat,
    HeartbeatAnswer,
    ProofRecord,
    Refusal,
    RefusalCode,
    Response,
)

__all__ = ["NodeHandlers"]


@attrs.frozen
class NodeHandlers:
    """Answers nodes. Only registered ones: who asks is judged by the peer id that the connection has proved."""

    membership: Membership
    contacts: Callable[[], tuple[Contact, ...]]
    proofs: Callable[[NodeId], ProofRecord | None] = lambda _: None
    earnings: Callable[[NodeId], tuple[int, Earnings] | None] = lambda _: None

    async def heartbeat(self, peer: PeerId, message: Heartbeat) -> Response:
        """Take a node's word on itself; tell it what it earned and which coordinators there are. Raises Invalid."""
        _check_text(message)
        member = await self.membership.heard(peer, message)
        if member is None:
            return Refusal(RefusalCode.NOT_AUTHORISED, f"{peer} is not registered here: run `fsn node init`")
        earned, earnings = self.earnings(member.node) or (0, None)
        return HeartbeatAnswer(
            earned,
            self.contacts(),
            state=self.membership.status(member.record),
            proofs=self.proofs(member.node),
            earnings=earnings,
        )


def _check_text(message: Heartbeat) -> None:
    """The wire takes any text. The database has no NUL, separates addresses by blanks, and is read by people on terminals."""
    if not message.version.isprintable():
        raise Invalid(f"a version has printable characters only; got {message.version!a}")
    for address in message.addresses:
        if not address.isprintable() or " " in address:
            raise Invalid(f"an address has printable characters only, and no blanks; got {address!a}")
