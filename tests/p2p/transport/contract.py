"""What every transport promises, as one set of tests. A subclass names the two transports it runs on."""

import hashlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from random import Random
from typing import Literal

import attrs
import pytest
import trio
import trio.testing

from fsn.core.errors import ProtocolViolation, Unreachable
from fsn.core.reachability import DialOutcome, DialResult
from fsn.p2p.transport.base import Stream, StreamHandler, Transport

ECHO = "/test/echo/1"
SINK = "/test/sink/1"
HOLD = "/test/hold/1"
BULK = 8 * 1024 * 1024
When = Literal["while it waits", "as it wakes"]
WHEN = pytest.mark.parametrize("when", ["while it waits", "as it wakes"])


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


@attrs.define(eq=False)
class Step:
    """The n-th time that a task waits: a place to cancel it at, the same in every run, other than a time."""

    number: int
    was_reached: bool = False

    @contextmanager
    def cancelled(self, when: When) -> Iterator[trio.CancelScope]:
        """A scope that is cancelled at this step in it: when the task has begun to wait, or when it was woken and has not run yet."""
        with trio.CancelScope() as scope:
            watching = _Watching(trio.lowlevel.current_task(), scope, self, when)
            trio.lowlevel.add_instrument(watching)
            try:
                yield scope
            finally:
                trio.lowlevel.remove_instrument(watching)


@attrs.define(eq=False)
class _Watching(trio.abc.Instrument):
    task: trio.lowlevel.Task
    scope: trio.CancelScope
    step: Step
    when: When
    _taken: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task and self.when == "as it wakes":
            self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task and self.when == "while it waits":
            self._count()

    def _count(self) -> None:
        self._taken += 1
        if self._taken == self.step.number:
            self.step.was_reached = True
            self.scope.cancel()


def each_step(at_most: int = 200) -> Iterator[Step]:
    """Steps 1, 2, 3 ... until one is not reached, for what was to be cancelled there was over before; or until there were enough."""
    for number in range(1, at_most + 1):
        yield (step := Step(number))
        if not step.was_reached:
            return


def noise(size: int) -> bytes:
    """Bytes in which no two places look alike, the same in every run."""
    return Random(size).randbytes(size)


