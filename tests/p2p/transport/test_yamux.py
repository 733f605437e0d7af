"""Our Yamux over memory: keep-alive, flow control and what a hostile peer may not do."""

import tracemalloc
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import attrs
import pytest
import trio
import trio.testing

from fsn.core.errors import Unreachable
from fsn.p2p.transport import yamux
from fsn.p2p.transport.noise import CipherState, NoiseSession
from fsn.p2p.transport.yamux import YamuxConnection
from fsn.p2p.transport.yamux_frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    INITIAL_WINDOW_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    FrameParser,
    Header,
    pack_header,
)
from fsn.runtime.identity import Identity

PEER = Identity(bytes(32)).peer


def session_pair(*, frozen: bool = False) -> tuple[NoiseSession, NoiseSession]:
    """Two ends of a secured connection over memory. When the right one is frozen, the left one's sending never ends."""
    left, right = trio.testing.memory_stream_pair()
    if frozen:
        assert left.send_stream is not None
        left.send_stream.send_all_hook = trio.sleep_forever
    one, other = bytes(32), bytes(range(32))
    return (
        NoiseSession(left, sending=CipherState(one), receiving=CipherState(other)),
        NoiseSession(right, sending=CipherState(other), receiving=CipherState(one)),
    )


@attrs.define(eq=False)
class Peer:
    """The other side, frame by frame: what a hostile or broken implementation could send."""

    session: NoiseSession
    connection: YamuxConnection
    _parser: FrameParser = attrs.field(factory=FrameParser)
    _headers: list[Header] = attrs.field(factory=list)

    async def send(self, *frames: bytes) -> None:
        """Send bytes as they are."""
        await self.session.send_parts(list(frames))

    async def header(self) -> Header:
        """The next header that comes; payload is dropped."""
        while not self._headers:
            for message in await self._messages():
                self._headers += [item for item in self._parser.feed(message) if isinstance(item, Header)]
        return self._headers.pop(0)

    async def _messages(self) -> Sequence[bytes]:
        messages = await self.session.receive_messages()
        if not messages:
            raise trio.BrokenResourceError("ended")
        return messages


