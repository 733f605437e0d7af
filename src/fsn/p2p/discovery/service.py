"""Finding peers and being found: lookups over the transport, a few at a time, each with an end."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import attrs
import structlog
import trio

from fsn.core.errors import Invalid, PeerError, ProtocolViolation, Unreachable
from fsn.core.ids import PeerId
from fsn.core.kademlia import Located, Lookup, RoutingTable, key_of
from fsn.core.reachability import may_be_told
from fsn.p2p.discovery.records import PeerRecord, RecordStore, own_sequence, read_record, record_key, sign_record
from fsn.p2p.discovery.serving import DhtServer, MayStore
from fsn.p2p.transport.addresses import host_of
from fsn.p2p.transport.base import Transport
from fsn.p2p.wire.discovery_codec import MAX_KAD_BYTES, KadKind, KadMessage, KadPeer, decode_kad, encode_kad, peer_bytes
from fsn.p2p.wire.framing import FrameDecoder
from fsn.p2p.wire.messages import Contact
from fsn.runtime.identity import Identity

__all__ = ["Discovery", "DiscoveryPart", "kad_protocol"]

log = structlog.get_logger("fsn.p2p")

LOOKUPS_AT_ONCE: Final = 2
LOOKUP_SECONDS: Final = 30.0
ASK_SECONDS: Final = 8.0
"""For one peer to be dialled and to answer."""
ENOUGH_RECORDS: Final = 4
"""Equal or older copies after which the newest is believed to be the newest there is."""


def kad_protocol(network: str) -> str:
    """The DHT's protocol id: a network's own, so that it never meets another, or the public one at /ipfs/kad/1.0.0."""
    return f"/federated-storage/{network}/kad/1.0.0"


@attrs.frozen
class DiscoveryPart:
    """What differs between a coordinator and a node."""

    role: str
    """coordinator or node."""
    start: Callable[[], Sequence[Contact]]
    """Who is asked first: peers that serve the DHT, as far as we know."""
    addresses: Callable[[], Sequence[str]]
    """Where we can be reached; nothing is published as long as there is none."""
    may_store: MayStore
    """Whose records are kept here."""
    keeps: Callable[[PeerId], bool]
    """Whether connections to a peer are somebody else's: they are left open when a lookup has made one."""
    note_record: Callable[[PeerRecord], None] = lambda record: None
    most_records: int = 1000


