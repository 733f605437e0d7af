"""A QUIC connection by itself, in virtual time: who is there, how much is on the way, when a peer is dead."""

from random import Random

import pytest
import trio
import trio.testing

from fsn.core.errors import ProtocolViolation, Unreachable
from fsn.p2p.transport.quic_connection import PING_EVERY_SECONDS, SILENCE_SECONDS, QuicConnection
from fsn.p2p.transport.quic_engine import CONNECTION_WINDOW_BYTES, FIRST_WINDOW_BYTES, MAX_STREAMS
from fsn.p2p.transport.quic_flow import MAX_RECEIVE_BYTES, SEND_BYTES, WINDOW_BYTES
from fsn.p2p.transport.quic_identity import Certificate, make_certificate, peer_of
from fsn.p2p.transport.quic_stream import QuicStream
from fsn.runtime.identity import Identity
from tests.p2p.transport.certificates import plain_certificate, resigned_certificate
from tests.p2p.transport.contract import noise
from tests.p2p.transport.quic_wire import Wire, open_connected, open_wire

MEBIBYTE = 1024 * 1024
NOTICED_SECONDS = 12.0
"""What the network promises; ours is less."""


async def pair_of(wire: Wire) -> tuple[QuicStream, QuicStream]:
    """A stream as both ends have it."""
    ours = await wire.client.open_stream()
    await ours.send_all(b"!")
    theirs = await wire.server.accept_stream()
    assert await theirs.receive_some() == b"!"
    return ours, theirs


async def test_each_proves_who_it_is(autojump_clock: trio.testing.MockClock) -> None:
    """After the handshake both know the other's peer id."""
    a, b = Identity.generate(), Identity.generate()
    with trio.fail_after(20):
        async with open_wire(make_certificate(a), make_certificate(b)) as wire:
            await wire.client.wait_established()
            await wire.server.wait_established()
            assert (wire.client.peer, wire.server.peer) == (b.peer, a.peer)


async def test_a_network_that_is_back_is_used_within_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """Who dials into a dead network goes on knocking."""
    with trio.fail_after(60):
        async with open_wire() as wire:
            wire.cut()
            await trio.sleep(8.3)
            wire.lets_up = wire.lets_down = lambda data: True
            began = trio.current_time()
            await wire.client.wait_established()
            assert trio.current_time() - began < 1


async def test_a_client_without_a_certificate_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    """The server is given no peer id, so there is no connection; and the client hears why."""
    with trio.fail_after(20):
        async with open_wire() as wire:
            wire.client.engine.tls.certificate = None
            with pytest.raises(Unreachable, match="showed no certificate"):
                await wire.server.wait_established()
            await wire.client.closed.wait()
            assert "showed no certificate" in wire.client.failure


@pytest.mark.parametrize("liar", ["client", "server"])
async def test_who_shows_anothers_proof_is_refused(autojump_clock: trio.testing.MockClock, liar: str) -> None:
    """A certificate made by somebody else's proof proves nothing, on either side."""
    honest, stolen, own = (make_certificate(Identity.generate()) for _ in range(3))
    forged = Certificate(stolen.certificate, own.key)  # the proof of another, without its key
    certificates = (forged, honest) if liar == "client" else (honest, forged)
    with trio.fail_after(60):
        async with open_wire(*certificates) as wire:
            refusing = wire.server if liar == "client" else wire.client
            with pytest.raises(Unreachable):
                await refusing.wait_established()
            assert not refusing.is_open


def test_a_certificate_of_another_kind_is_no_proof() -> None:
    """A certificate without libp2p's extension is refused, in words."""
    with pytest.raises(ProtocolViolation, match="no libp2p certificate"):
        peer_of(plain_certificate())
    with pytest.raises(ProtocolViolation, match="not signed by the key it holds"):
        peer_of(resigned_certificate(make_certificate(Identity.generate())))


