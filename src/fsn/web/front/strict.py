"""What a request must be beyond what h11 insists on: where a proxy and we may read differently, each can be played against the other."""

import re
from urllib.parse import urlsplit

import h11
from h11._receivebuffer import ReceiveBuffer

__all__ = ["StrictBuffer", "origin_form", "request_fault"]

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(?::[0-9]{0,5})?")
"""RFC 3986, section 3.2.2, less the comma, at which a list of hosts would be split."""


class StrictBuffer(ReceiveBuffer):
    """h11's buffer, for heads and trailers whose lines end with CRLF and are not folded.

    h11 takes a bare LF for the end of a line (RFC 9112, section 2.2, allows it) and unfolds lines that begin with a blank (section 5.2
    allows refusing them). A proxy that does otherwise sees other headers than we do, and so other requests.
    """

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` is for a whole head: h11 looks only at one that is not complete, and a single read may bring more."""
        super().__init__()
        self._limit_bytes = limit_bytes

    def maybe_extract_lines(self) -> list[bytearray] | None:
        before = len(self)
        lines = super().maybe_extract_lines()
        if lines is not None:
            _check_lines(lines, before - len(self), self._limit_bytes)
        return lines


def _check_lines(lines: list[bytearray], taken_bytes: int, limit_bytes: int) -> None:
    if taken_bytes > limit_bytes:
        raise h11.RemoteProtocolError(f"a head may have {limit_bytes} bytes; this has {taken_bytes}", 431)
    if taken_bytes != sum(map(len, lines)) + 2 * len(lines) + 2:
        raise h11.RemoteProtocolError("a line of a head must end with CR LF; a bare LF was found")
    if any(line.startswith((b" ", b"\t")) for line in lines):
        raise h11.RemoteProtocolError("a header line must not be folded (begin with a blank)")


def request_fault(request: h11.Request) -> str | None:
    """Why this request, though h11 took it, is not one that we answer; None for a good one."""
    names = {name for name, _ in request.headers}
    if {b"content-length", b"transfer-encoding"} <= names:
        return "Content-Length and Transfer-Encoding exclude one another"
    if request.http_version not in (b"1.0", b"1.1"):
        return "HTTP/1.0 or HTTP/1.1 is spoken here"
    if request.http_version == b"1.0" and b"transfer-encoding" in names:
        return "HTTP/1.0 has no Transfer-Encoding"
    if not _is_target(request.method, request.target):
        return "the request target must be a path or an http(s) address"
    if not all(_HOST.fullmatch(value) for name, value in request.headers if name == b"host"):
        return "the Host header must be a host name or address, with a port or without"
    return None


def _is_target(method: bytes, target: bytes) -> bool:
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return True
    try:
        parts = urlsplit(target.decode("ascii"))
    except ValueError:
        return False
    is_host = bool(parts.netloc) and _HOST.fullmatch(parts.netloc.encode()) is not None
    return parts.scheme in ("http", "https") and is_host and parts.path.startswith("/")


def origin_form(request: h11.Request) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Target and headers; a target that is a whole address becomes a path, and its host the Host header (RFC 9112, section 3.2.2)."""
    headers = list(request.headers)
    if request.target.startswith(b"/") or request.target == b"*":
        return request.target, headers
    parts = urlsplit(request.target)
    others = [(name, value) for name, value in headers if name != b"host"]
    target = parts.path + (b"?" + parts.query if b"?" in request.target else b"")
    return target, [(b"host", parts.netloc), *others]
