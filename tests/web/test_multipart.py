"""Forms read as a stream, however the network cuts them."""

import tracemalloc
from collections.abc import AsyncIterator

import pytest

from fsn.core.errors import FsnError, Invalid, TooLarge
from fsn.web.multipart import Field, FilePart, FormLimits, read_form

TYPE = "multipart/form-data; boundary=XX"
CONTENT = b"line\r\n--X\r\n\r\n-- not the boundary" * 50
FORM = (
    b'--XX\r\nContent-Disposition: form-data; name="index"\r\n\r\n7\r\n'
    b'--XX\r\nContent-Disposition: form-data; name="chunk"; filename="a \xf0\x9f\x90\x99.bin"\r\n'
    b"Content-Type: image/png\r\n\r\n" + CONTENT + b"\r\n"
    b'--XX\r\nContent-Disposition: form-data; name="note"\r\n\r\nn\xc3\xb6te\r\n--XX--\r\n'
)


class Cut(AsyncIterator[bytes]):
    """A request's body that arrives in pieces of `size` bytes."""

    def __init__(self, data: bytes, size: int) -> None:
        self._pieces = iter([data[start : start + size] for start in range(0, len(data), size)])

    async def __anext__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            raise StopAsyncIteration from None


async def parts(data: bytes, size: int = 1000, limits: FormLimits | None = None, kind: str = TYPE) -> list[object]:
    found: list[object] = []
    async for part in read_form(Cut(data, size), kind, limits):
        if isinstance(part, FilePart):
            found.append((part.name, part.filename, part.content_type, b"".join([piece async for piece in part])))
        else:
            found.append(part)
    return found


@pytest.mark.parametrize("size", [1, 2, 7, 100, 100_000])
async def test_fields_and_files_come_in_order_and_whole(size: int) -> None:
    """Parts arrive as sent, whatever the pieces that the network made."""
    assert await parts(FORM, size) == [
        Field("index", "7"),
        ("chunk", "a 🐙.bin", "image/png", CONTENT),
        Field("note", "nöte"),
    ]


async def test_a_file_that_nobody_reads_is_skipped() -> None:
    """Asking for the next part passes over the rest of a file."""
    names = [part.name async for part in read_form(Cut(FORM, 10), TYPE)]
    assert names == ["index", "chunk", "note"]


@pytest.mark.parametrize(
    ("data", "kind", "limits", "error", "words"),
    [
        (FORM[:-10], TYPE, None, Invalid, "cannot be read"),
        (FORM[:200], TYPE, None, Invalid, "cannot be read"),
        (b"", TYPE, None, Invalid, "cannot be read"),
        (b"hello, no form", TYPE, None, Invalid, "cannot be read"),
        (FORM, "multipart/form-data", None, Invalid, "with a boundary"),
        (FORM, "application/json", None, Invalid, "application/json"),
        (FORM.replace(b"\xc3\xb6", b"\xff"), TYPE, None, Invalid, "must be UTF-8"),
        (FORM, TYPE, FormLimits(field_bytes=4), TooLarge, "'note' may have 4 bytes"),
        (FORM, TYPE, FormLimits(parts=2), TooLarge, "segment count"),
        (FORM, TYPE, FormLimits(header_bytes=40), TooLarge, "header"),
    ],
)
async def test_what_is_no_form_or_too_large_is_refused(
    data: bytes, kind: str, limits: FormLimits | None, error: type[FsnError], words: str
) -> None:
    """A form that breaks off, is none, or goes beyond a limit raises, with the reason."""
    with pytest.raises(error, match=words):
        await parts(data, 50, limits, kind)


def part(disposition: bytes, content: bytes = b"x", headers: bytes = b"") -> bytes:
    return b"--XX\r\nContent-Disposition: form-data; " + disposition + b"\r\n" + headers + b"\r\n" + content + b"\r\n"


