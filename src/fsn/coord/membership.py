"""Who is in the network right now: nodes as their heartbeats and connections show them, and where the next chunk may go."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from random import Random

import attrs
import structlog
import trio

from fsn.coord.catalog import NodeRecord, NodeStatus
from fsn.coord.config import MembershipConfig, PlacementConfig
from fsn.coord.database.nodes import Sighting, node_by_peer
from fsn.coord.database.pool import Pool
from fsn.coord.database.presence import PresenceChange
from fsn.core.errors import TooFewNodes, Unavailable
from fsn.core.ids import NodeId, PeerId
from fsn.core.node_states import TAKES_CHUNKS, NodeState
from fsn.core.placement import Candidate, network_prefix, place, place_round_robin
from fsn.core.reputation import placement_weight
from fsn.p2p.client import Requester
from fsn.p2p.transport.base import Transport
from fsn.p2p.wire.messages import STORE_CHUNK, Heartbeat
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell

__all__ = ["Member", "Membership", "Standing"]

log = structlog.get_logger()

LEAST_WEIGHT = 0.01
"""Of a node just above its disqualification: it fills gaps."""
REFRESH_SECONDS = 60.0
"""A member's row is read again after so long: what an administrator or another coordinator decided is in force here then."""


@attrs.define(eq=False)
class Member:
    """A node that this coordinator has heard from; sizes in bytes, times by trio's clock unless they say otherwise."""

    node: NodeId
    peer: PeerId
    record: NodeRecord
    free_bytes: int = 0
    heartbeat: Heartbeat | None = None
    heard_at: float = 0.0
    seen_at: datetime = datetime.min.replace(tzinfo=UTC)
    """When it was heard, by the clock on the wall."""
    read_at: float = -math.inf
    suspect_until: float = 0.0
    slow_until: float = 0.0
    reads: int = 0
    address: str | None = None
    prefix: str | None = None
    """The failure domain of `address`."""
    is_dirty: bool = False
    """There is a heartbeat that the database does not know."""
    is_here: bool = False
    """It was online when that was looked at last."""
    changed_at: datetime = datetime.min.replace(tzinfo=UTC)
    """Since when it is here, or not, by the clock on the wall."""
    lost_because: str = ""
    is_watched: bool = False
    """A task waits for the end of its connection, or soon will."""
    recorded_here: bool | None = None
    """What the database knows of `is_here`; None: what a transaction made of it is not known."""


@attrs.frozen
class Standing:
    """How a node stands, for whoever looks."""

    status: NodeStatus
    since: datetime
    reason: str


