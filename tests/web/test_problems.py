"""Errors as problem documents: the whole tree, Quart's own refusals, and bugs."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
from quart.typing import TestClientProtocol as Client
from structlog.testing import capture_logs

from fsn.core import errors
from fsn.core.errors import FsnError
from fsn.web.problems import install_problems, status_of
from fsn.web.quart_front import FrontQuart

EXPECTED = {
    "Refused": 400,
    "Invalid": 400,
    "Unauthorized": 401,
    "InsufficientCredits": 402,
    "Forbidden": 403,
    "NotFound": 404,
    "Conflict": 409,
    "TooLarge": 413,
    "QuotaExceeded": 429,
    "RateLimited": 429,
    "StorageError": 500,
    "Corrupt": 500,
    "ConfigError": 500,
    "PeerError": 502,
    "PeerRefused": 502,
    "ProtocolViolation": 502,
    "Unreachable": 503,
    "PeerTimeout": 503,
    "Unavailable": 503,
    "TooFewNodes": 503,
    "TooFewCopies": 503,
    "DiskFull": 507,
}


def tree(root: type[FsnError]) -> Iterator[type[FsnError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from tree(kind)


def make(kind: type[FsnError]) -> FsnError:
    if kind is errors.TooFewNodes:
        return errors.TooFewNodes(wanted=3, found=1)
    return kind("what was wanted, and found", wanted=3, found=1)


def test_every_error_has_its_own_row() -> None:
    """The table names every class of the tree, so that a new one is not answered by accident."""
    assert {kind.__name__: int(status_of(kind)) for kind in tree(FsnError)} == EXPECTED


def test_an_error_defined_elsewhere_has_its_ancestors_status() -> None:
    """A subclass outside the tree is answered as what it is a kind of."""

    class SlotTaken(errors.Conflict):
        code = "slot_taken"

    assert status_of(SlotTaken("x")) == 409


@pytest.fixture
def app() -> FrontQuart:
    app = FrontQuart("test")
    install_problems(app)

    @app.get("/bug")
    async def bug() -> str:
        raise ZeroDivisionError("secret detail")

    @app.post("/only-post/")
    async def only_post() -> str:
        return ""

    return app


async def get(client: Client, path: str) -> tuple[Any, dict[str, Any]]:
    response = await client.get(path)
    return response, msgspec.json.decode(await response.get_data(as_text=False))


@pytest.mark.parametrize("kind", list(tree(FsnError)), ids=lambda kind: kind.__name__)
async def test_an_error_is_answered_with_code_detail_and_facts(app: FrontQuart, kind: type[FsnError]) -> None:
    """Each error becomes problem+json with its status, code and facts; transient ones say when to come back."""

    @app.get("/raise")
    async def raise_it() -> str:
        raise make(kind)

    response, problem = await get(app.test_client(), "/raise")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.status_code == problem["status"] == EXPECTED[kind.__name__]
    assert (problem["code"], problem["wanted"], problem["found"]) == (kind.code, 3, 1)
    assert problem["detail"]
    assert ("Retry-After" in response.headers) is kind.transient
    assert response.headers.get("WWW-Authenticate") == ("Bearer" if kind is errors.Unauthorized else None)


@pytest.mark.parametrize("kind", [errors.StorageError, *tree(errors.StorageError)], ids=lambda kind: kind.__name__)
async def test_what_a_store_says_is_for_the_log(app: FrontQuart, kind: type[FsnError]) -> None:
    """Messages of the database and of disks name sockets, folders and accounts: the operator reads them, a stranger does not."""

    @app.get("/raise")
    async def raise_it() -> str:
        raise kind('connection to server on socket "/srv/fsn/.s.PGSQL.5432" failed')

    with capture_logs() as logs:
        _, problem = await get(app.test_client(), "/raise")
    assert "/srv" not in str(problem)
    assert [(entry["event"], "/srv" in entry["reason"]) for entry in logs] == [("http_store_failed", True)]


async def test_facts_never_replace_members_and_need_no_encoding(app: FrontQuart) -> None:
    """A fact named like a standard member loses, any value becomes JSON, seconds are rounded up, and a finer code is the one answered."""

    @app.get("/raise")
    async def raise_it() -> str:
        raise errors.QuotaExceeded(
            "no", code="slow_down", status=200, retry_after_seconds=2.2, file=UUID(int=1), odd={1j}
        )

    response, problem = await get(app.test_client(), "/raise")
    assert (problem["status"], problem["code"], problem["title"]) == (429, "slow_down", "Slow down")
    assert problem["file"] == str(UUID(int=1))
    assert response.headers["Retry-After"] == "3"


async def test_an_error_out_of_a_nursery_is_answered_as_itself(app: FrontQuart) -> None:
    """An ExceptionGroup that holds one of our errors, however deep, is that error."""

    @app.get("/raise")
    async def raise_it() -> str:
        raise ExceptionGroup("nursery", [ExceptionGroup("inner", [errors.DiskFull("full")])])

    response, problem = await get(app.test_client(), "/raise")
    assert (response.status_code, problem["code"]) == (507, "disk_full")


async def test_quarts_own_refusals_have_the_same_shape(app: FrontQuart) -> None:
    """Unknown paths, which are named, and methods are problems too; 405 says what is allowed; a redirect stays one."""
    client = app.test_client()
    response, problem = await get(client, "/nowhere")
    assert (response.status_code, problem["code"]) == (404, "not_found")
    assert "/nowhere" in problem["detail"]
    response, problem = await get(client, "/only-post/")
    assert (response.status_code, problem["code"]) == (405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}
    assert (await client.post("/only-post")).status_code == 308


async def test_a_bug_is_internal_and_tells_nothing(app: FrontQuart) -> None:
    """An unexpected exception is 500 `internal`; its traceback is logged and not answered."""
    with capture_logs() as logs:
        response, problem = await get(app.test_client(), "/bug")
    assert (response.status_code, problem["code"]) == (500, "internal")
    assert "secret" not in str(problem)
    assert [(entry["event"], entry["exc_info"][0]) for entry in logs] == [("http_handler_failed", ZeroDivisionError)]
