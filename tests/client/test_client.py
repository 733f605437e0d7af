"""Accounts, lists and errors of the client, against a small server on loopback."""

from collections.abc import Iterator
from decimal import Decimal
from uuid import UUID, uuid4

import httpx
import pytest
import trio

from fsn.client import Client, Retrying, Timeouts
from fsn.client.problems import error_of_problem
from fsn.core import errors
from fsn.core.ids import FileId
from tests.client.fake_coordinator import FakeCoordinator


async def test_login_keeps_the_token(coordinator: FakeCoordinator) -> None:
    """After a login the client is the user; what it does not know in an answer is ignored."""
    async with Client(coordinator.url) as client:
        with pytest.raises(errors.Unauthorized):
            await client.me()
        session = await client.login("ann@example.com", "test123")
        assert session.token == "t0k3n"
        assert session.expires_at.utcoffset() is not None
        assert "t0k3n" not in repr(session)
        assert (await client.me()).credits == Decimal("1000.00")


async def test_wrong_password(client: Client) -> None:
    """A wrong password is Unauthorized with the server's words."""
    with pytest.raises(errors.Unauthorized, match="unknown email or password"):
        await client.login("ann@example.com", "wrong!")


async def test_lists_are_paged(client: Client, coordinator: FakeCoordinator) -> None:
    """The iterator follows the cursor to the last page, and may be left early."""
    for number in range(5):
        coordinator.add(b"x", f"{number}.txt")
    assert [file.filename async for file in client.files(page_size=2)] == [f"{n}.txt" for n in range(5)]
    async for file in client.files(page_size=2):
        assert file.filename == "0.txt"
        break
    nodes = [node async for node in client.nodes()]
    assert [node.status for node in nodes] == ["online"]
    (found,) = await client.proof_rounds(nodes[0].id)
    assert (found.round, found.passed, found.missed, found.judged_at) == (7, 4, 1, None)


async def test_money(client: Client) -> None:
    """Credits are exact decimals."""
    assert (await client.balance()).balance == Decimal(1000)
    assert (await client.quote(10**9)).cost == Decimal("4.5")


async def test_busy_server_is_asked_again(client: Client, coordinator: FakeCoordinator) -> None:
    """A 503 with Retry-After is waited out, within the client's own limit."""
    for _ in range(3):
        coordinator.problems.append((503, {"code": "unavailable", "detail": "database"}, {"Retry-After": "3600"}))
    assert (await client.balance()).balance == 1000
    assert len(coordinator.requests) == 4


async def test_retries_are_bounded(client: Client, coordinator: FakeCoordinator) -> None:
    """When the attempts are used up the last error comes out."""
    for number in range(9):
        coordinator.problems.append((503, {"code": "unavailable", "detail": f"try {number}"}, {}))
    with pytest.raises(errors.Unavailable, match="try 3"):
        await client.balance()


async def test_what_cannot_be_repeated_is_sent_once(client: Client, coordinator: FakeCoordinator) -> None:
    """Registering is not repeated: the first try may have worked."""
    coordinator.lose_answers = 1
    with pytest.raises(errors.Unreachable):
        await client.register("ann@example.com", "test123")
    assert len(coordinator.requests) == 1


async def test_refusals_are_not_repeated(client: Client, coordinator: FakeCoordinator) -> None:
    """A refusal stays one however often it is asked."""
    with pytest.raises(errors.NotFound):
        await client.file(FileId(uuid4()))
    assert len(coordinator.requests) == 1


async def test_delete_with_a_lost_answer(client: Client, coordinator: FakeCoordinator) -> None:
    """A second try that finds the file gone is a success; a first one is not."""
    file = FileId(UUID(coordinator.add(b"x").id))
    coordinator.lose_answers = 1
    await client.delete(file)
    with pytest.raises(errors.NotFound):
        await client.delete(file)


async def test_nobody_listens(coordinator: FakeCoordinator) -> None:
    """A coordinator that does not run is Unreachable, and the message names it."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with Client(f"http://127.0.0.1:{port}", retrying=Retrying(attempts=1)) as client:
        with pytest.raises(errors.Unreachable, match=f"127.0.0.1:{port}"):
            await client.me()


async def test_silent_server() -> None:
    """A server that takes the connection and says nothing is a PeerTimeout."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(5):
        timeouts = Timeouts(answer_seconds=0.05)
        async with Client(f"http://127.0.0.1:{port}", retrying=Retrying(attempts=1), timeouts=timeouts) as client:
            with pytest.raises(errors.PeerTimeout):
                await client.me()
    await listeners[0].aclose()


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http:///x"])
def test_url_that_is_none(url: str) -> None:
    """A URL without scheme or host is refused at once."""
    with pytest.raises(errors.Invalid, match="http://localhost:8080"):
        Client(url)


async def test_not_a_coordinator(client: Client, coordinator: FakeCoordinator) -> None:
    """An answer of another shape is a ProtocolViolation that says what is missing."""
    coordinator.problems.append((200, {"hello": 1}, {}))
    with pytest.raises(errors.ProtocolViolation, match="email"):
        await client.me()
    coordinator.problems.append((200, {"files": "none"}, {}))
    with pytest.raises(errors.ProtocolViolation):
        await anext(aiter(client.files()))


def _all_errors(cls: type[errors.FsnError] = errors.FsnError) -> Iterator[type[errors.FsnError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _all_errors(below)


@pytest.mark.parametrize("cls", list(_all_errors()))
def test_every_code_comes_back_as_its_class(cls: type[errors.FsnError]) -> None:
    """The server's error is raised again as what it was, with message and facts."""
    problem = {"code": cls.code, "detail": "why", "status": 400, "wanted": 3, "request_id": "r"}
    error = error_of_problem(httpx.Response(400, json=problem))
    assert type(error).code == cls.code
    assert isinstance(error, cls)
    assert str(error) == error.message == "why"
    assert error.facts["wanted"] == 3


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (302, errors.FsnError),
        (400, errors.Invalid),
        (402, errors.InsufficientCredits),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (418, errors.Refused),
        (429, errors.QuotaExceeded),
        (500, errors.FsnError),
        (502, errors.PeerError),
        (503, errors.Unavailable),
        (507, errors.DiskFull),
    ],
)
def test_status_decides_without_a_known_code(status: int, cls: type[errors.FsnError]) -> None:
    """A finer code keeps its own name under the status's class; a page of HTML still is an error."""
    fine = error_of_problem(httpx.Response(status, json={"code": "email_taken", "detail": "why"}))
    assert type(fine) is cls
    assert fine.code == "email_taken"
    assert type(error_of_problem(httpx.Response(status, html="<h1>no</h1>"))) is cls


def test_retry_after_may_be_a_date() -> None:
    """Both spellings of Retry-After become seconds; nonsense is ignored."""
    past = {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert error_of_problem(httpx.Response(503, headers=past)).facts["retry_after_seconds"] == 0
    assert error_of_problem(httpx.Response(503, headers={"Retry-After": "7"})).facts["retry_after_seconds"] == 7
    assert "retry_after_seconds" not in error_of_problem(httpx.Response(503, headers={"Retry-After": "soon"})).facts


async def test_tls_with_a_server_that_speaks_none_is_told(coordinator: FakeCoordinator) -> None:
    """https where http is spoken: the error says what TLS found."""
    with trio.fail_after(10), pytest.raises(errors.Unreachable, match=r"cannot connect to https://\S+: .*SSL"):
        async with Client(coordinator.url.replace("http:", "https:"), retrying=Retrying(attempts=1)) as client:
            await client.me()
