"""Anything cut, changed or made up, at each layer of the wire: right bytes or a break, never wrong bytes, and never the host's end."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random

import attrs
import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from fsn.core.errors import FsnError, ProtocolViolation, Unreachable
from fsn.p2p.transport import yamux
from fsn.p2p.transport.addresses import format_tcp_address, parse_tcp_address
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.p2p.transport.multistream import select
from fsn.p2p.transport.yamux_frames import FIN, PING, RST, SYN, WINDOW_UPDATE, FrameParser, pack_header
from fsn.p2p.transport.yamux_stream import YamuxStream
from fsn.runtime.identity import Identity
from tests.p2p.transport.contract import ECHO, Pair, assert_echoes, echo, noise
from tests.p2p.transport.hostile import GREETING, yamux_of
from tests.p2p.transport.pairs import LOOPBACK, open_ours, open_pair_of
from tests.p2p.transport.test_yamux import data, open_peer, session_pair, syn

pytestmark = pytest.mark.fuzz

Bytes = Callable[[bytes], bytes]
cuttings = st.lists(st.integers(1, 400), min_size=1, max_size=8)


def in_pieces(content: bytes, sizes: list[int]) -> list[bytes]:
    """The content cut into pieces of these sizes, over and over."""
    pieces, position, turn = [], 0, 0
    while position < len(content):
        size = sizes[turn % len(sizes)]
        pieces.append(content[position : position + size])
        position, turn = position + size, turn + 1
    return pieces


# --- Noise


async def sealed(messages: list[bytes]) -> bytes:
    """What a session sends for these messages."""
    sending, receiving = trio.testing.memory_stream_pair()
    ours, _ = session_pair()
    ours._stream = sending
    for message in messages:
        await ours.send_parts([message])
    await sending.send_eof()
    return b"".join([piece async for piece in receiving])


async def opened(content: bytes, sizes: list[int]) -> tuple[list[bytes], bool]:
    """What a session makes of these bytes, come in such pieces; and whether it broke."""
    sending, receiving = trio.testing.memory_stream_pair()
    _, theirs = session_pair()
    theirs._stream = receiving
    got: list[bytes] = []
    for piece in in_pieces(content, sizes):
        await sending.send_all(piece)
        with trio.move_on_after(0):
            try:
                got += await theirs.receive_messages()
            except trio.BrokenResourceError:
                return got, True
    await sending.aclose()
    with suppress(trio.BrokenResourceError):
        while messages := await theirs.receive_messages():
            got += messages
        return got, False
    return got, True


plain = st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=4)


@given(plain, st.integers(0, 10_000), cuttings)
async def test_noise_messages_cut_anywhere_are_whole_or_absent(
    messages: list[bytes], cut: int, sizes: list[int]
) -> None:
    """A sealed stream that ends anywhere yields the whole messages before that place, as they were."""
    content = await sealed(messages)
    got, broke = await opened(content[: cut % (len(content) + 1)], sizes)
    assert got == messages[: len(got)]
    assert not broke


@given(plain, st.integers(0, 10_000), st.integers(1, 255), cuttings)
async def test_a_changed_bit_ends_the_messages(
    messages: list[bytes], place: int, change: int, sizes: list[int]
) -> None:
    """A byte changed anywhere, the messages before it come, those from it on never do."""
    content = bytearray(await sealed(messages))
    content[place % len(content)] ^= change
    got, _ = await opened(bytes(content), sizes)
    assert got == messages[: len(got)]
    assert len(got) < len(messages)


@given(st.binary(max_size=600), cuttings)
async def test_bytes_that_nobody_sealed_are_no_message(content: bytes, sizes: list[int]) -> None:
    """Made-up bytes never become a message."""
    got, _ = await opened(content, sizes)
    assert got == []


# --- Yamux


@attrs.define(eq=False)
class Taking:
    """Takes the streams that a peer opens, and all that comes on them."""

    got: dict[int, bytearray] = attrs.field(factory=dict)
    ended: dict[int, bool] = attrs.field(factory=dict)

    async def run(self, connection: yamux.YamuxConnection) -> None:
        """Until the connection is over and all streams are."""
        async with trio.open_nursery() as nursery:
            with suppress(trio.EndOfChannel):
                while True:
                    nursery.start_soon(self._take, await connection.accept_stream())

    async def _take(self, stream: YamuxStream) -> None:
        number = stream.stream_id
        self.got.setdefault(number, bytearray())
        self.ended[number] = False
        with suppress(trio.BrokenResourceError):
            async for piece in stream:
                self.got[number] += piece
            self.ended[number] = True
        await stream.aclose()


async def taken(content: bytes, sizes: list[int]) -> Taking:
    """What our Yamux makes of these bytes in messages of such sizes, after which the connection is lost. Fails if it hangs."""
    taking = Taking()
    with trio.fail_after(30):
        async with open_peer() as peer, trio.open_nursery() as nursery:
            nursery.start_soon(taking.run, peer.connection)
            with suppress(trio.BrokenResourceError):
                for piece in in_pieces(content, sizes):
                    await peer.send(piece)
                    await trio.lowlevel.checkpoint()
            await peer.session.aclose()
            await peer.connection.closed.wait()
        assert not peer.connection._streams
        assert not peer.connection._counted
    return taking


TEXTS = {1: b"one" * 40, 3: b"three" * 30, 5: b"5"}
CONVERSATION = (
    syn(1)
    + data(1, TEXTS[1][:50])
    + syn(3)
    + pack_header(PING, SYN, 0, 1)
    + data(3, TEXTS[3], FIN)
    + pack_header(WINDOW_UPDATE, 0, 1, 1000)
    + data(5, TEXTS[5], SYN)
    + data(1, TEXTS[1][50:])
    + pack_header(WINDOW_UPDATE, FIN, 1, 0)
    + pack_header(WINDOW_UPDATE, RST, 5, 0)
)


@pytest.mark.parametrize("sizes", [[1], [7], [65_519]], ids=["byte by byte", "by sevens", "at once"])
async def test_frames_cut_at_every_position_deliver_a_beginning(sizes: list[int]) -> None:
    """Wherever the frames end, each stream's reader has a beginning of what was sent, and takes it for whole only if it is."""
    step = 1 if sizes != [1] else 7
    for cut in range(0, len(CONVERSATION) + 1, step):
        taking = await taken(CONVERSATION[:cut], sizes)
        for number, got in taking.got.items():
            assert TEXTS[number].startswith(got)
            assert not taking.ended[number] or got == TEXTS[number]


