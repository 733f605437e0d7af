"""Forms read as a stream, however the network cuts them."""

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
