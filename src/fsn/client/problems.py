"""The door where HTTP's errors become ours: problem documents and statuses on one side, httpx's exceptions on the other."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from fsn.core.errors import (
    Conflict,
    Corrupt,
    DiskFull,
    Forbidden,
    FsnError,
    InsufficientCredits,
    Invalid,
    NotFound,
    PeerError,
    PeerRefused,
    PeerTimeout,
    ProtocolViolation,
    QuotaExceeded,
    Refused,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreachable,
)

__all__ = ["error_of_problem", "http_errors"]

_BY_STATUS: dict[int, type[FsnError]] = {
    400: Invalid,
    401: Unauthorized,
    402: InsufficientCredits,
    403: Forbidden,
    404: NotFound,
    408: PeerTimeout,
    409: Conflict,
    413: TooLarge,
    429: QuotaExceeded,
    500: FsnError,
    502: PeerError,
    503: Unavailable,
    504: PeerTimeout,
    507: DiskFull,
}
"""For answers without a known code: a finer code than our classes have, or a proxy's own error page."""

_MEMBERS_OF_RFC_9457 = {"type", "title", "status", "detail", "instance", "code", "message"}


def _classes_below(cls: type[FsnError]) -> Iterator[type[FsnError]]:
    for below in cls.__subclasses__():
        yield below
        yield from _classes_below(below)


def _class_of(code: str | None, status: int) -> type[FsnError]:
    """The class whose own code this is, else the one that the status stands for."""
    # Built on each error, not once: errors are rare, and a module imported later may add classes of its own.
    by_code = {cls.code: cls for cls in _classes_below(FsnError)} | {FsnError.code: FsnError, Corrupt.code: Corrupt}
    if code is not None and code in by_code:
        return by_code[code]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Refused if 400 <= status < 500 else FsnError


def _retry_after_seconds(header: str | None) -> float | None:
    """RFC 9110 section 10.2.3: seconds, or a date."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header.strip())
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _problem_document(response: httpx.Response) -> Mapping[str, object]:
    """The body as a problem document; empty when it is none (a proxy's HTML page, say)."""
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def error_of_problem(response: httpx.Response) -> FsnError:
    """The error that a response (its body read) tells of, `code`, message and extra members (`facts`) kept.

    `facts` also holds `status`, and `retry_after_seconds` when the server sent Retry-After.
    """
    problem = _problem_document(response)
    code = problem.get("code")
    code = code if isinstance(code, str) else None
    cls = _class_of(code, response.status_code)
    message = str(problem.get("detail") or problem.get("title") or _without_problem(response))
    facts: dict[str, object] = {k: v for k, v in problem.items() if k not in _MEMBERS_OF_RFC_9457}
    facts["status"] = response.status_code
    seconds = _retry_after_seconds(response.headers.get("Retry-After"))
    if seconds is not None:
        facts["retry_after_seconds"] = seconds
    return _rebuilt(cls, message, code, facts)


def _without_problem(response: httpx.Response) -> str:
    return f"the server answered {response.status_code} {response.reason_phrase} without saying why"


def _rebuilt(cls: type[FsnError], message: str, code: str | None, facts: dict[str, object]) -> FsnError:
    """An error as the server raised it. Its constructor is passed by: some make the message from facts that we may not have."""
    error = cls.__new__(cls)
    FsnError.__init__(error, message)
    error.facts = facts
    if code is not None:
        error.code = code  # type: ignore[misc]  # as FsnError itself does for a finer code
    if isinstance(error, PeerRefused):
        error.refusal = str(facts.get("refusal", ""))
    return error


def _reason(error: BaseException) -> str:
    """What it says, or what brought it about: httpx's errors over TLS say nothing themselves."""
    cause: BaseException | None = error
    while cause is not None:
        if text := str(cause):
            return text
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


@contextmanager
def http_errors(url: str) -> Iterator[None]:
    """httpx's exceptions inside the block leave it as ours: PeerTimeout, Unreachable, Invalid (a URL that is none)."""
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise PeerTimeout(f"{url} did not take the connection in time; is the coordinator's address right?") from error
    except httpx.TimeoutException as error:
        raise PeerTimeout(f"{url} did not answer in time ({type(error).__name__})") from error
    except httpx.ConnectError as error:
        raise Unreachable(f"cannot connect to {url}: {_reason(error)}; does the coordinator run there?") from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise Invalid(f"a URL like http://localhost:8080 is wanted; got {url!r}: {error}") from error
    except httpx.LocalProtocolError as error:
        raise Invalid(f"the request cannot be sent: {error}") from error
    except httpx.DecodingError as error:
        raise ProtocolViolation(f"{url} sent a body that cannot be decoded: {error}") from error
    except httpx.TransportError as error:
        raise Unreachable(f"the connection to {url} broke: {_reason(error)}") from error
