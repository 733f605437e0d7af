"""Asking peers: answers find their askers whatever the peer, the stream and the other askers do."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import attrs
import pytest
import trio
import trio.testing

from fsn.core.errors import PeerError, PeerRefused, PeerTimeout, ProtocolViolation, Unreachable
from fsn.core.ids import PeerId, ReplicaId
from fsn.core.reachability import DialResult
from fsn.p2p.client import OPENING_SECONDS, SENDING_SECONDS, Requester, open_requester
from fsn.p2p.transport.base import Stream, StreamHandler, Transport
from fsn.p2p.transport.memory import MemoryNetwork
from fsn.p2p.wire.codec import Envelope, decode, encode
from fsn.p2p.wire.framing import FrameDecoder
from fsn.p2p.wire.messages import (
    PROTOCOL_OF,
    RETRIEVE_CHUNK,
    STORE_CHUNK,
    ChunkRetrieved,
    ChunksDeleted,
    ChunkStored,
    Heartbeat,
    Message,
    Refusal,
    RefusalCode,
    Request,
    Response,
    RetrieveChunk,
    StoreChunk,
)

ASKER, PEER = PeerId("asker"), PeerId("peer")
SIZE = 1000
LONGEST_SECONDS = 1e8


def replica(number: int) -> ReplicaId:
    """The id of replica `number`."""
    return ReplicaId(UUID(int=number))


def store(number: int, size_bytes: int = SIZE) -> StoreChunk:
    """A request that takes room in the window."""
    return StoreChunk(replica(number), bytes(32), bytes(size_bytes))


@attrs.define(eq=False)
class Peer:
    """The other end, as the test makes it: what came is in `asked`, in order; nothing is answered by itself."""

    asked: list[tuple[Stream, Envelope]] = attrs.field(factory=list)
    streams: list[Stream] = attrs.field(factory=list)
    is_reading: bool = True
    _came: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, stream: Stream) -> None:
        """Note every request, until the stream ends."""
        self.streams.append(stream)
        if not self.is_reading:
            await trio.sleep_forever()
        frames = FrameDecoder()
        while data := await stream.receive_some():
            self.asked.extend((stream, decode(frame)) for frame in frames.feed(data))
            self._came.set()
            self._came = trio.Event()

    async def wait_asked(self, count: int) -> None:
        """Until so many requests have come."""
        while len(self.asked) < count:
            await self._came.wait()

    async def answer(self, number: int, message: Message | None = None) -> None:
        """Answer request `number` (counted from 0) as a node would."""
        stream, envelope = self.asked[number]
        await stream.send_all(encode(envelope.request_id, message or good_answer(envelope.message)))


def good_answer(message: Message) -> Response:
    """What an honest node says."""
    match message:
        case StoreChunk(replica=replica):
            return ChunkStored(replica)
        case RetrieveChunk(replica=replica):
            return ChunkRetrieved(replica.bytes, 16)
    raise AssertionError(message)


@attrs.define(eq=False)
class Pair:
    """An asker and its peer."""

    requester: Requester
    peer: Peer
    memory: MemoryNetwork
    nursery: trio.Nursery
    outcomes: dict[int, Response | PeerError] = attrs.field(factory=dict)

    async def ask(self, number: int, message: Request | None = None, within_seconds: float = 30.0) -> trio.CancelScope:
        """Ask in the background, after those who asked before; the answer or error will stand in `outcomes`."""
        scope = trio.CancelScope()
        self.nursery.start_soon(self._ask, number, message or store(number), within_seconds, scope)
        await settled()
        return scope

    async def _ask(self, number: int, message: Request, within_seconds: float, scope: trio.CancelScope) -> None:
        with scope:
            try:
                self.outcomes[number] = await self.requester.request(PEER, message, within_seconds=within_seconds)
            except PeerError as error:
                self.outcomes[number] = error

    @property
    def in_flight(self) -> int:
        """Bytes of the window to the peer that are taken."""
        return self.requester.in_flight_bytes(PEER, STORE_CHUNK)


@asynccontextmanager
async def open_pair(*, window_bytes: int = 1 << 20, serve: StreamHandler | None = None) -> AsyncIterator[Pair]:
    """Two peers in one memory network, connected. Bounded in (virtual) time."""
    memory, peer = MemoryNetwork(), Peer()
    with trio.fail_after(LONGEST_SECONDS):
        async with memory.open_transport(ASKER) as asker, memory.open_transport(PEER) as other:
            for protocol in PROTOCOL_OF.values():
                other.serve(protocol, serve or peer.serve)
            await asker.connect(PEER, other.addresses)
            async with open_requester(asker, window_bytes=window_bytes) as requester, trio.open_nursery() as nursery:
                yield Pair(requester, peer, memory, nursery)
                nursery.cancel_scope.cancel()


async def settled() -> None:
    """Let everything happen that can without time passing."""
    await trio.testing.wait_all_tasks_blocked(0.0001)


async def test_answers_in_any_order_find_their_askers(autojump_clock: trio.testing.MockClock) -> None:
    """The last asked may be answered first; all go over one stream."""
    async with open_pair() as pair:
        for number in range(5):
            await pair.ask(number)
        await pair.peer.wait_asked(5)
        for place in (4, 0, 3, 1, 2):
            await pair.peer.answer(place)
        await settled()
        assert pair.outcomes == {number: ChunkStored(replica(number)) for number in range(5)}
        assert len(pair.peer.streams) == 1
        assert pair.in_flight == 0


async def test_each_protocol_has_a_stream_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    """A request goes out on the protocol that is its kind's."""
    async with open_pair() as pair:
        await pair.ask(0)
        await pair.ask(1, RetrieveChunk(replica(1)))
        await pair.peer.wait_asked(2)
        found = {stream.protocol: type(envelope.message) for stream, envelope in pair.peer.asked}
        assert found == {STORE_CHUNK: StoreChunk, RETRIEVE_CHUNK: RetrieveChunk}


