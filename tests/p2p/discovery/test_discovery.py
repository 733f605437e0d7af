"""Peers of a memory network find each other by record, within bounds, past the dead and the hostile."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import attrs
import pytest
import trio
import trio.testing

from fsn.core.errors import Invalid, PeerError, ProtocolViolation
from fsn.core.ids import PeerId
from fsn.core.kademlia import Located, key_of
from fsn.p2p.discovery.records import read_record, record_key, sign_record
from fsn.p2p.discovery.service import Discovery, DiscoveryPart, kad_protocol
from fsn.p2p.discovery.serving import MAX_STREAMS_OF_ONE, QUESTIONS
from fsn.p2p.transport.base import Stream, Transport
from fsn.p2p.transport.memory import MemoryNetwork
from fsn.p2p.wire.discovery_codec import KadKind, KadMessage, decode_kad, encode_kad, peer_bytes
from fsn.p2p.wire.framing import FrameDecoder
from fsn.p2p.wire.messages import Contact
from fsn.runtime.clock import virtual_clock
from fsn.runtime.identity import Identity

START = datetime(2030, 1, 1, tzinfo=UTC)
NETWORK = "test"
KAD = kad_protocol(NETWORK)


@attrs.define(eq=False)
class Peer:
    """One that takes part; `starts`: whom it asks first."""

    identity: Identity
    transport: Transport
    discovery: Discovery
    starts: list[Contact]

    @property
    def contact(self) -> Contact:
        """Where it is."""
        return Contact(self.identity.peer, tuple(self.transport.addresses))


@attrs.define(eq=False)
class World:
    """A memory network; time is trio's."""

    memory: MemoryNetwork
    nursery: trio.Nursery
    trusted: set[PeerId] = attrs.field(factory=set)
    now: datetime | None = None

    def clock(self) -> datetime:
        """The time of day."""
        return self.now or virtual_clock(START)()

    async def join(self, *starts: Peer, network: str = NETWORK, number: int | None = None, room: int = 100) -> Peer:
        """A peer that may store at all others."""
        identity = Identity.generate() if number is None else Identity(number.to_bytes(32, "big"))
        transport: Transport = await self.nursery.start(self._live, identity.peer)
        contacts = [peer.contact for peer in starts]

        async def may_store(peer: PeerId) -> bool:
            return peer in self.trusted

        part = DiscoveryPart(
            role="coordinator",
            start=lambda: contacts,
            addresses=lambda: transport.addresses,
            may_store=may_store,
            keeps=lambda peer: False,
            most_records=room,
        )
        self.trusted.add(identity.peer)
        return Peer(identity, transport, Discovery(transport, identity, network, part, self.clock), contacts)

    async def _live(self, peer: PeerId, task_status: trio.TaskStatus[Transport] = trio.TASK_STATUS_IGNORED) -> None:
        async with self.memory.open_transport(peer) as transport:
            task_status.started(transport)
            await trio.sleep_forever()

    def connections(self) -> int:
        """How many there are now."""
        return len(self.memory._connections)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Nobody yet."""
    async with trio.open_nursery() as nursery:
        yield World(MemoryNetwork(), nursery)
        nursery.cancel_scope.cancel()


async def crowd(world: World, count: int) -> list[Peer]:
    """A first peer, and others that know only it, and have looked around."""
    first = await world.join(number=1)
    peers = [first]
    for number in range(2, count + 1):
        peer = await world.join(first, number=number)
        await peer.discovery.publish()
        first.discovery.learn(peer.identity.peer, peer.contact.addresses)
        peers.append(peer)
    for peer in peers[1:]:
        await peer.discovery.refresh()
    return peers


async def test_who_publishes_is_found(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """By somebody who knows one other peer only; and no connection is left of it."""
    peers = await crowd(world, 12)
    for sought in (peers[3], peers[9]):
        record = await peers[-1].discovery.find(sought.identity.peer)
        assert record is not None
        assert record.addresses == sought.contact.addresses
    assert await peers[-1].discovery.find(Identity.generate().peer) is None
    assert world.connections() == 0


async def test_who_moves_is_found_again(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """The newest record wins, also after the peer was started again with a clock that is behind."""
    peers = await crowd(world, 5)
    mover, seeker = peers[1], peers[2]
    world.memory.readdress(mover.identity.peer, "10.0.0.9")
    assert await mover.discovery.publish() == 4
    record = await seeker.discovery.find(mover.identity.peer)
    assert record is not None
    assert record.addresses == (f"/ip4/10.0.0.9/memory/{mover.identity.peer}",)
    again = Discovery(mover.transport, mover.identity, NETWORK, mover.discovery._part, lambda: START)
    world.memory.readdress(mover.identity.peer, "10.0.0.10")
    assert await again.publish() == 4
    record = await seeker.discovery.find(mover.identity.peer)
    assert record is not None
    assert record.addresses == (f"/ip4/10.0.0.10/memory/{mover.identity.peer}",)


async def test_half_the_peers_may_be_dead(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """The others still find each other, within the time of a lookup, and forget those that do not answer."""
    peers = await crowd(world, 16)
    for peer in peers[:8]:
        world.memory.kill(peer.identity.peer)
    seeker, sought = peers[-1], peers[10]
    began = trio.current_time()
    record = await seeker.discovery.find(sought.identity.peer)
    assert record is not None
    assert trio.current_time() - began <= 30
    await seeker.discovery.refresh()
    assert not any(peer.identity.peer in seeker.discovery.table for peer in peers[:8])


async def test_networks_do_not_meet(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """A peer of another network is not asked twice, and its record is not valid here, should somebody carry it over."""
    ours, theirs = await world.join(), await world.join(network="other")
    with pytest.raises(ProtocolViolation, match="does not serve"):
        await ours.discovery.ask(at(theirs), KadMessage(KadKind.PING))
    ours.starts.append(theirs.contact)
    assert await ours.discovery.publish() == 0
    raw = record_of(theirs.identity, network="other")
    with pytest.raises(Invalid, match="network"):
        await ours.discovery._server.answer(
            theirs.identity.peer, KadMessage(KadKind.PUT_VALUE, record_key(theirs.identity.peer), raw)
        )


async def test_only_the_signer_may_store_and_only_if_trusted(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """Neither a stranger with a good record of its own nor a friend with somebody else's."""
    keeper, friend, stranger = await world.join(), await world.join(), await world.join()
    world.trusted.discard(stranger.identity.peer)
    stranger.starts.append(keeper.contact)
    assert await stranger.discovery.publish() == 0
    with pytest.raises(Invalid, match="own signer"):
        await keeper.discovery._server.answer(
            friend.identity.peer,
            KadMessage(KadKind.PUT_VALUE, record_key(stranger.identity.peer), record_of(stranger.identity)),
        )
    assert len(keeper.discovery.store) == 0
    friend.starts.append(keeper.contact)
    assert await friend.discovery.publish() == 1
    assert len(keeper.discovery.store) == 1