class TransportContract:
    """The promises of `base.Transport` and `base.Stream`. Subclasses give the fixture `open_pair`."""

    bulk = BULK
    """More than any window; a slow transport takes less."""
    local_address: str | None = "127.0.0.1"

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
                for addresses in ([], ["nonsense"], ["/ip4/127.0.0.1/tcp/1/ws"], ["/ip4/127.0.0.1/tcp/1"]):
                    with pytest.raises(Unreachable):
                        await pair.a.connect(pair.b.peer, addresses)
                with pytest.raises(Unreachable):
                    await pair.a.open_stream(pair.b.peer, ECHO)
                assert pair.a.connected_address(pair.b.peer) is None
                await pair.a.wait_disconnected(pair.b.peer)
                await pair.a.disconnect(pair.b.peer)

    async def test_a_probe_says_who_answers_and_touches_nothing(self, open_pair: OpenPair) -> None:
        """A stranger's dial finds the peer, or another one; the connection that is there lives on, and no other is left."""
        with trio.fail_after(60):
            async with open_pair() as pair, open_pair() as other:
                pair.b.serve(ECHO, echo)
                address = pair.b.addresses[0]
                assert await pair.a.probe(pair.b.peer, address) == DialResult(address, DialOutcome.REACHED)
                assert not pair.a.is_connected(pair.b.peer)
                assert pair.a.local_address(pair.b.peer) is None
                await pair.connect()
                stream = await pair.a.open_stream(pair.b.peer, ECHO)
                assert (await pair.a.probe(pair.b.peer, address)).outcome == DialOutcome.REACHED
                assert (await pair.a.probe(other.b.peer, address)).outcome == DialOutcome.WRONG_PEER
                await stream.send_all(b"still")
                assert await receive_exactly(stream, 5) == b"still"
                assert pair.a.local_address(pair.b.peer) == self.local_address

    async def test_a_probe_of_a_peer_that_has_ended_finds_nobody(self, open_pair: OpenPair) -> None:
        """Nobody is there any more, as far as that is told."""
        with trio.fail_after(60):
            async with open_pair() as pair:
                address = pair.b.addresses[0]
                assert (await pair.a.probe(pair.b.peer, address)).outcome == DialOutcome.REACHED
                await pair.kill_b()
                outcome = DialOutcome.NO_ANSWER
                with trio.move_on_after(1):  # that nothing listens is told by TCP only
                    outcome = DialOutcome((await pair.a.probe(pair.b.peer, address)).outcome)
                assert outcome in (DialOutcome.REFUSED, DialOutcome.NO_ANSWER)

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
                        await victim.send_all(bytes(2 * self.bulk))
                    assert scope.cancelled_caught
                    await victim.aclose()
                    with pytest.raises(trio.BrokenResourceError):
                        await receive_all(await handed.stream())
                await other.send_all(b"still here")
                assert await receive_exactly(other, 10) == b"still here"
                await assert_echoes(pair.a, pair.b)

    @WHEN
    async def test_a_reader_cancelled_at_any_step_loses_nothing(self, open_pair: OpenPair, when: When) -> None:
        """Wherever a reader of bulk data is cancelled, the next one goes on with the very next byte."""
        with trio.fail_after(60):
            async with open_pair() as pair:
                ours, theirs = await stream_pair(pair)
                data, got = noise(self.bulk // 4), bytearray()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send_and_end, theirs, data)
                    for number in itertools.cycle(range(1, 24)):
                        with Step(number).cancelled(when) as scope:
                            while more := await ours.receive_some(5_003):
                                got += more
                        if not scope.cancelled_caught:
                            break
                assert got == data

    @WHEN
    async def test_a_sender_cancelled_at_any_step_harms_only_its_stream(self, open_pair: OpenPair, when: When) -> None:
        """Wherever a sender is cancelled under load, its peer gets a beginning of what it sent; all other streams are whole."""
        with trio.fail_after(60):
            async with open_pair() as pair:
                pair.b.serve(ECHO, echo)
                handed = Handed(pair.b, HOLD)
                await pair.connect()
                data = noise(self.bulk // 4)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(assert_echoes, pair.a, pair.b, noise(self.bulk))
                    for step in each_step():
                        victim = await pair.a.open_stream(pair.b.peer, HOLD)
                        theirs = await handed.stream()
                        nursery.start_soon(expect_beginning, theirs, data)
                        with step.cancelled(when):
                            await victim.send_all(data)
                            await victim.wait_send_all_might_not_block()
                        await victim.aclose()
                await assert_echoes(pair.a, pair.b)

    @WHEN
    async def test_opening_cancelled_at_any_step_leaves_nothing(self, open_pair: OpenPair, when: When) -> None:
        """Wherever the opening, ending or closing of a stream is cancelled, no stream stays behind at the peer."""
        with trio.fail_after(60):
            async with open_pair() as pair:
                served = Served(pair.b, HOLD)
                pair.b.serve(ECHO, echo)
                await pair.connect()
                for step in each_step():
                    with step.cancelled(when):
                        stream = await pair.a.open_stream(pair.b.peer, HOLD)
                        try:
                            await stream.send_eof()
                        finally:
                            await stream.aclose()
                await assert_echoes(pair.a, pair.b)
                await served.wait_none()

    @WHEN
    async def test_connecting_cancelled_at_any_step_leaves_the_peer_reachable(
        self, open_pair: OpenPair, when: When
    ) -> None:
        """Wherever a dial is cancelled, a later one succeeds, and the peer believes in no connection that is not there."""
        with trio.fail_after(60):
            async with open_pair() as pair:
                pair.b.serve(ECHO, echo)
                for step in each_step():
                    with step.cancelled(when):
                        await pair.connect()
                    await pair.a.disconnect(pair.b.peer)
                await pair.b.wait_disconnected(pair.a.peer)
                await pair.connect()
                await assert_echoes(pair.a, pair.b)

    async def test_a_slow_reader_makes_its_sender_wait(self, open_pair: OpenPair) -> None:
        """A sender is held back by its own reader, other streams are not, and nothing is lost when the reader goes on."""
        with trio.fail_after(30):
            async with open_pair() as pair:
                pair.b.serve(ECHO, echo)
                slow, theirs = await stream_pair(pair)
                data = bytes(range(256)) * (2 * self.bulk // 256)
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
                            nursery.start_soon(assert_echoes, here, there, bytes([number]) * (self.bulk // 12 + 1))

    async def test_a_reader_that_never_reads_costs_a_few_mebibytes(self, open_pair: OpenPair) -> None:
        """What a sender gets rid of without a reader is bounded by the stream's window and the queues."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                ours, _ = await stream_pair(pair)
                assert await clog(ours) <= 16 * 1024 * 1024

    async def test_many_streams_at_once(self, open_pair: OpenPair) -> None:
        """Sixty streams that open at the same moment are all served, each with its own bytes."""
        with trio.fail_after(30):
            async with open_pair() as pair:
                pair.b.serve(ECHO, echo)
                await pair.connect()
                async with trio.open_nursery() as nursery:
                    for number in range(60):
                        nursery.start_soon(assert_echoes, pair.a, pair.b, noise(1000 + number))

    async def test_the_end_of_a_peer_cuts_what_is_under_way(self, open_pair: OpenPair) -> None:
        """When a peer ends in the middle of bulk data, its reader gets a beginning of it, then a break, never an end."""
        with trio.fail_after(20):
            async with open_pair() as pair:
                ours, theirs = await stream_pair(pair)
                data, got = noise(self.bulk), bytearray()

                async def send_while_it_lives() -> None:
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await theirs.send_all(data)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send_while_it_lives)
                    nursery.start_soon(expect_broken_send, ours, data)
                    while len(got) < self.bulk // 4:
                        got += await ours.receive_some()
                    await pair.kill_b()
                    got += await receive_until_broken(ours)
                assert data.startswith(got)

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
        with trio.fail_after(120):
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


class Served:
    """A handler that reads its streams to their end, whichever way, and counts those that it still has."""

    def __init__(self, transport: Transport, protocol: str) -> None:
        self._open = 0
        transport.serve(protocol, self._handle)

    async def _handle(self, stream: Stream) -> None:
        self._open += 1
        try:
            await receive_all(stream)
        finally:
            self._open -= 1

    async def wait_none(self) -> None:
        """Return when no stream is open; those that were never handed over do not count."""
        while self._open:  # noqa: ASYNC110 - an event would have to be made anew for each stream
            await trio.sleep(0.005)


async def send_and_end(stream: Stream, data: bytes) -> None:
    """Send all, and say that it was all."""
    await stream.send_all(data)
    await stream.send_eof()


async def expect_broken_send(stream: Stream, data: bytes) -> None:
    """Sending must fail, and not because of us."""
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(data)
        await send_for_ever(stream)


async def expect_beginning(stream: Stream, data: bytes) -> None:
    """What comes before the break must be what `data` begins with."""
    assert data.startswith(await receive_until_broken(stream))


async def receive_until_broken(stream: Stream) -> bytes:
    """What comes before the break, which must come."""
    got = bytearray()
    with pytest.raises(trio.BrokenResourceError):
        while more := await stream.receive_some():
            got += more
    return bytes(got)


async def clog(stream: trio.abc.SendStream) -> int:
    """Send until nothing moves any more; the result is how many bytes went, give or take one piece of 256 KiB."""
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await stream.send_all(bytes(256 * 1024))
            sent += 256 * 1024

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.02)  # a time without progress would be a busy machine's, too
        nursery.cancel_scope.cancel()
    return sent


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
