"""Which bytes of an object a request wants: ranges and conditions of RFC 9110, decided without touching a body."""

import re
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Protocol
from urllib.parse import quote

import attrs
from werkzeug.http import http_date, parse_date, parse_etags, parse_if_range_header

__all__ = ["MAX_RANGES", "ObjectFacts", "Outcome", "Selection", "content_disposition", "parse_ranges", "select"]

MAX_RANGES = 16
"""More ranges in one request are answered with the whole object (RFC 9110 14.2 lets a server ignore the header)."""

_RANGE = re.compile(r"\s*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))\s*", re.ASCII)


class Headers(Protocol):
    """A request's headers, looked up without regard to case."""

    def get(self, name: str, /) -> str | None:
        """The value, or None."""


@attrs.frozen(kw_only=True)
class ObjectFacts:
    """What is known of an object before any byte of it was read."""

    size_bytes: int
    etag: str
    """Strong, without quotes: equal tags mean equal bytes."""
    last_modified: datetime
    content_type: str = "application/octet-stream"
    filename: str | None = None


class Outcome(Enum):
    """How the request is to be answered."""

    WHOLE = auto()
    PARTIAL = auto()
    NOT_MODIFIED = auto()
    PRECONDITION_FAILED = auto()
    NOT_SATISFIABLE = auto()


@attrs.frozen
class Selection:
    """The outcome, and for WHOLE and PARTIAL the ranges as (begin, end), end exclusive, in the order asked for."""

    outcome: Outcome
    ranges: tuple[tuple[int, int], ...] = ()


def select(method: str, headers: Headers, facts: ObjectFacts) -> Selection:
    """Weigh the conditions in the order of RFC 9110 section 13.2.2, then the ranges. Pure."""
    if not _is_precondition_met(headers, facts):
        return Selection(Outcome.PRECONDITION_FAILED)
    if _is_unchanged(headers, facts):
        return Selection(Outcome.NOT_MODIFIED)
    ranges = _wanted_ranges(method, headers, facts)
    if ranges is None:
        return Selection(Outcome.WHOLE, ((0, facts.size_bytes),))
    return Selection(Outcome.PARTIAL, ranges) if ranges else Selection(Outcome.NOT_SATISFIABLE)


def parse_ranges(header: str, size_bytes: int) -> tuple[tuple[int, int], ...] | None:
    """The satisfiable ranges of a Range header (RFC 9110 14.1.2), cut to the size; empty when none is; None to ignore the header."""
    unit, _, specs = header.partition("=")
    if unit.strip().lower() != "bytes" or specs.count(",") >= MAX_RANGES:
        return None
    ranges = []
    for spec in specs.split(","):
        if (found := _RANGE.fullmatch(spec)) is None:
            return None
        first, last, suffix = found.groups()
        if first and last and int(last) < int(first):
            return None
        begin = int(first) if first else max(0, size_bytes - int(suffix))
        end = min(int(last) + 1, size_bytes) if last else size_bytes
        if begin < end:
            ranges.append((begin, end))
    if len(ranges) > 1 and sum(end - begin for begin, end in ranges) > size_bytes:
        return None  # overlapping ranges that ask for more than there is
    return tuple(ranges)


def _is_precondition_met(headers: Headers, facts: ObjectFacts) -> bool:
    if (if_match := headers.get("If-Match")) is not None:
        tags = parse_etags(if_match)
        return tags.star_tag or tags.is_strong(facts.etag)
    since = parse_date(headers.get("If-Unmodified-Since"))
    return since is None or _seconds(facts.last_modified) <= since


def _is_unchanged(headers: Headers, facts: ObjectFacts) -> bool:
    if (if_none_match := headers.get("If-None-Match")) is not None:
        tags = parse_etags(if_none_match)
        return tags.star_tag or tags.contains_weak(facts.etag)
    since = parse_date(headers.get("If-Modified-Since"))
    return since is not None and _seconds(facts.last_modified) <= since


def _wanted_ranges(method: str, headers: Headers, facts: ObjectFacts) -> tuple[tuple[int, int], ...] | None:
    header = headers.get("Range")
    if method != "GET" or header is None or not _is_same_object(headers.get("If-Range"), facts):
        return None
    return parse_ranges(header, facts.size_bytes)


def _is_same_object(if_range: str | None, facts: ObjectFacts) -> bool:
    """Whether the client's earlier part is of this object: by strong tag or exact date (RFC 9110 13.1.5)."""
    if if_range is None:
        return True
    validator = parse_if_range_header(if_range)
    if validator.date is not None:
        return validator.date == _seconds(facts.last_modified)
    return not if_range.strip().startswith("W/") and validator.etag == facts.etag


def _seconds(moment: datetime) -> datetime:
    """HTTP's dates know no fractions."""
    return moment.astimezone(UTC).replace(microsecond=0)


def validators_of(facts: ObjectFacts) -> dict[str, str]:
    """The headers that let a client ask conditionally next time. Caches may keep a private copy and must ask."""
    return {
        "ETag": f'"{facts.etag}"',
        "Last-Modified": http_date(_seconds(facts.last_modified)),
        "Cache-Control": "private, no-cache",
    }


def content_disposition(filename: str) -> str:
    """`attachment` with the name in RFC 8187's UTF-8 form, and an ASCII likeness for clients that do not know that."""
    plain = "".join(char if " " <= char <= "~" and char not in '"\\%' else "_" for char in filename)
    if plain == filename:
        return f'attachment; filename="{plain}"'
    encoded = quote(filename.encode("utf-8", "replace"), safe="!#$&+-.^_`|~")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
