"""Answering peers: bounded work, every outcome an answer, and nothing that a peer sends ends more than its own stream."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from uuid import UUID

import attrs
import pytest
import trio
import trio.testing

from fsn.core import errors
from fsn.core.errors import FsnError, NotFound, PeerRefused, Unavailable
from fsn.core.ids import PeerId, ReplicaId
from fsn.p2p.server import AT_WORK, LONGEST_SECONDS, SENDING_SECONDS, refusal_for, serve_requests
from fsn.p2p.transport.base import Stream
from fsn.p2p.transport.memory import MemoryNetwork
from fsn.p2p.wire.codec import Envelope, decode, encode
from fsn.p2p.wire.framing import FrameDecoder
from fsn.p2p.wire.messages import (
    RETRIEVE_CHUNK,
    STORE_CHUNK,
    ChunkRetrieved,
    ChunkStored,
    Heartbeat,
    Message,
    Refusal,
    RefusalCode,
    Response,
    RetrieveChunk,
    StoreChunk,
)

ASKER, NODE = PeerId("asker"), PeerId("node")
LONGEST_TEST_SECONDS = 1e6
Handler = Callable[[PeerId, RetrieveChunk], Awaitable[Response]]


def replica(number: int) -> ReplicaId:
    """The id of replica `number`."""
    return ReplicaId(UUID(int=number))


async def echo(_: PeerId, message: RetrieveChunk) -> Response:
    """An honest answer: 16 bytes."""
    await trio.lowlevel.checkpoint()
    return ChunkRetrieved(message.replica.bytes, 16)


@attrs.define(eq=False)
class Asker:
    """One stream to the node, frame by frame."""

    stream: Stream
    memory: MemoryNetwork
    open: Callable[[], Awaitable[Stream]]
    allowed: set[PeerId]
    _frames: FrameDecoder = attrs.field(factory=FrameDecoder)
    _unread: list[Envelope] = attrs.field(factory=list)

    async def send(self, number: int, message: Message | None = None, deadline_ms: int = 0) -> None:
        """Ask for replica `number` (or something else), under that number."""
        await self.stream.send_all(encode(number, message or RetrieveChunk(replica(number)), deadline_ms))

    async def receive(self) -> Envelope | None:
        """The next answer; None at the end."""
        while not self._unread:
            data = await self.stream.receive_some()
            if not data:
                return None
            self._unread.extend(map(decode, self._frames.feed(data)))
        return self._unread.pop(0)

    async def ask(self, number: int, message: Message | None = None, deadline_ms: int = 0) -> Message:
        """Ask, and take the next answer, which must be to this."""
        await self.send(number, message, deadline_ms)
        envelope = await self.receive()
        assert envelope is not None
        assert envelope.request_id == number
        return envelope.message


@asynccontextmanager
async def open_asker(handler: Handler = echo) -> AsyncIterator[Asker]:
    """A node that serves retrieve-chunk with `handler`, and a peer with a stream to it. Bounded in (virtual) time."""
    memory, allowed = MemoryNetwork(), {ASKER}
    with trio.fail_after(LONGEST_TEST_SECONDS):
        async with memory.open_transport(ASKER) as asker, memory.open_transport(NODE) as node:
            serve_requests(node, {RetrieveChunk: handler}, may_ask=allowed.__contains__)
            await asker.connect(NODE, node.addresses)

            async def open_stream() -> Stream:
                return await asker.open_stream(NODE, RETRIEVE_CHUNK)

            yield Asker(await open_stream(), memory, open_stream, allowed)


async def settled() -> None:
    """Let everything happen that can without time passing."""
    await trio.testing.wait_all_tasks_blocked(0.0001)


async def test_a_request_is_answered_under_its_number(autojump_clock: trio.testing.MockClock) -> None:
    """Twice in a row on one stream; after the peer's end of sending the stream ends cleanly."""
    async with open_asker() as asker:
        assert await asker.ask(7) == ChunkRetrieved(replica(7).bytes, 16)
        assert await asker.ask(2**64 - 1, RetrieveChunk(replica(1))) == ChunkRetrieved(replica(1).bytes, 16)
        await asker.send(3)
        await asker.stream.send_eof()
        last = await asker.receive()
        assert last is not None
        assert last.request_id == 3
        assert await asker.receive() is None


