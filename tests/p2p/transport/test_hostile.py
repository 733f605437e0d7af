"""Hostile peers over real sockets: their connection or stream ends, memory is bounded, and others never notice."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from fsn.p2p.transport.yamux import WINDOW_BYTES
from fsn.p2p.transport.yamux_frames import (
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    pack_header,
)
from tests.p2p.transport.contract import ECHO, HOLD, Handed, Pair, assert_echoes, echo, receive_until_broken
from tests.p2p.transport.hostile import GREETING, open_frames, open_secured, open_socket, yamux_of
from tests.p2p.transport.test_libp2p import libp2p_pair

ENDLESS = b"\xff\xff\xff\xff\x03"
"""The length of a line: 1 GiB."""
MANY = 8 * 1024 * 1024


@asynccontextmanager
async def open_victim() -> AsyncIterator[Pair]:
    """Two connected transports: b is attacked, and must go on echoing what a sends it on a stream that is open all the time."""
    async with libp2p_pair() as pair:
        pair.b.serve(ECHO, echo)
        await pair.connect()
        stream = await pair.a.open_stream(pair.b.peer, ECHO)
        yield pair
        await stream.send_all(b"as if nothing had been")
        assert await stream.receive_some() == b"as if nothing had been"
        await assert_echoes(pair.a, pair.b)


async def send_endlessly(send: Callable[[bytes], Awaitable[None]]) -> int:
    """How many bytes go before the other side has enough: it may not take `MANY`."""
    sent = 0
    try:
        while sent < MANY:
            await send(bytes(60_000))
            sent += 60_000
    except trio.BrokenResourceError:
        return sent
    raise AssertionError(f"{sent} bytes were taken for one line")


async def test_an_endless_line_before_the_handshake_is_refused() -> None:
    """A stranger that announces a line of 1 GiB is cut off, not collected."""
    with trio.fail_after(20):
        async with open_victim() as pair, open_socket(pair.b) as stream:
            await stream.send_all(GREETING + ENDLESS)
            await send_endlessly(stream.send_all)


async def test_an_endless_line_after_the_handshake_is_refused() -> None:
    """So is a peer that announces it where the multiplexer is to be agreed on."""
    with trio.fail_after(20):
        async with open_victim() as pair, open_secured(pair.b) as session:
            await session.send_parts([GREETING + ENDLESS])
            await send_endlessly(lambda data: session.send_parts([data]))


async def test_an_endless_line_on_a_stream_is_refused() -> None:
    """On a new stream it costs that stream only."""
    with trio.fail_after(20):
        async with open_victim() as pair:
            stream = await yamux_of(pair.a, pair.b.peer).open_stream()
            await stream.send_all(GREETING + ENDLESS)
            await send_endlessly(stream.send_all)


def opened(stream: int) -> bytes:
    """The header that opens a stream."""
    return pack_header(WINDOW_UPDATE, SYN, stream, 0)


def data(stream: int, payload: bytes) -> bytes:
    """A data frame."""
    return pack_header(DATA, 0, stream, len(payload)) + payload


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(b"\x01" + pack_header(PING, SYN, 0, 1)[1:], id="another version"),
        pytest.param(pack_header(4, 0, 1, 0), id="another type"),
        pytest.param(opened(0), id="stream 0"),
        pytest.param(opened(2), id="the other side's number"),
        pytest.param(opened(1) * 2, id="opened twice"),
        pytest.param(pack_header(DATA, 0, 77, 0xFFFFFFFF), id="4 GiB for nobody"),
        pytest.param(opened(1) + pack_header(DATA, 0, 1, 0xFFFFFFFF), id="4 GiB for a stream"),
        pytest.param(pack_header(GO_AWAY, 0, 0, 0), id="go away"),
    ],
)
async def test_hostile_frames_end_their_own_connection(frames: bytes) -> None:
    """The connection that carries impossible frames is closed; the honest peer's stream lives on."""
    with trio.fail_after(20):
        async with open_victim() as pair, open_frames(pair.b) as session:
            with pytest.raises(trio.BrokenResourceError):
                for start in range(0, len(frames), 60_000):
                    await session.send_parts([frames[start : start + 60_000]])
                await receive_to_the_end(session.receive_messages)
                raise trio.BrokenResourceError("ended")


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(pack_header(DATA, 0, 77, 5) + b"stray", id="data of no stream"),
        pytest.param(pack_header(WINDOW_UPDATE, FIN | RST, 77, 0xFFFFFFFF), id="end of no stream"),
        pytest.param(b"".join(opened(number) for number in range(1, 2001, 2)), id="a thousand streams"),
        pytest.param(opened(1) + pack_header(WINDOW_UPDATE, 0, 1, 0xFFFFFFFF) * 50, id="a window of 200 GiB"),
        pytest.param(opened(1) + pack_header(DATA, FIN, 1, 0) * 50, id="fifty ends"),
        pytest.param(opened(1) + pack_header(DATA, FIN, 1, 0) + pack_header(DATA, 0, 1, 1) + b"x", id="after its end"),
        pytest.param(pack_header(DATA, SYN | FIN | RST, 1, 3) + b"all", id="all at once"),
        pytest.param(opened(1) + pack_header(DATA, 0, 1, 5) + b"\x05\xff\xfe\xfd\xfc", id="not UTF-8"),
    ],
)
async def test_odd_frames_are_borne(frames: bytes) -> None:
    """Frames that are late, double or odd, but that a Yamux may send, leave even their own connection alive."""
    with trio.fail_after(20):
        async with open_victim() as pair, open_frames(pair.b) as session:
            await session.send_parts([frames[start : start + 60_000] for start in range(0, len(frames), 60_000)])
            ping = pack_header(PING, SYN, 0, 4711)
            await session.send_parts([ping])
            got = b""
            while ping[4:] not in got:
                messages = await session.receive_messages()
                assert messages
                got += b"".join(messages)