@given(
    st.lists(st.tuples(st.integers(0, len(CONVERSATION)), st.integers(0, 12), st.binary(max_size=12)), max_size=4),
    cuttings,
)
async def test_frames_changed_anywhere_end_the_connection_at_most(
    changes: list[tuple[int, int, bytes]], sizes: list[int]
) -> None:
    """Bytes changed, taken out or put in anywhere among frames: streams and connection end in good order."""
    content = bytearray(CONVERSATION)
    for place, removed, put_in in changes:
        content[place : place + removed] = put_in
    await taken(bytes(content), sizes)


lengths = st.integers(0, 40) | st.sampled_from([256 * 1024, 4 * 1024 * 1024, 0x7FFFFFFF, 0xFFFFFFFF])
headers = st.builds(pack_header, st.integers(0, 4), st.integers(0, 15), st.integers(0, 8), lengths)
data_frames = st.builds(data, st.integers(0, 8), st.binary(max_size=60), st.integers(0, 15))
openings = st.builds(syn, st.sampled_from([1, 3, 5, 7]))


@given(st.lists(headers | data_frames | openings, max_size=30).map(b"".join), cuttings)
@example(syn(1) + data(1, b"x", FIN) + data(1, b"y"), [400])
@example(data(1, b"x", SYN | FIN | RST), [1])
async def test_made_up_frames_end_the_connection_at_most(content: bytes, sizes: list[int]) -> None:
    """Any frames in any order: streams and connection end in good order."""
    await taken(content, sizes)


