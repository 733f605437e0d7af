"""How a file is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.chunking import CHUNK_BYTES, MAX_CHUNKS, MAX_FILE_BYTES, Chunker, chunk_count, chunk_size
from fsn.core.errors import Invalid, TooLarge


@pytest.mark.parametrize(
    ("size_bytes", "count"),
    [(0, 0), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (MAX_FILE_BYTES, MAX_CHUNKS)],
)
def test_counts_chunks(size_bytes: int, count: int) -> None:
    """A file has as many chunks as it takes, an empty one none."""
    assert chunk_count(size_bytes) == count


def test_refuses_impossible_file_sizes() -> None:
    """A negative size is invalid, one above the limit too large."""
    with pytest.raises(Invalid, match="0 bytes or more; got -1"):
        chunk_count(-1)
    with pytest.raises(TooLarge, match=f"got {MAX_FILE_BYTES + 1}"):
        chunk_count(MAX_FILE_BYTES + 1)


@given(st.integers(1, 50 * CHUNK_BYTES))
def test_chunk_sizes_add_up_to_the_file(size_bytes: int) -> None:
    """All chunks but the last are 256 KiB and together they are the file."""
    sizes = [chunk_size(size_bytes, index) for index in range(chunk_count(size_bytes))]
    assert sum(sizes) == size_bytes
    assert all(size == CHUNK_BYTES for size in sizes[:-1])
    assert 1 <= sizes[-1] <= CHUNK_BYTES


@pytest.mark.parametrize(("size_bytes", "index"), [(0, 0), (1, 1), (1, -1), (CHUNK_BYTES, 1)])
def test_refuses_a_chunk_that_the_file_does_not_have(size_bytes: int, index: int) -> None:
    """An index outside the file is invalid."""
    with pytest.raises(Invalid, match=f"got {index}"):
        chunk_size(size_bytes, index)


@given(st.lists(st.integers(0, 2 * CHUNK_BYTES + 5) | st.integers(0, 3000), max_size=8))
def test_pieces_of_any_size_become_chunks(lengths: list[int]) -> None:
    """However the bytes arrive, they leave in 256 KiB chunks, the rest last, none lost and none twice."""
    content = bytes(range(256)) * (sum(lengths) // 256 + 1)
    chunker, chunks, start = Chunker(), [], 0
    for length in lengths:
        chunks += chunker.feed(content[start : start + length])
        start += length
    assert all(len(chunk) == CHUNK_BYTES for chunk in chunks)
    last = chunker.finish()
    assert last is None or 1 <= len(last) < CHUNK_BYTES
    assert b"".join([*chunks, last or b""]) == content[:start]


def test_a_chunk_is_handed_out_as_soon_as_it_is_whole() -> None:
    """The byte that completes a chunk brings it out."""
    chunker = Chunker()
    assert chunker.feed(bytes(CHUNK_BYTES - 1)) == []
    assert [bytes(chunk) for chunk in chunker.feed(b"x")] == [bytes(CHUNK_BYTES - 1) + b"x"]
    assert chunker.finish() is None


def test_a_chunk_within_one_piece_is_not_copied() -> None:
    """Whole chunks of a large piece are views of it."""
    piece = bytes(3 * CHUNK_BYTES)
    assert all(chunk.obj is piece for chunk in Chunker().feed(piece))


def test_a_chunk_keeps_its_bytes_while_the_next_one_fills() -> None:
    """The buffer of a chunk handed out is never written again."""
    chunker = Chunker()
    chunker.feed(b"a")
    (first,) = chunker.feed(b"a" * (CHUNK_BYTES - 1))
    chunker.feed(b"b" * 100)
    assert bytes(first) == b"a" * CHUNK_BYTES


def test_a_finished_chunker_starts_again() -> None:
    """After the last chunk nothing is left over."""
    chunker = Chunker()
    chunker.feed(b"abc")
    assert bytes(chunker.finish() or b"") == b"abc"
    assert chunker.finish() is None
    chunker.feed(b"def")
    assert bytes(chunker.finish() or b"") == b"def"