async def test_a_peer_that_asks_and_never_reads_is_cut_off() -> None:
    """Pings without end, whose answers nobody takes, cost a bounded queue and then the connection."""
    with trio.fail_after(30):
        async with open_victim() as pair, open_frames(pair.b) as session:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await session.send_parts([pack_header(PING, SYN, 0, 1) * 5000])


async def test_no_more_than_the_window_is_held_for_a_stream() -> None:
    """A peer that sends on while its stream's handler does not read is cut off at the window, and the handler is told."""
    with trio.fail_after(20):
        async with open_victim() as pair, open_frames(pair.b) as session:
            handed = Handed(pair.b, HOLD)
            await session.send_parts([opened(1), data(1, GREETING + b"\x0d" + HOLD.encode() + b"\n")])
            stream = await handed.stream()
            with pytest.raises(trio.BrokenResourceError):
                for _ in range(2 * WINDOW_BYTES // 60_000):
                    await session.send_parts([data(1, bytes(60_000))])
                await receive_to_the_end(session.receive_messages)
                raise trio.BrokenResourceError("ended")
            assert len(await receive_until_broken(stream)) <= WINDOW_BYTES


async def test_a_handler_hears_that_its_peer_is_gone() -> None:
    """A frame that is cut by the end of its connection is a break for its reader, not an end."""
    with trio.fail_after(20):
        async with open_victim() as pair:
            handed = Handed(pair.b, HOLD)
            async with open_frames(pair.b) as session:
                await session.send_parts([opened(1), data(1, GREETING + b"\x0d" + HOLD.encode() + b"\n")])
                stream = await handed.stream()
                await session.send_parts([pack_header(DATA, FIN, 1, 100), b"cut"])
            assert await receive_until_broken(stream) == b"cut"


async def receive_to_the_end(receive: Callable[[], Awaitable[list[bytes]]]) -> None:
    """Take messages until the other side has closed."""
    while await receive():
        pass
