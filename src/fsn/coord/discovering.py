"""A coordinator in the DHT: it answers there, keeps the records of its nodes and of its fellows, and publishes its own."""

from collections.abc import Callable, Sequence
from typing import Final

import attrs
import structlog

from fsn.coord.database.dial_backs import reached_nodes
from fsn.coord.database.pool import Pool
from fsn.coord.membership import Membership
from fsn.core.ids import PeerId
from fsn.p2p.discovery.records import PeerRecord
from fsn.p2p.discovery.service import Discovery, DiscoveryPart
from fsn.p2p.transport.base import Transport
from fsn.p2p.wire.messages import Contact
from fsn.runtime.clock import Clock
from fsn.runtime.identity import Identity
from fsn.runtime.supervise import Rest

__all__ = ["PUBLISH_SECONDS", "DhtPublishing", "coordinator_discovery"]

log = structlog.get_logger()

PUBLISH_SECONDS: Final = 900.0
"""From one publication to the next; a record is valid for 48 hours."""
ALONE_SECONDS: Final = 60.0
"""The same, while nobody takes the record."""
NODES_AT_START: Final = 20
MOST_RECORDS: Final = 10_000


def coordinator_discovery(
    transport: Transport,
    identity: Identity,
    network: str,
    *,
    membership: Membership,
    contacts: Callable[[], Sequence[Contact]],
    addresses: Callable[[], Sequence[str]],
    clock: Clock,
) -> Discovery:
    """The coordinator's place in the DHT. Records are kept for registered nodes and for coordinators that `contacts` names."""

    def is_coordinator(peer: PeerId) -> bool:
        return any(contact.peer == peer for contact in contacts())

    async def may_store(peer: PeerId) -> bool:
        return is_coordinator(peer) or await membership.registered(peer) is not None

    def note_record(record: PeerRecord) -> None:
        log.info("dht_record_stored", peer=record.peer, role=record.role, addresses=record.addresses)

    part = DiscoveryPart(
        role="coordinator",
        start=contacts,
        addresses=addresses,
        may_store=may_store,
        keeps=lambda peer: is_coordinator(peer) or membership.is_known(peer),
        note_record=note_record,
        most_records=MOST_RECORDS,
    )
    return Discovery(transport, identity, network, part, clock)


@attrs.define(eq=False)
class DhtPublishing:
    """Publishes our record at the start and every quarter of an hour, beginning at the nodes that could be reached last."""

    discovery: Discovery
    db: Pool
    publish_seconds: float = PUBLISH_SECONDS
    name: str = "dht_publishing"
    _has_begun: bool = False

    async def step(self) -> Rest:
        """Publish once."""
        if not self._has_begun:
            for node in await reached_nodes(self.db, NODES_AT_START):
                self.discovery.learn(node.peer, node.addresses)
            self._has_begun = True
        taken = await self.discovery.publish()
        return Rest(self.publish_seconds if taken else ALONE_SECONDS)