async def test_a_full_store_takes_no_more(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """Its own reader is told so by the reset that the specification asks for."""
    keeper = await world.join(room=2)
    taken = [await (await world.join(keeper)).discovery.publish() for _ in range(4)]
    assert taken == [1, 1, 0, 0]


async def test_a_stranger_may_ask(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """For records and for neighbours: the one that is looked for comes first, the asker is left out."""
    peers = await crowd(world, 6)
    stranger = await world.join()
    wanted = peers[2]
    question = KadMessage(KadKind.FIND_NODE, peer_bytes(wanted.identity.peer))
    answer, _ = await stranger.discovery.ask(at(peers[0]), question)
    assert answer.closer[0].peer == wanted.identity.peer
    assert len(answer.closer) == 5
    own = await peers[3].discovery.ask(at(peers[0]), KadMessage(KadKind.FIND_NODE, b"x"))
    assert peers[3].identity.peer not in {each.peer for each in own[0].closer}


async def test_hostile_answers_cost_no_more_than_their_question(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """Garbage, silence, hanging up, another kind, forged records, private addresses of other networks: the record is found all the same."""
    good = await crowd(world, 4)
    seeker, sought = good[1], good[2]

    async def garbage(stream: Stream) -> None:
        await stream.send_all(b"\xff" * 500)

    async def silence(stream: Stream) -> None:
        await trio.sleep_forever()

    async def forged(stream: Stream) -> None:
        frame = await frame_of(stream)
        raw = record_of(sought.identity, identity=Identity.generate())
        await stream.send_all(encode_kad(attrs.evolve(decode_kad(frame), value=raw, closer=())))

    async def another(stream: Stream) -> None:
        await stream.send_all(encode_kad(KadMessage(KadKind.PING)))

    for handler in (garbage, silence, forged, another):
        liar = await world.join()
        liar.transport.serve(KAD, handler)
        seeker.starts.append(liar.contact)
    record = await seeker.discovery.find(sought.identity.peer)
    assert record is not None
    assert record.addresses == sought.contact.addresses


async def test_what_a_stranger_sends_resets_its_stream_only(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """Garbage, oversize, unknown kinds, long keys; the peer answers the next one."""
    keeper, stranger = await world.join(), await world.join()
    await stranger.transport.connect(keeper.identity.peer, keeper.transport.addresses)
    long_key = bytearray(encode_kad(KadMessage(KadKind.GET_VALUE, b"k" * 129)))
    for data in (
        b"\xff\xff\xff",
        b"\x80\x80\x08",
        b"\x02\x08\x03",
        b"\x02\x08\x63",
        b"\x00",
        bytes(long_key),
        b"\x03abc",
    ):
        async with await stranger.transport.open_stream(keeper.identity.peer, KAD) as stream:
            await stream.send_all(data)
            with pytest.raises(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
    answer, _ = await stranger.discovery.ask(at(keeper), KadMessage(KadKind.PING))
    assert answer.kind == KadKind.PING
    assert not keeper.discovery._server._streams


async def test_streams_and_questions_are_bounded(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """A fifth stream of one peer is reset; who asks without end is answered ten times a second; a silent stream ends after a minute."""
    keeper, asker = await world.join(), await world.join()
    await asker.transport.connect(keeper.identity.peer, keeper.transport.addresses)
    streams = [await asker.transport.open_stream(keeper.identity.peer, KAD) for _ in range(MAX_STREAMS_OF_ONE + 1)]
    with pytest.raises(trio.BrokenResourceError):
        await streams[-1].receive_some()
    began = trio.current_time()
    for _ in range(QUESTIONS.burst + 100):
        await streams[0].send_all(encode_kad(KadMessage(KadKind.PING)))
        await frame_of(streams[0])
    assert trio.current_time() - began >= 100 / QUESTIONS.per_second - 0.2
    with pytest.raises(trio.BrokenResourceError):
        await streams[1].receive_some()
    assert trio.current_time() - began >= 50
    for stream in streams:
        await stream.aclose()


async def test_a_peer_that_never_answers_costs_eight_seconds(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """And its connection is closed."""
    asker, mute = await world.join(), await world.join()

    async def silence(stream: Stream) -> None:
        await trio.sleep_forever()

    mute.transport.serve(KAD, silence)
    began = trio.current_time()
    with pytest.raises(PeerError, match="8 s"):
        await asker.discovery.ask(at(mute), KadMessage(KadKind.PING))
    assert trio.current_time() - began == pytest.approx(8, abs=0.5)
    assert world.connections() == 0


async def test_addresses_of_private_networks_are_not_believed_from_outside(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """A peer on the Internet cannot make us dial inside our own network."""
    from fsn.p2p.discovery.service import _told
    from fsn.p2p.wire.discovery_codec import KadPeer

    named = KadPeer(Identity.generate().peer, ("/ip4/10.0.0.1/tcp/22", "/ip4/8.8.8.8/tcp/4001", "/dns/inside/tcp/80"))
    assert _told(named, "1.1.1.1").addresses == ("/ip4/8.8.8.8/tcp/4001",)
    assert _told(named, "10.0.0.9").addresses == ("/ip4/10.0.0.1/tcp/22", "/ip4/8.8.8.8/tcp/4001")


def at(peer: Peer) -> Located:
    """Where to ask it."""
    return Located(peer.identity.peer, key_of(peer_bytes(peer.identity.peer)), peer.contact.addresses)


def record_of(of: Identity, *, network: str = NETWORK, identity: Identity | None = None) -> bytes:
    """A record of `of`, signed by `identity`."""
    raw = sign_record(of, network=network, role="node", addresses=["/x"], sequence=10**15, now=START)
    if identity is None:
        return raw
    with pytest.raises(Invalid):
        read_record(raw[:-1] + b"\x00", key=record_key(of.peer), network=network, now=START)
    return raw[:-1] + bytes([raw[-1] ^ 1])


async def frame_of(stream: Stream) -> bytes:
    """The next frame."""
    frames = FrameDecoder()
    while data := await stream.receive_some():
        for frame in frames.feed(data):
            return bytes(frame)
    raise AssertionError("the stream ended")