@given(st.binary(max_size=300), cuttings)
def test_frames_are_the_same_however_they_are_cut(content: bytes, sizes: list[int]) -> None:
    """The parser sees the same headers and payload in one piece and in many, up to the same break."""
    assert parsed([content]) == parsed(in_pieces(content, sizes))


def parsed(pieces: list[bytes]) -> list[object]:
    """Headers and joined payloads."""
    parser, found = FrameParser(), list[object]()
    with suppress(trio.BrokenResourceError):
        for piece in pieces:
            for item in parser.feed(piece):
                if isinstance(item, memoryview) and found and isinstance(found[-1], bytes):
                    found[-1] += bytes(item)
                else:
                    found.append(bytes(item) if isinstance(item, memoryview) else item)
    return found


# --- negotiation


async def answered(content: bytes, sizes: list[int]) -> bytes:
    """Ask for a protocol and get these bytes for an answer; what follows the answer. Raises what `select` raises."""
    ours, theirs = trio.testing.memory_stream_pair()
    for piece in in_pieces(content, sizes):
        await theirs.send_all(piece)
    await theirs.send_eof()
    await select(ours, "/a/1")
    return b"".join([piece async for piece in ours])


AGREED = GREETING + b"\x05/a/1\n"


@given(st.binary(max_size=100), cuttings)
async def test_an_agreement_takes_nothing_of_what_follows(rest: bytes, sizes: list[int]) -> None:
    """However the answer is cut, what comes behind it is the protocol's own."""
    assert await answered(AGREED + rest, sizes) == rest


@pytest.mark.parametrize("cut", range(len(AGREED)))
async def test_an_answer_cut_anywhere_is_a_violation(cut: int) -> None:
    """An answer that ends too early agrees to nothing."""
    with pytest.raises(ProtocolViolation):
        await answered(AGREED[:cut], [100])


@given(st.binary(max_size=60) | st.binary(max_size=60).map(GREETING.__add__), cuttings)
async def test_a_made_up_answer_is_a_violation(content: bytes, sizes: list[int]) -> None:
    """Any bytes for an answer are the agreed ones or a violation."""
    try:
        await answered(content, sizes)
    except ProtocolViolation:
        return
    assert content.startswith(AGREED)


def changed(content: bytes, random: Random) -> bytes:
    """Some bytes changed, taken out, put in, or all of it made up."""
    if random.random() < 0.2:
        return random.randbytes(random.randrange(40))
    mutable = bytearray(content)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(mutable) + 1)
        mutable[place : place + random.randrange(4)] = random.randbytes(random.randrange(4))
    return bytes(mutable)


async def test_a_negotiation_of_anything_costs_its_stream_at_most(fuzz_rounds: int, fuzz_random: Random) -> None:
    """Whatever opens a stream, the same connection goes on serving others."""
    async with open_pair_of(open_ours, open_ours) as pair:
        pair.b.serve(ECHO, echo)
        await pair.connect()
        for number in range(fuzz_rounds):
            stream = await yamux_of(pair.a, pair.b.peer).open_stream()
            await stream.send_all(changed(GREETING + b"\x0d/test/echo/1\n", fuzz_random))
            if fuzz_random.random() < 0.5:
                await stream.send_eof()
            await stream.aclose()
            if number % 20 == 0:
                with trio.fail_after(10):
                    await assert_echoes(pair.a, pair.b)
        with trio.fail_after(10):
            await assert_echoes(pair.a, pair.b)


# --- a meddler between two peers


