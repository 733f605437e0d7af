"""What every transport promises, as one set of tests. A subclass names the two transports it runs on."""

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress

import attrs
import pytest
import trio
import trio.testing

from fsn.core.errors import ProtocolViolation, Unreachable
from fsn.p2p.transport.base import Stream, StreamHandler, Transport

ECHO = "/test/echo/1"
SINK = "/test/sink/1"
HOLD = "/test/hold/1"
BULK = 8 * 1024 * 1024


@attrs.frozen
class Pair:
    """Two transports that can reach each other; `kill_b` ends b's side abruptly, `reopen_b` starts b again."""

    a: Transport
    b: Transport
    kill_b: Callable[[], Awaitable[None]]
    reopen_b: Callable[[], Awaitable[Transport]]

    async def connect(self) -> None:
        """Let a dial b."""
        await self.a.connect(self.b.peer, self.b.addresses)


OpenPair = Callable[[], AbstractAsyncContextManager[Pair]]


async def echo(stream: Stream) -> None:
    """Send back what comes, until it ends."""
    async for data in stream:
        await stream.send_all(data)


async def receive_exactly(stream: Stream, size: int) -> bytes:
    """That many bytes, or fewer at the end."""
    data = b""
    while len(data) < size and (more := await stream.receive_some(size - len(data))):
        data += more
    return data


async def receive_all(stream: Stream) -> bytes:
    """Everything up to the end."""
    return b"".join([data async for data in stream])


class Handed:
    """A handler that hands its streams to the test and keeps each open until the test is done with it."""

    def __init__(self, transport: Transport, protocol: str) -> None:
        self._send, self._receive = trio.open_memory_channel[Stream](100)
        transport.serve(protocol, self._handle)

    async def _handle(self, stream: Stream) -> None:
        await self._send.send(stream)
        await trio.sleep_forever()

    async def stream(self) -> Stream:
        """The next inbound stream."""
        return await self._receive.receive()


async def stream_pair(pair: Pair) -> tuple[Stream, Stream]:
    """A stream as both sides have it."""
    await pair.connect()
    handed = Handed(pair.b, HOLD)
    ours = await pair.a.open_stream(pair.b.peer, HOLD)
    return ours, await handed.stream()