async def test_a_refusal_is_raised_with_its_code(autojump_clock: trio.testing.MockClock) -> None:
    """A refusal is an answer; the stream lives on."""
    async with open_pair() as pair:
        await pair.ask(0)
        await pair.peer.wait_asked(1)
        await pair.peer.answer(0, Refusal(RefusalCode.FULL, "no room"))
        await settled()
        refused = pair.outcomes[0]
        assert isinstance(refused, PeerRefused)
        assert refused.refusal == "FULL"
        assert "no room" in refused.message
        await pair.ask(1)
        await pair.peer.wait_asked(2)
        assert len(pair.peer.streams) == 1


async def test_no_answer_is_a_timeout_and_a_late_one_is_nobodys(autojump_clock: trio.testing.MockClock) -> None:
    """After its time the asker is told so, the window is free, and the late answer disturbs no other request."""
    async with open_pair() as pair:
        began = trio.current_time()
        with pytest.raises(PeerTimeout):
            await pair.requester.request(PEER, store(0), within_seconds=7)
        assert trio.current_time() == began + 7
        assert pair.in_flight == 0
        await pair.ask(1)
        await pair.peer.wait_asked(2)
        await pair.peer.answer(0)
        await settled()
        assert pair.outcomes == {}
        await pair.peer.answer(1)
        await settled()
        assert pair.outcomes == {1: ChunkStored(replica(1))}


async def test_the_peer_is_told_how_long_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """The deadline in the envelope is what remains when the frame is made, waiting for the window not included."""
    async with open_pair(window_bytes=2 * SIZE) as pair:
        await pair.ask(0, within_seconds=30)
        await pair.peer.wait_asked(1)
        await pair.ask(1, within_seconds=30)
        await trio.sleep(20)
        await pair.peer.answer(0)
        await pair.peer.wait_asked(2)
        deadlines = [envelope.deadline_ms for _, envelope in pair.peer.asked]
        assert deadlines == [30_000, pytest.approx(10_000, abs=10)]