async def test_answers_come_as_they_are_ready(autojump_clock: trio.testing.MockClock) -> None:
    """A slow request does not hold up the quick one behind it."""

    async def slow_first(peer: PeerId, message: RetrieveChunk) -> Response:
        await trio.sleep(10 if message.replica == replica(1) else 0)
        return await echo(peer, message)

    async with open_asker(slow_first) as asker:
        await asker.send(1)
        await asker.send(2)
        answers = [await asker.receive(), await asker.receive()]
        assert [envelope.request_id for envelope in answers if envelope] == [2, 1]


def kinds_of(root: type[FsnError]) -> Iterator[type[FsnError]]:
    """All classes below `root`, and itself."""
    yield root
    for kind in root.__subclasses__():
        yield from kinds_of(kind)


CODES = {
    errors.NotFound: "NOT_FOUND",
    errors.Corrupt: "CORRUPT",
    errors.DiskFull: "FULL",
    errors.Invalid: "INVALID",
    errors.TooLarge: "INVALID",
    errors.Conflict: "INVALID",
    errors.Unauthorized: "NOT_AUTHORISED",
    errors.Forbidden: "NOT_AUTHORISED",
    errors.Unavailable: "BUSY",
    errors.QuotaExceeded: "BUSY",
    errors.RateLimited: "BUSY",
}


def example(kind: type[FsnError]) -> FsnError:
    """An error of this kind."""
    if kind is errors.TooFewNodes:
        return errors.TooFewNodes(wanted=3, found=1)
    if kind is errors.TooFewCopies:
        return errors.TooFewCopies("why", wanted=3, found=1)
    return kind("why")


@pytest.mark.parametrize("kind", dict.fromkeys(kinds_of(FsnError)))
async def test_every_error_of_ours_has_its_code_on_the_wire(
    kind: type[FsnError], autojump_clock: trio.testing.MockClock
) -> None:
    """What a handler raises becomes a refusal that says the same; what can be tried again says when. The stream lives."""
    error = example(kind)

    async def raising(_: PeerId, message: RetrieveChunk) -> Response:
        await trio.lowlevel.checkpoint()
        raise error

    async with open_asker(raising) as asker:
        refusal = await asker.ask(1)
        assert isinstance(refusal, Refusal)
        assert refusal.code == CODES.get(kind, "INTERNAL")
        assert refusal.message == error.message
        assert (refusal.retry_after_ms > 0) == (error.transient and kind in CODES)
        await asker.ask(2)


def test_a_refusal_of_another_peer_keeps_its_code() -> None:
    """Who asks on somebody's behalf passes the answer on."""
    assert refusal_for(PeerRefused("no room", refusal="FULL")).code == "FULL"


