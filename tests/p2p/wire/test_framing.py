"""Frames: cut anywhere, never above the limit, never in more memory than has arrived."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.errors import ProtocolViolation
from fsn.p2p.wire.framing import MAX_FRAME_BYTES, FrameDecoder, encode_frame_header


def framed(payload: bytes) -> bytes:
    return encode_frame_header(len(payload)) + payload


@pytest.mark.parametrize(
    ("size_bytes", "header"), [(1, "01"), (127, "7f"), (128, "8001"), (16384, "808001"), (MAX_FRAME_BYTES, "808040")]
)
def test_golden_headers(size_bytes: int, header: str) -> None:
    """A frame's length is protobuf's varint."""
    assert encode_frame_header(size_bytes).hex() == header


@pytest.mark.parametrize("size_bytes", [-1, 0, MAX_FRAME_BYTES + 1])
def test_no_header_for_an_impossible_frame(size_bytes: int) -> None:
    """We never announce a frame that a peer would refuse."""
    with pytest.raises(ValueError, match=f"got {size_bytes}"):
        encode_frame_header(size_bytes)


@pytest.mark.fuzz
@given(st.lists(st.binary(min_size=1, max_size=9000), max_size=5), st.lists(st.integers(1, 6000), min_size=1))
def test_frames_survive_any_cutting(payloads: list[bytes], steps: list[int]) -> None:
    """However a stream is cut into pieces, the same frames come out, in order."""
    stream, decoder, frames = b"".join(map(framed, payloads)), FrameDecoder(), []
    position = turn = 0
    while position < len(stream):
        step = steps[turn % len(steps)]
        frames += [bytes(frame) for frame in decoder.feed(stream[position : position + step])]
        position, turn = position + step, turn + 1
    assert frames == payloads
    decoder.finish()


def test_byte_by_byte() -> None:
    """The smallest pieces there are make the same frames."""
    decoder, payload = FrameDecoder(), bytes(range(200)) * 10
    frames = [bytes(frame) for byte in framed(payload) * 2 for frame in decoder.feed(bytes([byte]))]
    assert frames == [payload, payload]


def test_the_largest_frame_passes() -> None:
    """A frame of exactly 1 MiB is a frame."""
    (frame,) = FrameDecoder().feed(framed(bytes(MAX_FRAME_BYTES)))
    assert len(frame) == MAX_FRAME_BYTES


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("00", "got a length of 0"),
        ("818040", "got a length of 1048577"),
        ("ffff7f", "got a length of 2097151"),
        ("808080", "more than 21 bits"),
        ("ffffffffffffffffff01", "more than 21 bits"),
        ("8100", "as few bytes"),
        ("8000", "as few bytes"),
        ("818000", "as few bytes"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 10])
def test_a_bad_length_is_refused(header: str, reason: str, piece_bytes: int) -> None:
    """A length that is zero, too large, too long or not minimal ends the stream, whole or byte by byte."""
    stream, decoder = bytes.fromhex(header), FrameDecoder()
    with pytest.raises(ProtocolViolation, match=reason):
        for start in range(0, len(stream), piece_bytes):
            decoder.feed(stream[start : start + piece_bytes])


@pytest.mark.fuzz
@given(st.binary(max_size=300))
def test_noise_makes_frames_or_a_violation(noise: bytes) -> None:
    """Whatever arrives, nothing but frames and ProtocolViolation comes out."""
    decoder = FrameDecoder()
    try:
        assert all(1 <= len(frame) <= MAX_FRAME_BYTES for frame in decoder.feed(noise))
    except ProtocolViolation:
        return


@pytest.mark.parametrize("cut", [1, 2, 3, 100])
def test_a_stream_that_ends_inside_a_frame_is_noticed(cut: int) -> None:
    """The end of a stream is clean between frames only."""
    decoder = FrameDecoder()
    decoder.finish()
    decoder.feed(framed(bytes(20_000))[:cut])
    with pytest.raises(ProtocolViolation, match="ended inside a frame"):
        decoder.finish()


def test_an_announcement_takes_no_memory() -> None:
    """Only bytes that have arrived are held: ten thousand idle announcements of 1 MiB are not 10 GB."""
    tracemalloc.start()
    try:
        decoders = [FrameDecoder() for _ in range(100)]
        for decoder in decoders:
            decoder.feed(encode_frame_header(MAX_FRAME_BYTES) + b"x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def test_a_large_frame_in_one_piece_is_not_copied() -> None:
    """A sealed chunk that arrives whole is a view of what arrived; a small frame keeps nothing alive."""
    piece = framed(b"a" * 10) + framed(b"b" * 100_000)
    small, large = FrameDecoder().feed(piece)
    assert isinstance(small, bytes)
    assert isinstance(large, memoryview)
    assert large.obj is piece


def test_a_frame_keeps_its_bytes_while_the_next_one_arrives() -> None:
    """A frame handed out is never written again."""
    decoder, one, two = FrameDecoder(), framed(b"1" * 50_000), framed(b"2" * 50_000)
    decoder.feed(one[:10])
    (first,) = decoder.feed(one[10:] + two[:20])
    (second,) = decoder.feed(two[20:])
    assert (bytes(first), bytes(second)) == (b"1" * 50_000, b"2" * 50_000)