@pytest.mark.parametrize(("within_seconds", "deadline_ms"), [(float("inf"), 2**32 - 1), (1e-4, 1)])
async def test_odd_deadlines_are_sent_as_what_the_wire_knows(
    autojump_clock: trio.testing.MockClock, within_seconds: float, deadline_ms: int
) -> None:
    """For ever is the longest time that there is; an instant is not "not said"."""
    async with open_pair() as pair:
        await pair.ask(0, within_seconds=within_seconds)
        await pair.peer.wait_asked(1)
        assert pair.peer.asked[0][1].deadline_ms == deadline_ms


async def test_an_asker_cancelled_while_it_waits_for_the_window(autojump_clock: trio.testing.MockClock) -> None:
    """It has sent nothing and taken nothing, and those behind it move up."""
    async with open_pair(window_bytes=2 * SIZE) as pair:
        await pair.ask(0)
        await pair.peer.wait_asked(1)
        cancelled = await pair.ask(1)
        await pair.ask(2)
        await settled()
        cancelled.cancel()
        await settled()
        await pair.peer.answer(0)
        await pair.peer.wait_asked(2)
        assert pair.peer.asked[1][1].message == store(2)


async def test_an_asker_cancelled_while_it_waits_for_the_answer(autojump_clock: trio.testing.MockClock) -> None:
    """The others get their answers, and the window counts exactly those that are left."""
    async with open_pair() as pair:
        await pair.ask(0)
        cancelled = await pair.ask(1)
        await pair.ask(2)
        await pair.peer.wait_asked(3)
        taken = pair.in_flight
        cancelled.cancel()
        await settled()
        assert pair.in_flight == taken * 2 // 3
        for place in (0, 1, 2):
            await pair.peer.answer(place)
        await settled()
        assert pair.outcomes.keys() == {0, 2}
        assert pair.in_flight == 0


async def test_an_asker_cancelled_while_its_bytes_are_being_sent(autojump_clock: trio.testing.MockClock) -> None:
    """Half a frame is on its way: the rest follows, and the stream stays good for the others."""
    async with open_pair() as pair:
        pair.peer.is_reading = False
        cancelled = await pair.ask(0, store(0, 262_160))  # more than the memory transport's pipe takes
        await pair.ask(1)
        await settled()
        cancelled.cancel()
        await settled()
        pair.nursery.start_soon(_read_late, pair.peer)
        await pair.peer.wait_asked(2)
        await pair.peer.answer(1)
        await settled()
        assert pair.outcomes == {1: ChunkStored(replica(1))}


async def _read_late(peer: Peer) -> None:
    peer.is_reading = True
    await peer.serve(peer.streams[0])


async def test_what_nobody_waits_for_any_more_is_not_sent(autojump_clock: trio.testing.MockClock) -> None:
    """A queued request whose asker has gone spares the peer the work and us the memory: the window bounds what is queued."""
    async with open_pair(window_bytes=1 << 20) as pair:
        pair.peer.is_reading = False
        await pair.ask(0, store(0, 262_160))
        await settled()
        for number in range(1, 200):
            await pair.ask(number, store(number, 262_000), within_seconds=1)
        await trio.sleep(2)
        [channel] = pair.requester._channels.values()
        assert channel.queued_bytes <= 1 << 20
        pair.nursery.start_soon(_read_late, pair.peer)
        await pair.peer.wait_asked(1)
        await settled()
        assert len(pair.peer.asked) == 1


async def test_the_window_bounds_what_is_unanswered(autojump_clock: trio.testing.MockClock) -> None:
    """Many requests to one peer never take more than the window, and are sent in the order of asking."""
    window_bytes = 5 * (SIZE + 256)
    async with open_pair(window_bytes=window_bytes) as pair:
        for number in range(50):
            await pair.ask(number)
        most = 0
        for place in range(50):
            await pair.peer.wait_asked(place + 1)
            most = max(most, len(pair.peer.asked) - place)
            assert pair.in_flight <= window_bytes
            await pair.peer.answer(place)
            await settled()
        assert most == 5
        messages = [envelope.message for _, envelope in pair.peer.asked]
        assert messages == [store(number) for number in range(50)]
        assert pair.in_flight == 0