class Membership:
    """The nodes in memory; the database learns of changes once a second."""

    def __init__(
        self,
        db: Pool,
        transport: Transport,
        requester: Requester,
        *,
        clock: Clock,
        chance: Random,
        config: MembershipConfig,
        placement: PlacementConfig,
    ) -> None:
        self._db = db
        self._transport = transport
        self._requester = requester
        self._clock = clock
        self._chance = chance
        self._config = config
        self._placement = placement
        self._turn = 0
        self._resumed_at = -math.inf
        self.changed = Bell()
        """Rings when a node comes or goes."""
        self._arrivals, self._to_watch = trio.open_memory_channel[Member](math.inf)
        self._by_peer: dict[PeerId, Member] = {}
        self._by_node: dict[NodeId, Member] = {}

    async def heard(self, peer: PeerId, heartbeat: Heartbeat) -> Member | None:
        """Take a heartbeat; None when no such node is registered."""
        member = await self._member_of(peer)
        if member is None:
            return None
        member.heartbeat, member.heard_at, member.seen_at = heartbeat, trio.current_time(), self._clock()
        member.free_bytes = heartbeat.free_bytes
        address = self._transport.connected_address(peer)
        if address != member.address:
            member.address, member.prefix = address, network_prefix(address) if address else None
        member.is_dirty = True
        if not member.is_here:
            member.is_here, member.changed_at = True, member.seen_at
            log.info("node_online", node=str(member.node), name=member.record.name, chunks=heartbeat.chunk_count)
            if not member.is_watched:
                member.is_watched = True
                self._arrivals.send_nowait(member)
            self.changed.ring()
        return member

    def is_known(self, peer: PeerId) -> bool:
        """Whether it is a node that this coordinator has heard of."""
        return peer in self._by_peer

    async def watch_connections(self) -> None:
        """Notice in the moment it happens that a node's connection ends; until cancelled, which is harmless at any time."""
        async with trio.open_nursery() as nursery:
            async for member in self._to_watch:
                nursery.start_soon(self._watch, member)

    async def _watch(self, member: Member) -> None:
        await self._transport.wait_disconnected(member.peer)
        member.is_watched = False
        if member.is_here and not self._transport.is_connected(member.peer):
            self._lose(member)

    def resume(self) -> None:
        """This coordinator was stopped or stalled: nobody was silent meanwhile, as far as it knows."""
        self._resumed_at = trio.current_time()

    async def registered(self, peer: PeerId) -> Member | None:
        """The node with that peer id, whether it is there or not; None when no such node is registered."""
        return await self._member_of(peer)

    def is_online(self, member: Member) -> bool:
        """Whether the node is connected here and was heard of lately."""
        heard_at = max(member.heard_at, self._resumed_at)
        is_fresh = trio.current_time() - heard_at < self._config.silent_after_seconds
        return is_fresh and self._transport.is_connected(member.peer)

    def is_connected(self, member: Member) -> bool:
        """Whether the node can be asked at all: a drained or silent one may still give chunks back."""
        return self._transport.is_connected(member.peer)

    @contextmanager
    def reading(self, member: Member) -> Iterator[None]:
        """Count a chunk that is being read from the node."""
        member.reads += 1
        try:
            yield
        finally:
            member.reads -= 1

    def online(self) -> list[Member]:
        """All nodes that are there now."""
        return [member for member in self._by_node.values() if self.is_online(member)]

    def status(self, record: NodeRecord) -> NodeStatus:
        """How a node stands now: what is declared or judged of it stays; else whether it is heard, here or by another coordinator."""
        if record.status not in TAKES_CHUNKS:
            return record.status
        member = self._by_node.get(record.id)
        if member is not None and self.is_online(member):
            return "online"
        if record.absent_since is None and (member is None or member.recorded_here is False):
            return "online"  # another one hears it; what stands there for us may be a second old
        return "joining" if record.status == "joining" else "offline"

    def standing(self, record: NodeRecord) -> Standing:
        """Its status now, since when, and why. What the catalogue does not say yet (it will in seconds) is said here."""
        status = self.status(record)
        if status == record.status:
            return Standing(status, record.status_since, record.status_reason)
        if status == "offline":
            return Standing(status, record.absent_since or self._clock(), "no coordinator hears it")
        member = self._by_node.get(record.id)
        return Standing(status, member.changed_at if member else record.status_since, "is heard")

    def note_status(self, node: NodeId, status: NodeState) -> None:
        """A node passed into another state, by whomever; harmless when it is not known here."""
        if member := self._by_node.get(node):
            member.record = attrs.evolve(member.record, status=status)

    def member(self, node: NodeId) -> Member | None:
        """What is known here of a node."""
        return self._by_node.get(node)

    async def reread(self, peer: PeerId) -> None:
        """The node's row has changed: what it says is in force here from now on. Harmless for a node that is not known here."""
        if member := self._by_peer.get(peer):
            member.read_at = -math.inf
            await self._member_of(peer)

    def goodbye(self, peer: PeerId) -> None:
        """The node stops now: it is away until its next heartbeat, without waiting for its silence to be noticed."""
        if member := self._by_peer.get(peer):
            member.heard_at = -math.inf

    def candidate(self, node: NodeId) -> Candidate | None:
        """The node as placement sees it, None when it is not known here."""
        member = self._by_node.get(node)
        return self._candidate(member) if member else None

    def suspect(self, node: NodeId) -> None:
        """The node has just failed to store a chunk: give it none for a while, as long as there are others."""
        if member := self._by_node.get(node):
            member.suspect_until = trio.current_time() + self._config.suspect_seconds

    def note_slow(self, member: Member) -> None:
        """Another node was faster with a chunk though it was asked later, or this one did not answer: read from it last for a while."""
        member.slow_until = trio.current_time() + self._config.suspect_seconds

    def is_slow(self, member: Member) -> bool:
        """Whether it was slow to give a chunk of late."""
        return member.slow_until > trio.current_time()

    def spend(self, node: NodeId, size_bytes: int) -> None:
        """The node has just stored so much: count it until its next heartbeat does."""
        if member := self._by_node.get(node):
            member.free_bytes -= size_bytes

    def require(self, copies: int) -> None:
        """Raise TooFewNodes unless `copies` nodes could take a chunk now."""
        usable = (member for member in self._by_node.values() if self._takes_chunks(member))
        if (found := len(list(islice(usable, copies)))) < copies:
            raise TooFewNodes(wanted=copies, found=found)

    def choose(
        self, copies: int, size_bytes: int, *, without: frozenset[NodeId] = frozenset(), beside: tuple[NodeId, ...] = ()
    ) -> list[NodeId]:
        """Up to `copies` nodes for a chunk's sealed copies, none of `without`, apart from those of `beside` that have one already.

        Suspects fill gaps only. Of many nodes some drawn at random are looked at first (`[placement] sample_nodes`), all of them only when
        these are not enough: a choice costs the same in a large network.
        """
        passed_over = without | frozenset(beside)
        taken = [self._candidate(self._by_node[node]) for node in beside if node in self._by_node]
        some = self._candidates(self._some(), passed_over)
        chosen = self._place(self._trusted(some), copies, size_bytes, taken)
        if len(chosen) == copies:
            return chosen
        usable = self._candidates(self._by_node.values(), passed_over)
        chosen = self._place(self._trusted(usable), copies, size_bytes, taken)
        if len(chosen) < copies:
            taken += [candidate for candidate in usable if candidate.node in chosen]
            rest = [candidate for candidate in usable if candidate.node not in chosen]
            chosen += self._place(rest, copies - len(chosen), size_bytes, taken)
        return chosen

    def _some(self) -> list[Member]:
        """Nobody where everybody is looked at anyway."""
        count = self._placement.sample_nodes
        if len(self._by_node) <= count or self._placement.strategy == "round_robin":
            return []
        return self._chance.sample(list(self._by_node.values()), count)

    def _trusted(self, candidates: list[Candidate]) -> list[Candidate]:
        now = trio.current_time()
        return [candidate for candidate in candidates if self._by_node[candidate.node].suspect_until <= now]

    def _candidates(self, members: Iterable[Member], without: frozenset[NodeId]) -> list[Candidate]:
        return [self._candidate(each) for each in members if each.node not in without and self._takes_chunks(each)]

    def dirty_sightings(self) -> list[Sighting]:
        """What nodes said and the database does not know yet; it is taken as written."""
        dirty = [member for member in self._by_node.values() if member.is_dirty]
        for member in dirty:
            member.is_dirty = False
        return [self._sighting(member, member.heartbeat) for member in dirty if member.heartbeat is not None]

    def forget_written(self, sightings: list[Sighting]) -> None:
        """They could not be written after all: write them with the next."""
        for sighting in sightings:
            self._by_node[sighting.node].is_dirty = True

    def presence_changes(self) -> list[PresenceChange]:
        """Which nodes came or went, as far as the database does not know. Until `note_recorded` it is not known what that knows."""
        self._notice_silence()
        changed = [member for member in self._by_node.values() if member.recorded_here is not member.is_here]
        for member in changed:
            member.recorded_here = None
        return [self._change(member) for member in changed]

    def note_recorded(self, changes: Iterable[PresenceChange]) -> None:
        """The database knows these."""
        for change in changes:
            self._by_node[change.node].recorded_here = change.reason is None

    def forget_recorded(self, *, since: datetime | None = None) -> None:
        """What the database knows of presence may have changed behind our back: tell it all again, as new `since` then if given."""
        for member in self._by_node.values():
            member.recorded_here = None
            if since is not None and member.is_here:
                member.changed_at = since

    def _notice_silence(self) -> None:
        for member in self._by_node.values():
            if member.is_here and not self.is_online(member):
                self._lose(member)

    def _lose(self, member: Member) -> None:
        member.is_here = False
        if self._transport.is_connected(member.peer):
            member.changed_at = member.seen_at
            member.lost_because = f"nothing heard for {self._config.silent_after_seconds:g} s"
        else:
            member.changed_at, member.lost_because = self._clock(), "the connection was lost"
        log.info("node_offline", node=str(member.node), name=member.record.name, reason=member.lost_because)
        self.changed.ring()

    def _change(self, member: Member) -> PresenceChange:
        reason = None if member.is_here else member.lost_because
        decided_at = member.changed_at if member.is_here else self._clock()
        return PresenceChange(member.node, member.changed_at, decided_at, reason)

    @property
    def counts(self) -> Mapping[str, int]:
        """For health and metrics: nodes known here and nodes online."""
        return {"known": len(self._by_node), "online": len(self.online())}

    async def _member_of(self, peer: PeerId) -> Member | None:
        member = self._by_peer.get(peer)
        if member is not None and trio.current_time() - member.read_at < REFRESH_SECONDS:
            return member
        try:
            return self._admitted(peer, await node_by_peer(self._db, peer))
        except Unavailable:
            if member is None:
                raise
            return member  # who is known stays known while the database is away

    def _admitted(self, peer: PeerId, record: NodeRecord | None) -> Member | None:
        if record is None:
            return None
        member = self._by_peer.get(peer) or Member(record.id, peer, record)
        member.record, member.read_at = record, trio.current_time()
        self._by_peer[peer] = self._by_node[record.id] = member
        return member

    def _takes_chunks(self, member: Member) -> bool:
        is_draining = member.heartbeat is not None and member.heartbeat.draining
        takes = member.record.status in TAKES_CHUNKS and member.record.suspended_at is None
        return takes and not is_draining and self.is_online(member)

    def _candidate(self, member: Member) -> Candidate:
        return Candidate(
            node=member.node,
            operator=str(member.record.operator_id or member.node),
            prefix=member.prefix,
            region=member.record.region,
            free_bytes=max(member.free_bytes, 0),
            reputation=self._weight(member.record),
            in_flight=self._requester.in_flight_bytes(member.peer, STORE_CHUNK),
        )

    def _weight(self, record: NodeRecord) -> float:
        """In the draw: little where much has failed, or nothing has been proved yet."""
        weight = max(placement_weight(record.reputation, 1.0), LEAST_WEIGHT)
        return weight if record.vetted_at else weight * self._placement.new_node_weight

    def _place(self, usable: list[Candidate], copies: int, size_bytes: int, taken: list[Candidate]) -> list[NodeId]:
        if self._placement.strategy == "round_robin":
            self._turn += 1
            ordered = sorted(usable, key=lambda candidate: candidate.node.int)
            return place_round_robin(ordered, copies=copies, size_bytes=size_bytes, start=self._turn, taken=taken)
        return place(usable, copies=copies, size_bytes=size_bytes, chance=self._chance, taken=taken)

    def _sighting(self, member: Member, heartbeat: Heartbeat) -> Sighting:
        return Sighting(
            node=member.node,
            used_bytes=heartbeat.used_bytes,
            free_bytes=heartbeat.free_bytes,
            chunk_count=heartbeat.chunk_count,
            version=heartbeat.version,
            addresses=heartbeat.addresses,
            observed_address=member.address,
            seen_at=member.seen_at,
        )