END = b"--XX--\r\n"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b'name="f"; filename="a;b.txt"', "a;b.txt"),
        (b"name=f; filename=a.txt", "a.txt"),
        (b'name="f"; filename="a\\"b.txt"', 'a"b.txt'),
        (b'name="f"; filename="a%22b.txt"', 'a"b.txt'),
        (b'name="f"; filename="100%25.txt"', "100%25.txt"),
        (b'name="f"; filename="\xe2\x82\xac.txt"', "€.txt"),
        (b"name=\"f\"; filename*=UTF-8''%e2%82%ac.txt", "€.txt"),
        (b"name=\"f\"; filename*=utf-8'en'%e2%82%ac%20rates", "€ rates"),
        (b'name="f"; filename="EUR.txt"; filename*=UTF-8\'\'%e2%82%ac.txt', "€.txt"),
        (b"name=\"f\"; filename*=iso-8859-1''%e9.txt", "é.txt"),
        (b'name="f"; filename="; filename*=UTF-8' + b"''x" + b'"', "; filename*=UTF-8''x"),
        (b'name="f"; filename="C:\\dir\\file.txt"', "file.txt"),
        (b'name="f"; filename="../../etc/passwd"', "../../etc/passwd"),
        (b'name="f"; filename="a%0D%0Ab"', "a\r\nb"),
        (b'name="f"; filename="a\0b"', "a\0b"),
        (b'name="f"; filename=""', ""),
    ],
)
async def test_names_of_files_in_the_ways_that_clients_write_them(disposition: bytes, name: str) -> None:
    """Quoted, escaped, extended: as browsers, curl and libraries do. What is dangerous comes as it is, for `check_filename` to refuse."""
    assert await parts(part(disposition) + END) == [("f", name, "application/octet-stream", b"x")]


@pytest.mark.parametrize(
    ("form", "error", "words"),
    [
        (part(b'name="f"; filename="\xe9.txt"') + END, Invalid, r"such: Segment header failed to decode$"),
        (part(b"name=\"f\"; filename*=UTF-8''%ff") + END, Invalid, r"filename\* of a form must be in UTF-8"),
        (b"--XX\r\nX: y\r\n\r\nx\r\n" + END, Invalid, "Missing Content-Disposition"),
        (part(b'name="f"', headers=b"nonsense\r\n") + END, Invalid, "Malformed segment header"),
        (part(b'name="f"', headers=b"X: y\r\n" * 100) + END, TooLarge, "header count"),
        (part(b'name="f"', headers=b"X: " + b"y" * 100_000 + b"\r\n") + END, TooLarge, "header length"),
        (b"--XX\r\n" + b"y" * 100_000, TooLarge, "header length"),
        (part(b'name="f"') * 100 + END, TooLarge, "segment count"),
        (part(b'name="f"; filename="x"'), Invalid, "Unexpected end"),
        (part(b'name="f"; filename="x"') + b"--XX", Invalid, "Unexpected end"),
        (part(b'name="f"; filename="x"', headers=b"Content-Length: 2\r\n") + END, Invalid, "Content-Length"),
        (part(b'name="f"; filename="x"').replace(b"\r\n", b"\n") + END, Invalid, "line break"),
    ],
)
@pytest.mark.parametrize("size", [7, 100_000])
async def test_parts_that_are_none(form: bytes, error: type[FsnError], words: str, size: int) -> None:
    """Headers that are broken, too long or too many, too many parts and forms without their end are refused, however they are cut."""
    with pytest.raises(error, match=words):
        await parts(form, size)


async def test_what_stands_around_a_form_is_passed_over() -> None:
    """A preamble and an epilogue, of any length, are not part of it."""
    form = b"y\r" * 100_000 + b"\r\n" + part(b'name="f"; filename="x"') + END + b"z\r\n--XX\r\n" * 10_000
    assert len(await parts(form, 1000)) == 1


async def test_a_large_file_passes_through_in_little_memory() -> None:
    """128 MiB in a form take the memory of a few pieces, whether the file is read or skipped, also when it is full of near boundaries."""
    pieces = [bytes(256 * 1024)] * 256 + [b"\r\n--X--Y" * 32 * 1024] * 256

    async def form() -> AsyncIterator[bytes]:
        yield b'--XX\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n'
        for piece in pieces:
            yield piece
        yield b"\r\n" + END

    for is_read in (True, False):
        size_bytes = 0
        tracemalloc.start()
        async for found in read_form(form(), TYPE):
            assert isinstance(found, FilePart)
            if is_read:
                async for piece in found:
                    size_bytes += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 << 20
        assert size_bytes == is_read * (128 << 20)
