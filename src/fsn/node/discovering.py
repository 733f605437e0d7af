"""A node in the DHT: it looks for coordinators that do not answer any more, and remembers whom it has met."""

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from fsn.core.errors import ConfigError
from fsn.core.ids import PeerId
from fsn.node.contacts import MOST_NODES, Contacts, Peer, load_contacts, save_contacts
from fsn.node.reachability import Reachability
from fsn.node.reporting import Link, Reporting
from fsn.p2p.discovery.records import PeerRecord
from fsn.p2p.discovery.service import Discovery, DiscoveryPart
from fsn.p2p.transport.base import Transport
from fsn.p2p.wire.limits import MAX_ADDRESSES
from fsn.p2p.wire.messages import Contact
from fsn.runtime.clock import Clock
from fsn.runtime.identity import Identity
from fsn.runtime.supervise import Bell, Rest
from fsn.runtime.threads import run_in_thread

__all__ = ["LONGEST_LOOK_SECONDS", "Discovering", "open_discovering"]

log = structlog.get_logger()

SEEK_AFTER_SECONDS: Final = 20.0
"""A coordinator that has not answered for so long may have moved."""
SEEK_SECONDS: Final = 20.0
"""From one search to the next, and twice as long after each that found nothing, up to:"""
LONGEST_SEEK_SECONDS: Final = 600.0
FIRST_LOOK_SECONDS: Final = 60.0
"""From the first look for neighbours (and publication, if we can be reached) to the next: in a young network the coordinator itself
learns only now who can be reached. Twice as long after each look, up to:"""
LONGEST_LOOK_SECONDS: Final = 1800.0
MET_SECONDS: Final = timedelta(hours=12)
"""How stale `met_at` may be in the file."""
MOST_RECORDS: Final = 256


def open_discovering(
    transport: Transport,
    identity: Identity,
    network: str,
    *,
    reporting: Reporting,
    reachability: Reachability,
    folder: Path,
    clock: Clock,
    longest_look_seconds: float = LONGEST_LOOK_SECONDS,
) -> "Discovering":
    """The node's place in the DHT; coordinators that it met in earlier lives are among those reported to from now on.

    Records are kept for coordinators of ours only: of other nodes we know nothing that would tell them from strangers.
    """
    before = load_contacts(folder, clock())
    for met in before.coordinators:
        if not reporting.knows(PeerId(met.peer_id)):
            reporting.add(met.contact, is_pinned=False)

    async def may_store(peer: PeerId) -> bool:
        return reporting.knows(peer)

    def start() -> tuple[Contact, ...]:
        return tuple(link.contact for link in reporting.links)

    part = DiscoveryPart(
        role="node",
        start=start,
        addresses=lambda: reachability.verdict.addresses,
        may_store=may_store,
        keeps=reporting.knows,
        note_record=lambda record: discovering.take(record),
        most_records=MOST_RECORDS,
    )
    discovery = Discovery(transport, identity, network, part, clock)
    for met in before.nodes:
        discovery.learn(PeerId(met.peer_id), met.addresses)
    discovering = Discovering(discovery, reporting, reachability, folder, clock, before, longest_look_seconds)
    return discovering


@attrs.define
class _Search:
    """When a coordinator is looked for next, and how long to wait after that."""

    at: float
    pause_seconds: float = SEEK_SECONDS