@attrs.define(eq=False)
class Meddler:
    """Stands between two peers, and changes or cuts one byte of one direction of each connection."""

    target: str
    place: int = 0
    change: int | None = None
    outward: bool = True
    seen: dict[bool, int] = attrs.field(factory=lambda: {True: 0, False: 0})

    async def run(self, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Take connections for ever; the address to dial is the status."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(format_tcp_address(*listener.socket.getsockname()[:2]))
        await trio.serve_listeners(self._on_connection, [listener])

    async def _on_connection(self, near: trio.SocketStream) -> None:
        self.seen = {True: 0, False: 0}
        place = parse_tcp_address(self.target)
        async with await trio.open_tcp_stream(place.host, place.port) as far, near, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass, near, far, True, nursery.cancel_scope)
            nursery.start_soon(self._pass, far, near, False, nursery.cancel_scope)

    async def _pass(
        self, source: trio.SocketStream, sink: trio.SocketStream, outward: bool, both: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for piece in source:
                begin = self.seen[outward]
                self.seen[outward] += len(piece)
                if outward is not self.outward or not begin <= self.place < begin + len(piece):
                    await sink.send_all(piece)
                elif self.change is None:
                    await sink.send_all(piece[: self.place - begin])
                    break
                else:
                    spoilt = bytearray(piece)
                    spoilt[self.place - begin] ^= self.change
                    await sink.send_all(spoilt)
        both.cancel()


@asynccontextmanager
async def open_meddled() -> AsyncIterator[tuple[Pair, Meddler, str]]:
    """A pair, somebody between them, and his address. a gives up soon."""

    @asynccontextmanager
    async def open_hasty(identity: Identity) -> AsyncIterator[Transport]:
        async with open_libp2p_transport(identity, attrs.evolve(LOOPBACK, dial_timeout_seconds=0.5)) as transport:
            yield transport

    async with open_pair_of(open_hasty, open_ours) as pair, trio.open_nursery() as nursery:
        pair.b.serve(ECHO, echo)
        meddler = Meddler(pair.b.addresses[0])
        yield pair, meddler, await nursery.start(meddler.run)
        nursery.cancel_scope.cancel()


TEXT = noise(300)


async def echoed(pair: Pair, address: str) -> bytes | None:
    """What comes back of TEXT over that address, None when the connection or the stream fails or nothing moves for a while."""
    got = b""
    with trio.move_on_after(1), suppress(FsnError, trio.BrokenResourceError):
        await pair.a.connect(pair.b.peer, [address])
        stream = await pair.a.open_stream(pair.b.peer, ECHO)
        await stream.send_all(TEXT)
        await stream.send_eof()
        while more := await stream.receive_some():
            got += more
        return got
    assert TEXT.startswith(got)
    return None


@pytest.mark.parametrize("outward", [True, False], ids=["of the dialler", "of the dialled"])
@pytest.mark.parametrize("cut", [True, False], ids=["cut", "changed"])
async def test_a_connection_meddled_with_at_any_byte(
    *, outward: bool, cut: bool, fuzz_rounds: int, fuzz_random: Random
) -> None:
    """From the first byte of the handshake to the last of a stream: right bytes or a failure, and both sides live on."""
    async with open_meddled() as (pair, meddler, address):
        meddler.place, meddler.outward = 1_000_000, outward
        assert await echoed(pair, address) == TEXT
        await pair.a.disconnect(pair.b.peer)
        total = meddler.seen[outward]
        assert total > 2 * len(TEXT)
        places = list(range(total))
        fuzz_random.shuffle(places)
        for place in places[: max(fuzz_rounds, 60)]:
            meddler.place = place
            meddler.change = None if cut else fuzz_random.randint(1, 255)
            assert await echoed(pair, address) in (None, TEXT)
            await pair.a.disconnect(pair.b.peer)
        meddler.place = 1_000_000
        with trio.fail_after(10):
            while await echoed(pair, address) != TEXT:  # one try has half a second to dial: a busy machine misses that
                await pair.a.disconnect(pair.b.peer)
            with pytest.raises(Unreachable):
                await pair.a.connect(Identity.generate().peer, [address])