async def test_a_break_fails_everybody_and_the_next_request_opens_a_new_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Those whose requests were sent, queued, or waiting for the window: all are told, each with an exception of its own."""
    async with open_pair(window_bytes=20 * SIZE) as pair:
        for number in range(50):
            await pair.ask(number)
        await settled()
        await trio.aclose_forcefully(pair.peer.streams[0])
        await settled()
        assert len(pair.outcomes) == 50
        assert {type(outcome) for outcome in pair.outcomes.values()} == {Unreachable}
        assert len({id(outcome) for outcome in pair.outcomes.values()}) == 50
        assert pair.in_flight == 0
        before = len(pair.peer.asked)
        await pair.ask(100)
        await pair.peer.wait_asked(before + 1)
        assert len(pair.peer.streams) == 2


async def test_a_peer_that_ends_the_stream_has_broken_it(autojump_clock: trio.testing.MockClock) -> None:
    """A clean end while requests wait is an end all the same, and a request made in that moment has a new stream."""
    async with open_pair() as pair:
        await pair.ask(0)
        await pair.peer.wait_asked(1)
        await pair.peer.streams[0].send_eof()
        await settled()
        assert isinstance(pair.outcomes[0], Unreachable)
        await pair.ask(1)
        await pair.peer.wait_asked(2)
        await pair.peer.answer(1)
        await settled()
        assert pair.outcomes[1] == ChunkStored(replica(1))


async def test_without_a_connection_it_says_so(autojump_clock: trio.testing.MockClock) -> None:
    """At once, and once more for the next request."""
    async with open_pair() as pair:
        pair.memory.cut(ASKER, PEER)
        began = trio.current_time()
        for _ in range(2):
            with pytest.raises(Unreachable):
                await pair.requester.request(PEER, store(0), within_seconds=10)
        assert trio.current_time() == began
        assert pair.requester._channels == {}


@pytest.mark.parametrize(
    "garbage", [b"\x00", b"\xff\xff\xff\xff", b"\x03abc", encode(1, ChunkStored(replica(0)))[:-1] + b"\xff"]
)
async def test_garbage_is_a_violation_for_all_who_wait(autojump_clock: trio.testing.MockClock, garbage: bytes) -> None:
    """A stream that has lost its frame borders is given up; the message names the peer."""
    async with open_pair() as pair:
        for number in range(3):
            await pair.ask(number)
        await pair.peer.wait_asked(3)
        await pair.peer.streams[0].send_all(garbage)
        await settled()
        assert {type(outcome) for outcome in pair.outcomes.values()} == {ProtocolViolation}
        assert all("peer" in str(outcome) for outcome in pair.outcomes.values())
        await pair.ask(9)
        await pair.peer.wait_asked(4)
        assert len(pair.peer.streams) == 2


@pytest.mark.parametrize(
    "wrong",
    [ChunksDeleted({}), ChunkRetrieved(b"x", 1), Heartbeat(0, 0, 0, ""), store(0)],
    ids=lambda m: type(m).__name__,
)
async def test_an_answer_of_the_wrong_kind_is_a_violation_for_its_asker(
    autojump_clock: trio.testing.MockClock, wrong: Message
) -> None:
    """Another answer, or a request, in the place of the answer: no caller takes it for a success. Others are not disturbed."""
    async with open_pair() as pair:
        await pair.ask(0)
        await pair.ask(1)
        await pair.peer.wait_asked(2)
        await pair.peer.answer(0, wrong)
        await pair.peer.answer(1)
        await settled()
        assert isinstance(pair.outcomes[0], ProtocolViolation)
        assert type(wrong).__name__ in str(pair.outcomes[0])
        assert pair.outcomes[1] == ChunkStored(replica(1))


async def test_answers_to_what_was_never_asked_are_nobodys(autojump_clock: trio.testing.MockClock) -> None:
    """Unknown ids, and a second answer to an answered one, change nothing."""
    async with open_pair() as pair:
        await pair.ask(0)
        await pair.peer.wait_asked(1)
        for request_id in (0, 77, 2**64 - 1):
            await pair.peer.streams[0].send_all(encode(request_id, ChunkStored(replica(5))))
        await settled()
        assert pair.outcomes == {}
        await pair.peer.answer(0)
        await settled()
        await pair.peer.answer(0, Refusal(RefusalCode.FULL, "no"))
        await settled()
        assert pair.outcomes == {0: ChunkStored(replica(0))}


async def test_a_peer_that_takes_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """Bytes that nobody takes for a minute mean a stream that is no use; a new one may be better."""
    async with open_pair() as pair:
        pair.peer.is_reading = False
        began = trio.current_time()
        with pytest.raises(Unreachable, match="took nothing"):
            await pair.requester.request(PEER, store(0, 262_160), within_seconds=1000)
        assert trio.current_time() == began + SENDING_SECONDS


async def test_a_request_that_cannot_be_encoded_is_the_askers_own_mistake(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """ValueError for the asker; the stream and the others know nothing of it."""
    async with open_pair() as pair:
        await pair.ask(0)
        with pytest.raises(ValueError, match="root bytes"):
            await pair.requester.request(PEER, StoreChunk(replica(1), b"", b"x"), within_seconds=5)
        await pair.peer.wait_asked(1)
        await pair.peer.answer(0)
        await settled()
        assert pair.outcomes == {0: ChunkStored(replica(0))}
        assert pair.in_flight == 0


async def test_leaving_the_block_ends_everything(autojump_clock: trio.testing.MockClock) -> None:
    """Those who wait are told, streams are closed, and later requests are Unreachable, not a bug."""
    memory, peer, outcomes = MemoryNetwork(), Peer(), list[str]()
    with trio.fail_after(100):
        async with (
            memory.open_transport(ASKER) as asker,
            memory.open_transport(PEER) as other,
            trio.open_nursery() as n,
        ):
            other.serve(STORE_CHUNK, peer.serve)
            await asker.connect(PEER, other.addresses)
            async with open_requester(asker) as requester:

                async def ask(number: int) -> None:
                    try:
                        await requester.request(PEER, store(number), within_seconds=50)
                    except PeerError as error:
                        outcomes.append(type(error).__name__)

                for number in range(3):
                    n.start_soon(ask, number)
                await peer.wait_asked(3)
            await settled()
            assert outcomes == ["Unreachable"] * 3
            assert peer.streams[0].peer == ASKER
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                await peer.streams[0].send_all(b"x")
            began = trio.current_time()
            await ask(9)
            assert outcomes[3:] == ["Unreachable"]
            assert trio.current_time() == began


class HangingTransport(Transport):
    """Opens no stream, ever."""

    peer = ASKER
    addresses: Sequence[str] = ()

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        raise NotImplementedError

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        raise NotImplementedError

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        await trio.sleep_forever()

    def is_connected(self, peer: PeerId) -> bool:
        return True

    def connected_address(self, peer: PeerId) -> str | None:
        return None

    def local_address(self, peer: PeerId) -> str | None:
        return None

    async def probe(self, peer: PeerId, address: str) -> DialResult:
        raise NotImplementedError

    async def wait_disconnected(self, peer: PeerId) -> None:
        await trio.sleep_forever()

    async def disconnect(self, peer: PeerId) -> None:
        raise NotImplementedError


async def test_a_stream_that_does_not_open_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """After ten seconds the peer counts as unreachable; who had less patience has gone before."""
    with trio.fail_after(1000):
        async with open_requester(HangingTransport()) as requester:
            began = trio.current_time()
            with pytest.raises(PeerTimeout):
                await requester.request(PEER, store(0), within_seconds=3)
            with pytest.raises(Unreachable, match="did not open a stream"):
                await requester.request(PEER, store(0), within_seconds=100)
            assert trio.current_time() == began + OPENING_SECONDS


async def test_a_protocol_that_the_peer_does_not_serve_is_a_violation(autojump_clock: trio.testing.MockClock) -> None:
    """It is told at once."""
    memory = MemoryNetwork()
    with trio.fail_after(100):
        async with memory.open_transport(ASKER) as asker, memory.open_transport(PEER) as other:
            await asker.connect(PEER, other.addresses)
            async with open_requester(asker) as requester:
                with pytest.raises(ProtocolViolation, match="does not serve"):
                    await requester.request(PEER, store(0), within_seconds=100)