@attrs.define(eq=False)
class Discovering:
    """Looks for lost coordinators and for neighbours, publishes us as soon as we can be reached, and saves whom we met."""

    discovery: Discovery
    reporting: Reporting
    reachability: Reachability
    folder: Path
    clock: Clock
    saved: Contacts
    longest_look_seconds: float = LONGEST_LOOK_SECONDS
    name: str = "discovering"
    found_at: datetime | None = None
    """When the DHT last led to a coordinator that was lost."""
    _bell: Bell = attrs.field(factory=Bell)
    _look_at: float = -math.inf
    _look_seconds: float = FIRST_LOOK_SECONDS
    _published: tuple[str, ...] = ()
    """The addresses of our last publication."""
    _searches: dict[PeerId, _Search] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self._look_seconds = max(FIRST_LOOK_SECONDS, self.longest_look_seconds / 48)
        self.reporting.on_lost = self._bell.ring
        self.reachability.on_tested = self._bell.ring

    async def step(self) -> Rest:
        """Everything that is due now."""
        self._searches = {peer: search for peer, search in self._searches.items() if self.reporting.knows(peer)}
        for link in self.reporting.links:
            if self._is_due(link):
                await self._seek(link)
        if self._is_connected:
            await self._look_around()
        await self._save()
        return Rest(self._rest_seconds(), self._bell)

    @property
    def _is_connected(self) -> bool:
        return any(link.is_connected for link in self.reporting.links)

    async def _look_around(self) -> None:
        """Refresh the routing table when it is time, and publish then, or as soon as we are reached at other addresses."""
        is_due = trio.current_time() >= self._look_at
        addresses = self.reachability.verdict.addresses
        if is_due:
            await self.discovery.refresh()
            self._look_at = trio.current_time() + self._look_seconds
            self._look_seconds = min(2 * self._look_seconds, self.longest_look_seconds)
        if addresses and (is_due or addresses != self._published):
            self._published = addresses
            await self.discovery.publish()

    def _rest_seconds(self) -> float:
        """Until the next search or look; one that waits for a connection, which a test follows, is due when the bell says so."""
        now = trio.current_time()
        look_at = self._look_at if self._is_connected else now + self._patience_seconds
        return max(1.0, min([look_at, *(search.at for search in self._searches.values())]) - now)

    @property
    def _patience_seconds(self) -> float:
        return SEEK_SECONDS if math.isinf(self._look_at) else LONGEST_SEEK_SECONDS

    def take(self, record: PeerRecord) -> None:
        """A coordinator of ours says where it is: dial it there, before the places known so far."""
        link = next((link for link in self.reporting.links if link.contact.peer == record.peer), None)
        if link is None or record.role != "coordinator" or link.is_connected:
            return
        known = link.contact.addresses
        if record.addresses != known[: len(record.addresses)]:
            log.info("coordinator_found", coordinator=record.peer, addresses=record.addresses)
            self.found_at = self.clock()
            addresses = tuple(dict.fromkeys((*record.addresses, *known)))[:MAX_ADDRESSES]
            self.reporting.add(Contact(record.peer, addresses), is_pinned=False)
            self.reporting.hurry()

    def _is_due(self, link: Link) -> bool:
        peer, now = link.contact.peer, trio.current_time()
        if link.is_connected:
            self._searches.pop(peer, None)
            return False
        search = self._searches.setdefault(peer, _Search(max(now, link.lost_at + SEEK_AFTER_SECONDS)))
        return now >= search.at

    async def _seek(self, link: Link) -> None:
        search = self._searches[link.contact.peer]
        record = await self.discovery.find(link.contact.peer)
        if record is not None:
            self.take(record)
        search.at = trio.current_time() + search.pause_seconds
        search.pause_seconds = min(2 * search.pause_seconds, LONGEST_SEEK_SECONDS)

    async def _save(self) -> None:
        """Written when something changed that a next start would miss."""
        contacts = Contacts(self._coordinators(), self._nodes())
        if _essence(contacts) == _essence(self.saved) and not self._is_stale(contacts):
            return
        try:
            await run_in_thread(save_contacts, self.folder, contacts)
            self.saved = contacts
        except ConfigError as error:
            log.warning("contacts_not_saved", reason=str(error))

    def _is_stale(self, contacts: Contacts) -> bool:
        before = {peer.peer_id: peer.met_at for peer in self.saved.coordinators}
        return any(peer.met_at - before[peer.peer_id] > MET_SECONDS for peer in contacts.coordinators)

    def _coordinators(self) -> tuple[Peer, ...]:
        """Those that we have been connected to, in this life or another."""
        met = {peer.peer_id: peer.met_at for peer in self.saved.coordinators}
        now = self.clock()
        times = ((link, now if link.is_connected else met.get(link.contact.peer)) for link in self.reporting.links)
        return tuple(Peer(link.contact.peer, link.contact.addresses, at) for link, at in times if at is not None)

    def _nodes(self) -> tuple[Peer, ...]:
        """Peers that answered in the DHT now; those of an earlier life as long as there are none."""
        now = self.clock()
        found = self.discovery.table.closest(0, MOST_NODES)
        fresh = tuple(Peer(each.peer, each.addresses, now) for each in found if not self.reporting.knows(each.peer))
        return fresh or self.saved.nodes


def _essence(contacts: Contacts) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Without times."""
    return tuple((peer.peer_id, peer.addresses) for peer in (*contacts.coordinators, *contacts.nodes))