class Discovery:
    """Our place in the DHT."""

    def __init__(
        self, transport: Transport, identity: Identity, network: str, part: DiscoveryPart, clock: Callable[[], datetime]
    ) -> None:
        self._transport = transport
        self._identity = identity
        self._network = network
        self._part = part
        self._clock = clock
        self._room = trio.CapacityLimiter(LOOKUPS_AT_ONCE)
        self._own: PeerRecord | None = None
        self.table = RoutingTable(key_of(peer_bytes(identity.peer)))
        self.store = RecordStore(part.most_records)
        self._server = DhtServer(
            network, self.table, self.store, clock, part.may_store, part.note_record, lambda: self._own
        )
        transport.serve(kad_protocol(network), self._server.serve)

    @property
    def published(self) -> PeerRecord | None:
        """Our own record as it was published last; None before."""
        return self._own

    def learn(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """A peer that serves the DHT and was reached at these addresses."""
        self.table.add(Located(peer, key_of(peer_bytes(peer)), tuple(addresses)))

    async def find(self, peer: PeerId) -> PeerRecord | None:
        """The newest record of a peer that can be found within half a minute; None without one."""
        best: list[PeerRecord] = []
        await self._look_up(record_key(peer), KadKind.GET_VALUE, best)
        if (kept := self.store.get(record_key(peer), self._clock())) is not None:
            best.append(kept)
        return max(best, key=lambda record: record.sequence, default=None)

    async def refresh(self) -> int:
        """Look for our own neighbours, which fills the routing table; how many answered."""
        return len(await self._look_up(peer_bytes(self._identity.peer), KadKind.FIND_NODE, []))

    async def publish(self) -> int:
        """Put our record where it is looked for; how many took it. 0 when there is no address to publish."""
        addresses = tuple(self._part.addresses())
        if not addresses:
            return 0
        nearest = await self._look_up(record_key(self._identity.peer), KadKind.FIND_NODE, [])
        first = [located for located in self._start() if located.peer not in {each.peer for each in nearest}]
        taken = 0
        for located in (*nearest, *first):
            taken += await self._put(located, addresses)
        log.debug("dht_published", peers=taken, addresses=addresses)
        return taken

    # --- one lookup

    async def _look_up(self, key: bytes, kind: KadKind, records: list[PeerRecord]) -> Sequence[Located]:
        """Those nearest to `key` that answered; valid records on the way are added to `records`."""
        target = key_of(key)
        async with self._room:
            lookup = Lookup(target, [*self._start(), *self.table.closest(target)], own=self._identity.peer)
            with trio.move_on_after(LOOKUP_SECONDS):
                await _Looking(self, lookup, KadMessage(kind, key), records).run()
        return lookup.closest

    async def put_to(self, contact: Contact) -> bool:
        """Put our record to one peer; whether it took it. False without an address to publish."""
        addresses = tuple(self._part.addresses())
        return bool(addresses) and await self._put(_located(contact), addresses)

    async def _put(self, located: Located, addresses: tuple[str, ...]) -> bool:
        """Twice when the peer has a newer one of ours: our clock was ahead once, and its number is what we go on from."""
        for _ in range(2):
            own = self._record(addresses)
            question = KadMessage(KadKind.PUT_VALUE, record_key(own.peer), own.raw)
            try:
                answer, _ = await self.ask(located, question)
            except PeerError:
                return False
            kept = own_sequence(answer.value or b"", self._identity)
            if kept is None or kept <= own.sequence:
                return kept is not None
            self._own = attrs.evolve(own, sequence=kept)
        return False

    def _record(self, addresses: tuple[str, ...]) -> PeerRecord:
        """Ours, signed now; a later one always has the larger number."""
        now = self._clock()
        before = self._own.sequence if self._own is not None else 0
        sequence = max(before + 1, round(now.timestamp() * 1000))
        raw = sign_record(
            self._identity,
            network=self._network,
            role=self._part.role,
            addresses=addresses,
            sequence=sequence,
            now=now,
        )
        self._own = read_record(raw, key=record_key(self._identity.peer), network=self._network, now=now)
        return self._own

    def _start(self) -> list[Located]:
        return [_located(contact) for contact in self._part.start() if contact.peer != self._identity.peer]

    # --- one question

    async def ask(self, located: Located, question: KadMessage) -> tuple[KadMessage, str | None]:
        """The answer of one peer, which is dialled if need be, and the IP address it came from. Raises `PeerError`.

        A connection made for this is closed again.
        """
        peer, was_connected = located.peer, self._transport.is_connected(located.peer)
        try:
            with trio.fail_after(ASK_SECONDS):
                await self._transport.connect(peer, located.addresses)
                return await self._exchange(peer, question), self._transport.connected_address(peer)
        except trio.TooSlowError:
            raise Unreachable(f"{peer} did not answer a DHT question within {ASK_SECONDS:g} s") from None
        finally:
            if not was_connected and not self._part.keeps(peer):
                with trio.move_on_after(1.0, shield=True):
                    await self._transport.disconnect(peer)

    async def _exchange(self, peer: PeerId, question: KadMessage) -> KadMessage:
        frames = FrameDecoder(MAX_KAD_BYTES)
        try:
            async with await self._transport.open_stream(peer, kad_protocol(self._network)) as stream:
                await stream.send_all(encode_kad(question))
                await stream.send_eof()
                while data := await stream.receive_some():
                    for frame in frames.feed(data):
                        return _checked_kind(peer, question, decode_kad(frame))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Unreachable(f"{peer} reset a DHT question") from None
        raise ProtocolViolation(f"{peer} ended the stream without an answer")

    def checked(self, key: bytes, answer: KadMessage) -> PeerRecord | None:
        """The record in an answer, if there is a valid one."""
        if answer.value is None:
            return None
        try:
            return read_record(answer.value, key=key, network=self._network, now=self._clock())
        except (Invalid, ProtocolViolation) as error:
            log.debug("dht_record_refused", reason=error.message)
            return None


@attrs.define
class _Looking:
    """A lookup under way: three questions at a time until it is done, or enough copies of the record were seen."""

    discovery: Discovery
    lookup: Lookup
    question: KadMessage
    records: list[PeerRecord]
    _news: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while not self.lookup.is_done and len(self.records) < ENOUGH_RECORDS:
                for located in self.lookup.to_ask():
                    nursery.start_soon(self._ask, located)
                await self._news.wait()
                self._news = trio.Event()
            nursery.cancel_scope.cancel()

    async def _ask(self, located: Located) -> None:
        try:
            answer, told_from = await self.discovery.ask(located, self.question)
        except PeerError as error:
            log.debug("dht_peer_failed", peer=located.peer, reason=error.message)
            self.lookup.failed(located)
            self.discovery.table.remove(located.peer)
        else:
            if record := self.discovery.checked(self.question.key, answer):
                self.records.append(record)
            if located.addresses:
                self.discovery.table.add(attrs.evolve(located, told_from=None))
            self.lookup.answered(located, [_told(each, told_from) for each in answer.closer])
        self._news.set()


def _checked_kind(peer: PeerId, question: KadMessage, answer: KadMessage) -> KadMessage:
    if answer.kind != question.kind:
        raise ProtocolViolation(f"{peer} answered {question.kind.name} with {answer.kind.name}")
    return answer


def _located(contact: Contact) -> Located:
    return Located(contact.peer, key_of(peer_bytes(contact.peer)), contact.addresses)


def _told(named: KadPeer, told_from: str | None) -> Located:
    """A peer that another one has named, less the addresses that it has no business to name."""
    kept = tuple(address for address in named.addresses if _is_believed(address, told_from))
    return Located(named.peer, key_of(peer_bytes(named.peer)), kept, told_from or "")


def _is_believed(address: str, told_from: str | None) -> bool:
    host = host_of(address)
    if host is None:
        return True  # no IP network: the transport knows what it is
    return (
        may_be_told(host.name, told_from) if host.is_ip else False
    )  # a name may lead anywhere, also into our own network