class TransportContract:
    """The promises of `base.Transport` and `base.Stream`. Subclasses give the fixture `open_pair`."""

    async def test_bytes_come_back(self, open_pair: OpenPair) -> None:
        """Both sides know who the other is, and what is sent arrives in order."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                seen: list[tuple[str, str]] = []

                async def handler(stream: Stream) -> None:
                    seen.append((stream.peer, stream.protocol))
                    await echo(stream)

                pair.b.serve(ECHO, handler)
                await pair.connect()
                stream = await pair.a.open_stream(pair.b.peer, ECHO)
                await stream.send_all(b"hello")
                assert await receive_exactly(stream, 5) == b"hello"
                assert (stream.peer, stream.protocol) == (pair.b.peer, ECHO)
                assert seen == [(pair.a.peer, ECHO)]
                assert pair.a.connected_address(pair.b.peer) == "127.0.0.1" == pair.b.connected_address(pair.a.peer)
                await stream.aclose()

    async def test_connecting_again_is_harmless(self, open_pair: OpenPair) -> None:
        """A live connection is used, whoever made it, even when no address leads anywhere."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                await pair.connect()
                await pair.connect()
                await pair.a.connect(pair.b.peer, [])
                await wait_connected(pair.b, pair.a)
                await pair.b.connect(pair.a.peer, [])
                assert pair.a.is_connected(pair.b.peer)
                assert pair.b.is_connected(pair.a.peer)

    async def test_a_peer_that_is_someone_else_is_unreachable(self, open_pair: OpenPair) -> None:
        """An address that answers as another peer than the one wanted is no connection."""
        with trio.fail_after(20):
            async with open_pair() as pair, open_pair() as other:
                with pytest.raises(Unreachable):
                    await pair.a.connect(other.b.peer, pair.b.addresses)
                assert not pair.a.is_connected(other.b.peer)
                assert not pair.a.is_connected(pair.b.peer)

    async def test_no_address_no_connection(self, open_pair: OpenPair) -> None:
        """Without an address, or with only useless ones, the peer is unreachable; so is a stream to it."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                for addresses in ([], ["nonsense"], ["/ip4/127.0.0.1/udp/1/quic-v1"], ["/ip4/127.0.0.1/tcp/1"]):
                    with pytest.raises(Unreachable):
                        await pair.a.connect(pair.b.peer, addresses)
                with pytest.raises(Unreachable):
                    await pair.a.open_stream(pair.b.peer, ECHO)
                assert pair.a.connected_address(pair.b.peer) is None
                await pair.a.wait_disconnected(pair.b.peer)
                await pair.a.disconnect(pair.b.peer)

    async def test_an_unknown_protocol_is_a_violation(self, open_pair: OpenPair) -> None:
        """Asking for a protocol that the peer does not serve is refused, and costs nothing else."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                pair.b.serve(ECHO, echo)
                await pair.connect()
                for _ in range(3):
                    with pytest.raises(ProtocolViolation, match="does not serve"):
                        await pair.a.open_stream(pair.b.peer, "/test/nobody/1")
                await assert_echoes(pair.a, pair.b)

    async def test_a_half_closed_stream_still_receives(self, open_pair: OpenPair) -> None:
        """After `send_eof` the peer reads to the end and can answer; sending is over here."""
        with trio.fail_after(20):
            async with open_pair() as pair:

                async def digest(stream: Stream) -> None:
                    await stream.send_all(hashlib.sha256(await receive_all(stream)).digest())

                pair.b.serve(ECHO, digest)
                await pair.connect()
                stream = await pair.a.open_stream(pair.b.peer, ECHO)
                data = bytes(range(256)) * 4000
                await stream.send_all(data)
                await stream.send_eof()
                await stream.send_eof()
                assert await receive_all(stream) == hashlib.sha256(data).digest()
                assert await stream.receive_some(1) == b""
                with pytest.raises(trio.ClosedResourceError):
                    await stream.send_all(b"x")
                await stream.aclose()

    async def test_closing_without_end_is_a_reset(self, open_pair: OpenPair) -> None:
        """`aclose` without `send_eof` never looks like a clean end to the peer, and breaks its sending."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                ours, theirs = await stream_pair(pair)
                await ours.send_all(b"half a mess")
                await ours.aclose()
                with pytest.raises(trio.BrokenResourceError):
                    await receive_exactly(theirs, 1000)
                with pytest.raises(trio.BrokenResourceError):
                    await send_for_ever(theirs)

    async def test_a_clean_end_survives_the_close(self, open_pair: OpenPair) -> None:
        """What was sent before `send_eof` is read to its end, though the sender has closed the stream since."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                ours, theirs = await stream_pair(pair)
                await ours.send_all(b"all of it")
                await ours.send_eof()
                await ours.aclose()
                with pytest.raises(trio.BrokenResourceError):
                    await send_for_ever(theirs)
                assert await receive_all(theirs) == b"all of it"

    async def test_a_cancelled_receive_loses_nothing(self, open_pair: OpenPair) -> None:
        """Bytes that come around a cancelled `receive_some` are received by the next one."""
        with trio.fail_after(30):
            async with open_pair() as pair:
                pair.b.serve(ECHO, echo)
                await pair.connect()
                stream = await pair.a.open_stream(pair.b.peer, ECHO)
                got = b""
                for number in range(200):
                    await stream.send_all(number.to_bytes(2, "big"))
                    with trio.move_on_after(0.0005 if number % 2 else 0):
                        got += await stream.receive_some(100)
                got += await receive_exactly(stream, 400 - len(got))
                assert got == b"".join(number.to_bytes(2, "big") for number in range(200))

    async def test_a_cancelled_sender_harms_only_its_stream(self, open_pair: OpenPair) -> None:
        """Senders cancelled in the middle of bulk data leave the connection and its other streams whole."""
        with trio.fail_after(30):
            async with open_pair() as pair:
                pair.b.serve(ECHO, echo)
                handed = Handed(pair.b, HOLD)
                await pair.connect()
                other = await pair.a.open_stream(pair.b.peer, ECHO)
                for _ in range(10):
                    victim = await pair.a.open_stream(pair.b.peer, HOLD)
                    with trio.move_on_after(0.003) as scope:
                        await victim.send_all(bytes(2 * BULK))
                    assert scope.cancelled_caught
                    await victim.aclose()
                    with pytest.raises(trio.BrokenResourceError):
                        await receive_all(await handed.stream())
                await other.send_all(b"still here")
                assert await receive_exactly(other, 10) == b"still here"
                await assert_echoes(pair.a, pair.b)

    async def test_a_slow_reader_makes_its_sender_wait(self, open_pair: OpenPair) -> None:
        """A sender is held back by its own reader, other streams are not, and nothing is lost when the reader goes on."""
        with trio.fail_after(30):
            async with open_pair() as pair:
                pair.b.serve(ECHO, echo)
                slow, theirs = await stream_pair(pair)
                data = bytes(range(256)) * (2 * BULK // 256)
                sent = trio.Event()

                async def send() -> None:
                    await slow.send_all(data)
                    await slow.send_eof()
                    sent.set()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send)
                    await assert_echoes(pair.a, pair.b)
                    await trio.sleep(0.05)
                    assert not sent.is_set()
                    await assert_echoes(pair.a, pair.b)
                    assert hashlib.sha256(await receive_all(theirs)).digest() == hashlib.sha256(data).digest()

    async def test_bulk_both_ways_on_many_streams(self, open_pair: OpenPair) -> None:
        """Bulk data both ways on many streams at once neither deadlocks nor mixes anything up."""
        with trio.fail_after(60):
            async with open_pair() as pair:
                pair.a.serve(ECHO, echo)
                pair.b.serve(ECHO, echo)
                await pair.connect()
                await wait_connected(pair.b, pair.a)
                async with trio.open_nursery() as nursery:
                    for number in range(10):
                        for here, there in ((pair.a, pair.b), (pair.b, pair.a)):
                            nursery.start_soon(assert_echoes, here, there, bytes([number]) * 700_001)

    async def test_the_end_of_a_peer_is_noticed(self, open_pair: OpenPair) -> None:
        """When the peer is gone its connection is not believed alive any more, and its streams are broken."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                ours, _ = await stream_pair(pair)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pair.a.wait_disconnected, pair.b.peer)
                    nursery.start_soon(expect_broken_receive, ours)
                    await trio.sleep(0.01)
                    await pair.kill_b()
                assert not pair.a.is_connected(pair.b.peer)
                with pytest.raises(trio.BrokenResourceError):
                    await send_for_ever(ours)
                with pytest.raises(Unreachable):
                    await pair.a.open_stream(pair.b.peer, HOLD)

    async def test_a_peer_that_comes_back_is_served(self, open_pair: OpenPair) -> None:
        """After its end a peer can connect again, and be connected to again."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                pair.a.serve(ECHO, echo)
                await pair.connect()
                await pair.kill_b()
                reborn = await pair.reopen_b()
                await reborn.connect(pair.a.peer, pair.a.addresses)
                await assert_echoes(reborn, pair.a)
                await reborn.disconnect(pair.a.peer)
                await pair.a.wait_disconnected(reborn.peer)
                reborn.serve(ECHO, echo)
                await pair.a.connect(reborn.peer, reborn.addresses)
                await assert_echoes(pair.a, reborn)

    async def test_disconnecting_is_seen_by_both(self, open_pair: OpenPair) -> None:
        """`disconnect` ends the connection and its streams on both sides."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                ours, theirs = await stream_pair(pair)
                await pair.a.disconnect(pair.b.peer)
                assert not pair.a.is_connected(pair.b.peer)
                await pair.b.wait_disconnected(pair.a.peer)
                for stream in (ours, theirs):
                    await expect_broken_receive(stream)

    async def test_a_handler_that_raises_harms_only_its_stream(self, open_pair: OpenPair) -> None:
        """A handler's bug resets its stream; the daemon, the connection and later streams live on."""
        with trio.fail_after(20):
            async with open_pair() as pair:

                async def buggy(stream: Stream) -> None:
                    await stream.send_all(b"so far so go")
                    raise ZeroDivisionError

                pair.b.serve(HOLD, buggy)
                pair.b.serve(ECHO, echo)
                await pair.connect()
                for _ in range(3):
                    stream = await pair.a.open_stream(pair.b.peer, HOLD)
                    with pytest.raises(trio.BrokenResourceError):
                        await receive_all(stream)
                    await stream.aclose()
                await assert_echoes(pair.a, pair.b)

    async def test_a_handler_that_returns_ends_its_stream_cleanly(self, open_pair: OpenPair) -> None:
        """All that a handler sent arrives, then the end, without the handler ending anything itself."""
        with trio.fail_after(20):
            async with open_pair() as pair:

                async def answer(stream: Stream) -> None:
                    await stream.send_all(bytes(300_000))

                pair.b.serve(HOLD, answer)
                await pair.connect()
                stream = await pair.a.open_stream(pair.b.peer, HOLD)
                assert len(await receive_all(stream)) == 300_000

    async def test_serving_again_replaces_the_handler(self, open_pair: OpenPair) -> None:
        """The second handler of a protocol takes the streams that come after it."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                for word in (b"first", b"second"):
                    pair.b.serve(HOLD, sending(word))
                await pair.connect()
                stream = await pair.a.open_stream(pair.b.peer, HOLD)
                assert await receive_all(stream) == b"second"

    async def test_both_dialling_at_once_leaves_a_connection(self, open_pair: OpenPair) -> None:
        """Two peers that dial each other at the same moment are connected, and stay so."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                pair.a.serve(ECHO, echo)
                pair.b.serve(ECHO, echo)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pair.a.connect, pair.b.peer, pair.b.addresses)
                    nursery.start_soon(pair.b.connect, pair.a.peer, pair.a.addresses)
                await trio.sleep(0.05)
                await assert_echoes(pair.a, pair.b)
                await assert_echoes(pair.b, pair.a)
                await pair.a.disconnect(pair.b.peer)
                await pair.b.wait_disconnected(pair.a.peer)

    async def test_the_stream_contract_of_trio(self, open_pair: OpenPair) -> None:
        """trio's own checks of a half-closeable stream pass, once a close is preceded by an end, as trio's checks take it to be."""
        with trio.fail_after(30):
            async with open_pair() as pair:
                await pair.connect()
                handed = Handed(pair.b, HOLD)

                async def make() -> tuple[EndingStream, EndingStream]:
                    ours = await pair.a.open_stream(pair.b.peer, HOLD)
                    return EndingStream(ours), EndingStream(await handed.stream())

                async def make_clogged() -> tuple[EndingStream, EndingStream]:
                    ours, theirs = await make()
                    for stream in (ours, theirs):
                        await clog(stream)
                    return ours, theirs

                await trio.testing.check_half_closeable_stream(make, make_clogged)