@asynccontextmanager
async def open_peer(*, frozen: bool = False) -> AsyncIterator[Peer]:
    """A connection of ours, running, whose other side is played by the test; a frozen one takes nothing that we send."""
    ours, theirs = session_pair(frozen=frozen)
    connection = YamuxConnection(ours, peer=PEER, is_initiator=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        yield Peer(theirs, connection)
        nursery.cancel_scope.cancel()


def syn(stream: int) -> bytes:
    """The header that opens a stream."""
    return pack_header(WINDOW_UPDATE, SYN, stream, 0)


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    """A data frame."""
    return pack_header(DATA, flags, stream, len(payload)) + payload


@contextmanager
def memory_growth(*, at_most: int) -> Iterator[None]:
    """Fail when what is allocated in the block and still there at its end is more than that."""
    tracemalloc.start()
    try:
        yield
        growth, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert growth <= at_most


async def test_a_ping_is_answered() -> None:
    """A ping comes back with its number."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            await peer.send(pack_header(PING, SYN, 0, 4711))
            assert await peer.header() == Header(PING, ACK, 0, 4711)


async def test_an_idle_connection_is_pinged_every_three_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """So that a cut leaves something unacknowledged at once, which is what the kernel notices, on both sides."""
    async with open_peer() as peer:
        for number in range(3):
            header = await peer.header()
            assert header.kind == PING
            assert trio.current_time() == pytest.approx(3.0 * (number + 1))
            await peer.send(pack_header(PING, ACK, 0, header.length))


async def test_a_silent_peer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """A peer that does not answer a ping is given up within 13 s after it was last heard, and its streams break."""
    async with open_peer() as peer:
        stream = await peer.connection.open_stream()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert trio.current_time() <= yamux.PING_EVERY_SECONDS + yamux.PING_TIMEOUT_SECONDS
        assert not peer.connection.is_open


async def test_a_peer_that_takes_nothing_more_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """A peer that is frozen in the middle of bulk data, so that even our pings are stuck, is given up as soon, with all that waits."""
    async with open_peer(frozen=True) as peer:
        stream = await peer.connection.open_stream()
        await peer.send(pack_header(WINDOW_UPDATE, ACK, stream.stream_id, yamux.WINDOW_BYTES))
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(100_000))
        assert trio.current_time() <= yamux.PING_EVERY_SECONDS + yamux.PING_TIMEOUT_SECONDS
        await peer.connection.closed.wait()


async def test_closing_a_connection_to_a_frozen_peer_takes_a_moment(autojump_clock: trio.testing.MockClock) -> None:
    """A connection that can send nothing more is closed within two seconds all the same."""
    async with open_peer(frozen=True) as peer:
        stream = await peer.connection.open_stream()
        with trio.move_on_after(1):
            await stream.send_all(bytes(INITIAL_WINDOW_BYTES))
        started = trio.current_time()
        await peer.connection.aclose()
        assert trio.current_time() - started <= 2


async def test_a_peer_that_answers_pings_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    """An idle connection whose pings are answered lives on, and its round trip is known."""
    async with open_peer() as peer:
        for _ in range(20):
            header = await peer.header()
            assert header.kind == PING
            await trio.sleep(0.25)
            await peer.send(pack_header(PING, ACK, 0, header.length))
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.is_open
        assert peer.connection.round_trip_seconds == pytest.approx(0.25)


async def test_a_busy_peer_needs_no_pong(autojump_clock: trio.testing.MockClock) -> None:
    """While anything comes from the peer, a pong stuck behind it is no reason to give up."""
    async with open_peer() as peer:
        for _ in range(30):
            await trio.sleep(9)
            await peer.send(pack_header(WINDOW_UPDATE, 0, 999, 1))
        assert peer.connection.is_open


async def test_pings_do_not_wait_for_pongs(autojump_clock: trio.testing.MockClock) -> None:
    """A peer whose pongs are stuck behind its bulk data is pinged all the same: it may hear nothing else from us."""
    async with open_peer() as peer:
        for number in range(4):
            await peer.send(pack_header(WINDOW_UPDATE, 0, 999, 1))
            header = await peer.header()
            assert (header.kind, header.length) == (PING, number)
        assert trio.current_time() == pytest.approx(4 * yamux.PING_EVERY_SECONDS)


async def test_a_window_is_enforced() -> None:
    """A peer that sends more than the window allows loses the connection, not we our memory."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            await peer.send(syn(1))
            window = INITIAL_WINDOW_BYTES + (await peer.header()).length
            for _ in range(window // 65_000 + 1):
                await peer.send(data(1, bytes(65_000)[:65_000]))
            await peer.connection.closed.wait()


async def test_tiny_frames_cost_no_more_than_their_bytes() -> None:
    """A hundred thousand one-byte frames are kept as a few pieces, and arrive whole."""
    with trio.fail_after(20):
        async with open_peer() as peer:
            await peer.send(syn(1))
            for _ in range(100):
                await peer.send(*[data(1, b"x")] * 1000)
            await peer.send(pack_header(DATA, FIN, 1, 0))
            stream = await peer.connection.accept_stream()
            await trio.testing.wait_all_tasks_blocked()
            assert len(stream._received) < 10
            assert b"".join([piece async for piece in stream]) == b"x" * 100_000


async def test_a_kept_piece_keeps_nothing_else() -> None:
    """Bytes for a reader are held without the rest of the message that they came in, whatever else the peer put there."""
    useless = data(999, bytes(60_000))
    with trio.fail_after(20):
        async with open_peer() as peer:
            await peer.send(syn(1))
            stream = await peer.connection.accept_stream()
            with memory_growth(at_most=2_000_000):
                for number in range(200):
                    await peer.send(data(1, bytes([number]) * 1100) + useless)
                await trio.testing.wait_all_tasks_blocked()
            assert await stream.receive_some(300_000) == b"".join(bytes([number]) * 1100 for number in range(200))


async def test_what_a_reset_leaves_unread_still_counts() -> None:
    """Streams that the peer filled and reset count as open until their bytes are read or dropped, in number and in memory."""
    with trio.fail_after(20):
        async with open_peer() as peer:
            streams, refused = [], 0
            for number in range(1, 2 * yamux.MAX_STREAMS + 41, 2):
                await peer.send(syn(number) + data(number, b"unread") + pack_header(WINDOW_UPDATE, RST, number, 0))
                if (await peer.header()).flags == ACK:
                    streams.append(await peer.connection.accept_stream())
                else:
                    refused += 1
            assert (len(streams), refused) == (yamux.MAX_STREAMS, 20)
            assert await streams[0].receive_some() == b"unread"
            await streams[1].aclose()
            await peer.send(*[syn(number) for number in (1001, 1003, 1005)])
            answers = [await peer.header() for _ in range(3)]
            assert [answer.flags for answer in answers] == [ACK, ACK, RST]
            assert sum(answer.length for answer in answers) == 2 * (yamux.WINDOW_BYTES - INITIAL_WINDOW_BYTES)


async def test_a_number_used_again_is_another_stream() -> None:
    """A peer may use the number of a stream that it has reset: what is left of the old one is not mixed up with the new one."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            await peer.send(syn(1), data(1, b"old"), pack_header(WINDOW_UPDATE, RST, 1, 0))
            await peer.send(syn(1))
            old, new = await peer.connection.accept_stream(), await peer.connection.accept_stream()
            assert await old.receive_some() == b"old"
            await old.aclose()
            await peer.send(data(1, b"new", FIN))
            assert await new.receive_some() == b"new"
            assert await new.receive_some() == b""


async def test_a_clean_end_is_no_reset() -> None:
    """A stream that we end and close sends no reset behind, for others drop what they have not read; it does once the peer sends more."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            for number in (1, 3):
                await peer.send(syn(number))
                stream = await peer.connection.accept_stream()
                assert (await peer.header()).flags == ACK
                await stream.send_all(b"all of it")
                await stream.send_eof()
                await stream.aclose()
                assert [(await peer.header()).flags for _ in range(2)] == [0, FIN]
            await peer.send(pack_header(WINDOW_UPDATE, FIN, 1, 0), data(3, b"more"), data(3, b"and more"))
            assert await peer.header() == Header(WINDOW_UPDATE, RST, 3, 0)
            await peer.send(pack_header(PING, SYN, 0, 1))
            assert (await peer.header()).kind == PING
            assert not peer.connection._counted


async def test_a_peer_without_a_window_is_reset_at_once() -> None:
    """When we close a stream whose window the peer has spent, it is told, for it can send nothing by which to find out."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            await peer.send(syn(1))
            stream, window = await peer.connection.accept_stream(), INITIAL_WINDOW_BYTES + (await peer.header()).length
            for start in range(0, window, 60_000):
                await peer.send(data(1, bytes(min(60_000, window - start))))
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_eof()
            await stream.aclose()
            assert [(await peer.header()).flags for _ in range(2)] == [FIN, RST]


async def test_a_stream_that_the_peer_forgets_is_reset(autojump_clock: trio.testing.MockClock) -> None:
    """When the peer does not end a stream that we ended and closed, we stop waiting for it within 30 s."""
    async with open_peer() as peer:
        await peer.send(syn(1))
        stream = await peer.connection.accept_stream()
        await stream.send_eof()
        await stream.aclose()
        headers = [await peer.header()]
        while headers[-1].flags != RST:
            headers.append(await peer.header())
            if headers[-1].kind == PING:
                await peer.send(pack_header(PING, ACK, 0, headers[-1].length))
        assert trio.current_time() <= yamux.ABANDONED_SECONDS + 2 * yamux.PING_EVERY_SECONDS
        assert not peer.connection._counted


async def test_the_receive_windows_of_a_connection_have_a_sum() -> None:
    """Streams beyond the connection's budget get the initial window only; a closed stream gives its share back."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            extras = []
            for stream in range(1, 61, 2):
                await peer.send(syn(stream))
                extras.append((await peer.header()).length)
            assert sum(extras) == yamux.MAX_RECEIVE_BYTES
            assert extras[-1] == 0
            await peer.send(pack_header(WINDOW_UPDATE, RST, 1, 0), syn(101))
            assert (await peer.header()).length == extras[0]


async def test_streams_beyond_the_limit_are_reset() -> None:
    """A peer that opens streams nobody takes is told by resets; the connection and the first streams live."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            await peer.send(*[syn(number) for number in range(1, 2 * yamux.BACKLOG + 21, 2)])
            answers = [await peer.header() for _ in range(yamux.BACKLOG + 10)]
            assert [answer.flags for answer in answers] == [ACK] * yamux.BACKLOG + [RST] * 10
            assert (await peer.connection.accept_stream()).stream_id == 1


async def test_our_own_streams_have_a_limit() -> None:
    """Opening more streams than allowed is refused, until one of them is closed on both sides."""
    async with open_peer() as peer:
        streams = [await peer.connection.open_stream() for _ in range(yamux.MAX_STREAMS)]
        with pytest.raises(Unreachable, match="streams are open"):
            await peer.connection.open_stream()
        await streams[0].aclose()
        await peer.connection.open_stream()


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x09" + pack_header(DATA, 0, 1, 0)[1:], id="version"),
        pytest.param(pack_header(9, 0, 1, 0), id="type"),
        pytest.param(pack_header(WINDOW_UPDATE, SYN, 0, 0), id="stream 0"),
        pytest.param(pack_header(WINDOW_UPDATE, SYN, 2, 0), id="our own number"),
        pytest.param(syn(1) + syn(1), id="opened twice"),
        pytest.param(pack_header(DATA, 0, 999, 0xFFFFFFFF), id="huge"),
        pytest.param(pack_header(GO_AWAY, 0, 0, 1), id="go away"),
    ],
)
async def test_nonsense_ends_the_connection(frame: bytes) -> None:
    """Frames that no Yamux sends end the connection, and nothing but the connection."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            await peer.send(frame)
            await peer.connection.closed.wait()
            with pytest.raises(Unreachable):
                await peer.connection.open_stream()


async def test_frames_of_unknown_streams_are_skipped() -> None:
    """Late frames of a stream that is over do no harm, wherever the message is cut."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            late = data(77, b"late") + pack_header(WINDOW_UPDATE, FIN, 77, 5) + pack_header(PING, SYN, 0, 7)
            for byte in late:
                await peer.send(bytes([byte]))
            assert await peer.header() == Header(PING, ACK, 0, 7)


async def test_a_forged_message_ends_the_connection() -> None:
    """Bytes that were not sealed by the peer end the connection."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            await peer.session._stream.send_all(b"\x00\x20" + bytes(32))
            await peer.connection.closed.wait()


async def test_closing_sends_what_is_queued() -> None:
    """`aclose` of a connection sends queued frames first, then says go away."""
    with trio.fail_after(5):
        async with open_peer() as peer:
            stream = await peer.connection.open_stream()
            await stream.send_all(bytes(100_000))
            await peer.connection.aclose()
            kinds = [(await peer.header()).kind for _ in range(3)]
            assert kinds == [WINDOW_UPDATE, DATA, GO_AWAY]


async def test_a_connection_that_never_ran_can_be_closed() -> None:
    """Closing before `run` ends the session, and a later `run` returns at once."""
    with trio.fail_after(5):
        ours, theirs = session_pair()
        connection = YamuxConnection(ours, peer=PEER, is_initiator=True)
        await connection.aclose()
        await connection.run()
        assert await theirs.receive_messages() == []