@pytest.mark.parametrize(
    "bug",
    [
        ZeroDivisionError("hush"),
        trio.BrokenResourceError("hush"),
        trio.TooSlowError("hush"),
        ExceptionGroup("hush", [NotFound("hush")]),
        OSError(5, "hush"),
    ],
    ids=repr,
)
async def test_a_handlers_bug_is_a_refusal_that_tells_nothing(
    bug: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    """INTERNAL without the reason, which stands in our log; other requests of the stream go on."""

    async def sometimes(peer: PeerId, message: RetrieveChunk) -> Response:
        if message.replica == replica(1):
            raise bug
        await trio.sleep(1)
        return await echo(peer, message)

    async with open_asker(sometimes) as asker:
        await asker.send(2)
        refusal = await asker.ask(1)
        assert isinstance(refusal, Refusal)
        assert refusal.code == RefusalCode.INTERNAL
        assert "hush" not in refusal.message
        other = await asker.receive()
        assert other is not None
        assert isinstance(other.message, ChunkRetrieved)


@pytest.mark.parametrize("answer", [None, ChunkRetrieved(b"too long", 1), Refusal("not a code!", "x")])
async def test_an_answer_that_cannot_be_sent_is_a_bug_like_others(
    answer: Response, autojump_clock: trio.testing.MockClock
) -> None:
    """A handler that returns nonsense costs one INTERNAL, not the stream with everything under way on it."""

    async def nonsense(_: PeerId, message: RetrieveChunk) -> Response:
        await trio.sleep(0 if message.replica == replica(1) else 1)
        return answer if message.replica == replica(1) else ChunkRetrieved(b"x", 1)

    async with open_asker(nonsense) as asker:
        await asker.send(2)
        refusal = await asker.ask(1)
        assert isinstance(refusal, Refusal)
        assert refusal.code == RefusalCode.INTERNAL
        other = await asker.receive()
        assert other is not None
        assert other.message == ChunkRetrieved(b"x", 1)


@pytest.mark.parametrize(("deadline_ms", "seconds"), [(2500, 2.5), (0, LONGEST_SECONDS), (2**32 - 1, LONGEST_SECONDS)])
async def test_a_handler_has_as_long_as_the_asker_waits(
    deadline_ms: int, seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    """After the envelope's deadline, a minute at most, the work is cancelled and the asker told to come back."""

    async def endless(_: PeerId, message: RetrieveChunk) -> Response:
        await trio.sleep_forever()

    async with open_asker(endless) as asker:
        began = trio.current_time()
        refusal = await asker.ask(1, deadline_ms=deadline_ms)
        assert isinstance(refusal, Refusal)
        assert refusal.code == RefusalCode.BUSY
        assert refusal.retry_after_ms > 0
        assert trio.current_time() - began == pytest.approx(seconds)


async def test_a_request_of_another_protocol_is_invalid(autojump_clock: trio.testing.MockClock) -> None:
    """It is answered, and the stream lives."""
    async with open_asker() as asker:
        for message in (Heartbeat(0, 0, 0, ""), ChunkStored(replica(1))):
            refusal = await asker.ask(1, message)
            assert isinstance(refusal, Refusal)
            assert refusal.code == RefusalCode.INVALID
            assert type(message).__name__ in refusal.message
        assert isinstance(await asker.ask(2), ChunkRetrieved)


async def test_at_most_so_many_requests_are_at_work(autojump_clock: trio.testing.MockClock) -> None:
    """The others wait where the peer feels it: in the stream."""
    working = most = 0

    async def counting(peer: PeerId, message: RetrieveChunk) -> Response:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await trio.sleep(1)
        working -= 1
        return await echo(peer, message)

    async with open_asker(counting) as asker:
        for number in range(3 * AT_WORK):
            await asker.send(number)
        found = [await asker.receive() for _ in range(3 * AT_WORK)]
        assert {envelope.request_id for envelope in found if envelope} == set(range(3 * AT_WORK))
        assert most == AT_WORK


async def test_an_unknown_peer_is_told_so_and_comes_to_no_handler(autojump_clock: trio.testing.MockClock) -> None:
    """NOT_AUTHORISED for each request."""
    asked = []

    async def noting(peer: PeerId, message: RetrieveChunk) -> Response:
        asked.append(peer)
        return await echo(peer, message)

    async with open_asker(noting) as asker:
        asker.allowed.clear()
        for number in range(3):
            refusal = await asker.ask(number)
            assert isinstance(refusal, Refusal)
            assert refusal.code == RefusalCode.NOT_AUTHORISED
        assert asked == []


async def test_a_stream_lives_through_its_peers_registration(autojump_clock: trio.testing.MockClock) -> None:
    """Who may ask is judged at each request: a long-lived stream opened too early is good later, and no longer than allowed."""
    async with open_asker() as asker:
        asker.allowed.clear()
        assert isinstance(await asker.ask(1), Refusal)
        asker.allowed.add(ASKER)
        assert isinstance(await asker.ask(2), ChunkRetrieved)
        asker.allowed.clear()
        assert isinstance(await asker.ask(3), Refusal)


class StuckStream(Stream):
    """Brings request after request, and takes no answer."""

    peer = ASKER
    protocol = STORE_CHUNK

    def __init__(self) -> None:
        self.brought = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        self.brought += 1
        return encode(self.brought, StoreChunk(replica(1), bytes(32), bytes(262_160)))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_an_unknown_peer_cannot_make_us_hold_its_bytes(autojump_clock: trio.testing.MockClock) -> None:
    """Of a stranger that reads nothing one request is held, not one for each place at work; then it is cut off."""
    memory, stream = MemoryNetwork(), StuckStream()
    with trio.fail_after(LONGEST_TEST_SECONDS):
        async with memory.open_transport(NODE) as node:
            serve_requests(node, {StoreChunk: echo}, may_ask=lambda _: False)
            began = trio.current_time()
            await memory.transport(NODE)._handlers[STORE_CHUNK](stream)
    assert stream.brought == 1
    assert trio.current_time() == began + SENDING_SECONDS


async def test_a_peer_that_does_not_read_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    """After a minute in which it took nothing of an answer its stream ends, with all that was under way on it."""
    under_way = 0

    async def large(_: PeerId, message: RetrieveChunk) -> Response:
        nonlocal under_way
        if message.replica == replica(99):
            under_way += 1
            try:
                await trio.sleep(SENDING_SECONDS - 1)
                await trio.sleep(LONGEST_SECONDS)
            finally:
                under_way -= 1
        return ChunkRetrieved(bytes(200_000), 200_000)

    async with open_asker(large) as asker:
        await asker.send(1)
        await asker.send(2)
        await settled()
        await trio.sleep(SENDING_SECONDS / 2)
        await asker.send(99)
        await settled()
        assert under_way == 1
        await trio.sleep(SENDING_SECONDS / 2 + 1)
        assert under_way == 0
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await asker.send(3)
            await settled()
            await asker.send(4)


async def test_a_slow_reader_that_goes_on_reading_is_served(autojump_clock: trio.testing.MockClock) -> None:
    """The minute is for one answer: many that wait for a thin line are not held against the peer."""

    async def large(_: PeerId, message: RetrieveChunk) -> Response:
        await trio.lowlevel.checkpoint()
        return ChunkRetrieved(bytes(250_000), 250_000)

    async with open_asker(large) as asker:
        for number in range(20):
            await asker.send(number)
        for _ in range(20):
            await trio.sleep(SENDING_SECONDS / 3)
            envelope = await asker.receive()
            assert envelope is not None
            assert isinstance(envelope.message, ChunkRetrieved)


@pytest.mark.parametrize("garbage", [b"\x00", b"\xff\xff\xff\xff", b"\x03abc"])
async def test_garbage_ends_its_stream_only(garbage: bytes, autojump_clock: trio.testing.MockClock) -> None:
    """Another stream of the same peer goes on, and a new one can be opened."""
    async with open_asker() as asker:
        other = attrs.evolve(asker, stream=await asker.open(), frames=FrameDecoder(), unread=[])
        await asker.stream.send_all(garbage)
        assert await asker.receive() is None
        assert isinstance(await other.ask(1), ChunkRetrieved)
        fresh = attrs.evolve(asker, stream=await asker.open(), frames=FrameDecoder(), unread=[])
        assert isinstance(await fresh.ask(1), ChunkRetrieved)


async def test_a_broken_connection_cancels_its_work(autojump_clock: trio.testing.MockClock) -> None:
    """What nobody can be told of any more is given up."""
    ended = trio.Event()

    async def endless(_: PeerId, message: RetrieveChunk) -> Response:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_asker(endless) as asker:
        await asker.send(1)
        await settled()
        began = trio.current_time()
        asker.memory.cut(ASKER, NODE)
        await ended.wait()
        assert trio.current_time() == began


def test_transient_errors_say_when_to_come_back() -> None:
    """Only what may succeed later does."""
    assert refusal_for(Unavailable("x")).retry_after_ms == 1000
    assert refusal_for(NotFound("x")).retry_after_ms == 0