@attrs.define(eq=False)
class EndingStream(trio.abc.HalfCloseableStream):
    """A stream whose `aclose` ends it first, like a socket's: our own `aclose` alone is a reset, trio's checks want an end."""

    inner: Stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                await self.inner.send_eof()
        finally:
            await self.inner.aclose()


def sending(word: bytes) -> StreamHandler:
    """A handler that says one word."""

    async def handler(stream: Stream) -> None:
        await stream.send_all(word)

    return handler


async def wait_connected(here: Transport, there: Transport) -> None:
    """An inbound connection is known a moment later than the one who dialled knows it."""
    while not here.is_connected(there.peer):  # noqa: ASYNC110 - an event is what the transport does not offer
        await trio.sleep(0.005)


async def clog(stream: trio.abc.SendStream) -> None:
    """Send until nothing goes any more: nothing at all happens for 20 ms, however slow the machine is."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_for_ever, stream, 256 * 1024)
        await trio.testing.wait_all_tasks_blocked(0.02)
        nursery.cancel_scope.cancel()


async def assert_echoes(here: Transport, there: Transport, data: bytes = b"ping") -> None:
    """A fresh stream carries data both ways."""
    stream = await here.open_stream(there.peer, ECHO)
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await receive_exactly(stream, len(data)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await stream.send_all(data)
        await stream.send_eof()
    assert got[0] == data
    await stream.aclose()


async def send_for_ever(stream: trio.abc.SendStream, piece_bytes: int = 10_000) -> None:
    """Send until it fails."""
    while True:
        await stream.send_all(bytes(piece_bytes))


async def expect_broken_receive(stream: Stream) -> None:
    """Receiving must fail, not end."""
    with pytest.raises(trio.BrokenResourceError):
        await receive_all(stream)
