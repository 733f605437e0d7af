"""Errors as HTTP answers: RFC 9457 problem details, with one table from our error tree to statuses."""

import math
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
import structlog
from quart import Quart, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from fsn.core import errors
from fsn.core.errors import FsnError

__all__ = ["PROBLEM_TYPE", "REQUEST_ID_KEY", "Problem", "install_problems", "problem_response", "status_of"]

log = structlog.get_logger()

PROBLEM_TYPE = "application/problem+json"
REQUEST_ID_KEY = "fsn.request_id"
"""Where fsn.web.middleware leaves the request's id in the ASGI scope."""
RETRY_AFTER_SECONDS = 5
"""Said with transient errors that do not bring a `retry_after_seconds` fact: nodes and databases come back within seconds or not soon."""

_STATUS: dict[type[FsnError], HTTPStatus] = {
    FsnError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.Refused: HTTPStatus.BAD_REQUEST,
    errors.Invalid: HTTPStatus.BAD_REQUEST,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.InsufficientCredits: HTTPStatus.PAYMENT_REQUIRED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.QuotaExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.PeerError: HTTPStatus.BAD_GATEWAY,
    errors.PeerRefused: HTTPStatus.BAD_GATEWAY,
    errors.ProtocolViolation: HTTPStatus.BAD_GATEWAY,
    errors.Unreachable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PeerTimeout: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DiskFull: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.Corrupt: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.TooFewNodes: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TooFewCopies: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ConfigError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_CODES = {400: "invalid", 413: "too_large", 404: "not_found", 500: "internal"}
"""Codes of what Quart itself refuses; other statuses are named by their phrase, e.g. method_not_allowed."""


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """RFC 9457 problem details. An error's facts are further members beside these."""

    type: str
    title: str
    status: int
    detail: str = ""
    code: str
    """Stable and documented; programs decide by this."""
    request_id: str = ""


def status_of(error: FsnError | type[FsnError]) -> HTTPStatus:
    """The status for `error`; a class that the table does not know has its nearest ancestor's."""
    kind = error if isinstance(error, type) else type(error)
    return next(_STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in _STATUS)


def problem_response(
    status: int,
    code: str,
    detail: str,
    *,
    facts: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document for the request at hand. `facts` are JSON-ready extra members; they never replace the standard ones."""
    problem = Problem(
        type=f"urn:fsn:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=int(status),
        detail=detail,
        code=code,
        request_id=str(request.scope.get(REQUEST_ID_KEY, "")),
    )
    body = msgspec.json.encode({**(facts or {}), **msgspec.to_builtins(problem)}, enc_hook=str)
    response = Response(body, int(status), content_type=PROBLEM_TYPE)
    response.headers.update(dict(headers or {}))
    return response


def install_problems(app: Quart) -> None:
    """Let `app` answer every error as a problem document: ours, Quart's own (404, 405, 413, ...), and bugs (500 `internal`).

    A bug's traceback, and what a store of ours says, go to the log and never into the answer.
    """
    app.register_error_handler(FsnError, _answer_error)
    app.register_error_handler(HTTPException, _answer_http_exception)


async def _answer_error(error: Exception) -> Response:
    assert isinstance(error, FsnError)
    detail = _told(error) if isinstance(error, errors.StorageError) else error.message
    return problem_response(status_of(error), error.code, detail, facts=error.facts, headers=_headers(error))


def _told(error: errors.StorageError) -> str:
    """A store's own words name our folders, hosts and accounts: they are for the operator."""
    log.warning("http_store_failed", code=error.code, reason=error.message)
    if error.transient:
        return "a service behind this is not available at the moment; try again a little later"
    return "the store behind this failed; the request id finds the reason in the log"


def _headers(error: FsnError) -> dict[str, str]:
    headers = {}
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    retry_after = error.facts.get("retry_after_seconds", RETRY_AFTER_SECONDS if error.transient else None)
    if isinstance(retry_after, int | float):
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    return headers


async def _answer_http_exception(error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.code or 500
    if 300 <= status < 400:  # werkzeug's redirect to the canonical path
        return Response("", status, {"Location": error.get_response().headers["Location"]})
    code = _CODES.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    detail = "something went wrong here; the request id finds it in the log" if status == 500 else _detail(error)
    return problem_response(status, code, detail, headers=_kept_headers(error))


def _detail(error: HTTPException) -> str:
    if isinstance(error, MethodNotAllowed):
        return f"{request.method} is not possible here; {', '.join(sorted(error.valid_methods or ()))} is"
    if isinstance(error, NotFound):
        return f"there is no {request.path} here"
    return error.description or error.name


def _kept_headers(error: HTTPException) -> dict[str, str]:
    if isinstance(error, MethodNotAllowed):
        return {"Allow": ", ".join(sorted(error.valid_methods or ()))}
    return {name: value for name, value in error.get_headers() if name not in ("Content-Type", "Content-Length")}