async def test_a_slow_reader_gets_every_byte(autojump_clock: trio.testing.MockClock) -> None:
    """6 MiB are written while the reader waits (stock drops what is beyond 2 MiB): the writer is held, then all arrives, exact."""
    data = noise(6 * MEBIBYTE)
    with trio.fail_after(600):
        async with open_connected() as wire:
            ours, theirs = await pair_of(wire)
            written = trio.Event()

            async def write() -> None:
                await ours.send_all(data)
                await ours.send_eof()
                written.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                await trio.sleep(30)
                assert not written.is_set()
                assert len(theirs._received) == WINDOW_BYTES - 1  # one was read
                assert wire.client.engine.unsent_bytes() <= SEND_BYTES
                got = bytearray()
                while more := await theirs.receive_some(70_001):
                    got += more
                assert got == data


async def test_less_than_a_mebibyte_is_on_the_way(autojump_clock: trio.testing.MockClock) -> None:
    """However many streams send, what is queued or unacknowledged of a connection stays under 1 MiB; so does what we let come."""
    assert max(SEND_BYTES, CONNECTION_WINDOW_BYTES) < MEBIBYTE
    most = 0
    with trio.fail_after(600):
        async with open_connected() as wire:
            pairs = [await pair_of(wire) for _ in range(4)]
            async with trio.open_nursery() as nursery:
                for ours, _ in pairs:
                    nursery.start_soon(ours.send_all, bytes(MEBIBYTE // 2))
                for _, theirs in pairs:
                    got = 0
                    while got < MEBIBYTE // 2:
                        got += len(await theirs.receive_some())
                        most = max(most, wire.client.engine.unsent_bytes())
                        window = wire.server.engine._local_max_data
                        assert window.value - window.used <= CONNECTION_WINDOW_BYTES
            assert MEBIBYTE // 4 < most <= SEND_BYTES


@pytest.mark.parametrize("streams", [4, pytest.param(20, marks=pytest.mark.slow)])
async def test_streams_that_nobody_reads_hold_up_no_others(
    autojump_clock: trio.testing.MockClock, streams: int
) -> None:
    """Their writers wait, each at its own window; together they are bounded; and a stream that is read goes on."""
    with trio.fail_after(600):
        async with open_connected() as wire:
            pairs = [await pair_of(wire) for _ in range(streams)]
            async with trio.open_nursery() as nursery:
                for ours, _ in pairs[1:]:
                    nursery.start_soon(ours.send_all, bytes(MEBIBYTE))
                await trio.sleep(60)
                held = sum(len(theirs._received) for _, theirs in pairs)
                assert held <= min(MAX_RECEIVE_BYTES + streams * FIRST_WINDOW_BYTES, streams * WINDOW_BYTES)
                ours, theirs = pairs[0]
                nursery.start_soon(ours.send_all, bytes(MEBIBYTE))
                got = 0
                while got < MEBIBYTE:
                    got += len(await theirs.receive_some())
                nursery.cancel_scope.cancel()


async def test_bytes_survive_a_lossy_network(autojump_clock: trio.testing.MockClock) -> None:
    """With every tenth datagram lost, both ways, what arrives is exact."""
    chance, data = Random(7), noise(300_000)
    with trio.fail_after(3000):
        async with open_connected() as wire:
            ours, theirs = await pair_of(wire)
            wire.lets_up = wire.lets_down = lambda _: chance.random() > 0.1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, data)
                got = bytearray()
                while len(got) < len(data):
                    got += await theirs.receive_some()
            assert got == data


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
async def test_a_silent_cut_is_noticed_within_12_seconds(autojump_clock: trio.testing.MockClock, *, busy: bool) -> None:
    """On both sides, whether anything is under way or not; streams break."""
    with trio.fail_after(600):
        async with open_connected() as wire:
            ours, theirs = await pair_of(wire)
            await trio.sleep(100.5)
            wire.cut()
            began = trio.current_time()
            for stream in (ours, theirs):
                with pytest.raises(trio.BrokenResourceError):
                    while busy:
                        await stream.send_all(bytes(1000))
                    await stream.receive_some()
            assert SILENCE_SECONDS - PING_EVERY_SECONDS <= trio.current_time() - began <= NOTICED_SECONDS
            assert wire.client.closed.is_set()
            assert wire.server.closed.is_set()
            assert "nothing heard" in wire.client.failure


async def test_an_idle_connection_lives_on_few_packets(autojump_clock: trio.testing.MockClock) -> None:
    """Ten minutes without any stream: alive, at two datagrams every 3 s (a ping and its answer), whichever side asks."""
    with trio.fail_after(10_000):
        async with open_connected() as wire:
            await trio.sleep(60)
            before = sum(wire.sent)
            await trio.sleep(600)
            assert wire.client.is_open
            assert wire.server.is_open
            assert sum(wire.sent) - before <= 2.2 * 600 / PING_EVERY_SECONDS


async def test_a_short_cut_ends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Six seconds of nothing are survived, and what was sent meanwhile arrives."""
    with trio.fail_after(600):
        async with open_connected() as wire:
            ours, theirs = await pair_of(wire)
            await trio.sleep(50)
            wire.cut()
            await ours.send_all(b"through the gap")
            await trio.sleep(6)
            wire.lets_up = wire.lets_down = lambda data: True
            assert await theirs.receive_some() == b"through the gap"


async def test_strangers_datagrams_keep_nobody_alive(autojump_clock: trio.testing.MockClock) -> None:
    """What only looks like a packet does not count as hearing from the peer."""
    with trio.fail_after(600):
        async with open_connected() as wire:
            await trio.sleep(20)
            wire.cut()
            began = trio.current_time()
            while not wire.client.closed.is_set():
                wire.client.on_datagram(b"\x40" + wire.client.engine.host_cid + bytes(40), ("192.0.2.2", 2))
                wire.client.take_events()
                await trio.sleep(0.5)
            assert trio.current_time() - began <= NOTICED_SECONDS


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_clean_close_is_noticed_at_once(autojump_clock: trio.testing.MockClock, side: str) -> None:
    """The other side knows as soon as the packet arrives."""
    with trio.fail_after(60):
        async with open_connected() as wire:
            ours, theirs = await pair_of(wire)
            closing, other = (wire.client, wire.server) if side == "client" else (wire.server, wire.client)
            began = trio.current_time()
            await closing.aclose()
            await other.closed.wait()
            assert trio.current_time() - began < 0.1
            for stream in (ours, theirs):
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()


async def test_streams_are_limited_and_freed(autojump_clock: trio.testing.MockClock) -> None:
    """The 257th is refused here; once some have ended there is room again, over and over, and nothing is left in the end."""
    with trio.fail_after(600):
        async with open_connected() as wire, trio.open_nursery() as nursery:
            nursery.start_soon(end_all, wire.server)
            streams = [await wire.client.open_stream() for _ in range(MAX_STREAMS)]
            with pytest.raises(Unreachable, match="256 streams are open"):
                await wire.client.open_stream()
            for _ in range(2):
                for stream in streams:
                    await stream.send_all(b"x")
                    await stream.send_eof()
                    assert await stream.receive_some() == b""
                    await stream.aclose()
                streams = [await wire.client.open_stream() for _ in range(MAX_STREAMS)]
            for stream in streams:
                await stream.aclose()
            await trio.sleep(10)
            for connection in (wire.client, wire.server):
                assert connection.stream_count == 0
                assert connection.engine._streams == {}
                assert len(connection._windows) == 0
                assert connection._windows.bytes_left == MAX_RECEIVE_BYTES
            nursery.cancel_scope.cancel()


async def end_all(connection: QuicConnection) -> None:
    """Read every stream to its end, and end it."""
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(end_one, await connection.accept_stream())


async def end_one(stream: QuicStream) -> None:
    """One of them."""
    async with stream:
        try:
            while await stream.receive_some():
                pass
            await stream.send_eof()
        except trio.BrokenResourceError:
            pass


async def test_a_peer_that_opens_too_many_loses_those(autojump_clock: trio.testing.MockClock) -> None:
    """Streams that nobody accepts are reset beyond the backlog; the connection and the others live."""
    with trio.fail_after(600):
        async with open_connected() as wire:
            streams = [await wire.client.open_stream() for _ in range(100)]
            broken = 0
            for stream in streams:
                await stream.send_all(b"x")
            await trio.sleep(1)
            for stream in streams:
                with trio.move_on_after(0.1):
                    try:
                        await stream.receive_some()
                    except trio.BrokenResourceError:
                        broken += 1
            assert broken == 100 - 64
            assert wire.client.is_open
