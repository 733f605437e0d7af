"""multipart/form-data as a stream: fields are bounded, files pass through piece by piece, nothing is spooled."""

import re
from collections import deque
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote_to_bytes

import attrs
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from fsn.core.errors import Invalid, TooLarge

__all__ = ["Field", "FilePart", "FormLimits", "read_form"]


@attrs.frozen(kw_only=True)
class FormLimits:
    """What a form may have. Quart's own form reader copies each file to disk, on the event loop; its limits are of no use here."""

    parts: int = 32
    field_bytes: int = 64 * 1024
    header_bytes: int = 8192


@attrs.frozen
class Field:
    """A part without a file name, whole."""

    name: str
    value: str


class FilePart:
    """A part with a file name: iterate over it, once, for its bytes. What is not read is skipped when the next part is asked for."""

    def __init__(self, form: "_Form", segment: Any) -> None:
        self.name: str = segment.name or ""
        self.filename: str = _filename(segment) or ""
        """As the client sent it: check it before use."""
        self.content_type: str = segment.content_type or "application/octet-stream"
        self._form = form
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._ended and (piece := await self._form.next_event()) is not None:
            return bytes(piece)
        self._ended = True
        raise StopAsyncIteration

    async def skip(self) -> None:
        """Read to the end of this part."""
        async for _ in self:
            pass


class _Form:
    """The parts in the order sent; see `read_form`."""

    def __init__(self, body: AsyncIterator[bytes], parser: PushMultipartParser, limits: FormLimits) -> None:
        self._body = body
        self._parser = parser
        self._limits = limits
        self._events: deque[Any] = deque()
        self._file: FilePart | None = None
        self._ended = False

    def __aiter__(self) -> "AsyncIterator[Field | FilePart]":
        return self

    async def __anext__(self) -> Field | FilePart:
        if self._file is not None:
            await self._file.skip()
            self._file = None
        segment = await self.next_event()
        if segment is None:
            raise StopAsyncIteration
        if _filename(segment) is None:
            return Field(segment.name or "", await self._read_value(segment.name or ""))
        self._file = FilePart(self, segment)
        return self._file

    async def _read_value(self, name: str) -> str:
        value = bytearray()
        while (piece := await self.next_event()) is not None:
            value += piece
            if len(value) > self._limits.field_bytes:
                raise TooLarge(f"form field {name[:100]!r} may have {self._limits.field_bytes} bytes; more were sent")
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"form field {name[:100]!r} must be UTF-8; byte {error.start} is not") from error

    async def next_event(self) -> Any:
        """A segment, then its pieces, then None for its end; None for ever after the last."""
        while not self._events and not self._ended:
            await self._parse_more()
        return self._events.popleft() if self._events else None

    async def _parse_more(self) -> None:
        chunk = await anext(self._body, b"")
        self._ended = not chunk
        try:
            if chunk:
                self._events.extend(self._parser.parse(chunk))
            else:
                self._parser.close()
        except ParserLimitReached as error:
            raise TooLarge(f"the form is too large: {error.args[0]}") from error
        except MultipartError as error:
            raise Invalid(f"multipart/form-data is wanted; the body cannot be read as such: {error.args[0]}") from error


def _filename(segment: Any) -> str | None:
    """The part's file name, None for a field. `filename*` (RFC 8187) is not for forms (RFC 7578, section 4.2), but there are clients that
    send it for names beyond ASCII, and then it is the better one."""
    plain: str | None = segment.filename
    extended = _EXTENDED_FILENAME.search(_QUOTED.sub('""', segment.header("Content-Disposition", "")))
    if extended is None:
        return plain
    try:
        return unquote_to_bytes(extended["value"]).decode(extended["charset"])
    except UnicodeDecodeError as error:
        raise Invalid(f"filename* of a form must be in {extended['charset']}; byte {error.start} is not") from error


_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_EXTENDED_FILENAME = re.compile(
    r";\s*filename\*\s*=\s*(?P<charset>utf-8|iso-8859-1)'[^']*'(?P<value>[^\s;\"]*)", re.IGNORECASE
)


def read_form(
    body: AsyncIterator[bytes], content_type: str, limits: FormLimits | None = None
) -> "AsyncIterator[Field | FilePart]":
    """The parts of a form in the order sent, while they arrive: `async for part in read_form(request.body, request.content_type)`.

    A file that is wanted after a field must be sent after it. Raises Invalid when the body is no such form or breaks off in the
    middle, TooLarge beyond `limits` (the size of files is the caller's to count). At most one read of `body` is held in memory.
    """
    limits = limits or FormLimits()
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary")
    if kind != "multipart/form-data" or not boundary:
        raise Invalid(f"multipart/form-data with a boundary is wanted; the content type is {content_type[:100]!r}")
    try:
        parser = PushMultipartParser(
            boundary, max_segment_count=limits.parts, max_header_size=limits.header_bytes, max_segment_size=float("inf")
        )
    except MultipartError as error:
        raise Invalid(f"the boundary of the form cannot be used: {error}") from error
    return _Form(body, parser, limits)
