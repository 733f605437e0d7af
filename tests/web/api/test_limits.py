"""Rates and transfers at once, over HTTP: who asks too much gets 429, and nobody else does."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import trio

from fsn.coord.database.pool import Pool
from fsn.web.config import LimitsConfig
from tests.coord.network import CONFIG, open_network
from tests.web.api.conftest import Api, open_api
from tests.web.api.test_bad_input import check_problem

LOGIN = "/api/v1/auth/login"
REGISTER = "/api/v1/auth/register"


@asynccontextmanager
async def open_limited(pool: Pool, limits: LimitsConfig, trusted_proxies: tuple[str, ...] = ()) -> AsyncIterator[Api]:
    """The API with these limits."""
    async with open_network(pool, CONFIG, nodes=4) as network, open_api(network, limits, trusted_proxies) as api:
        yield api


def credentials(email: str, password: str = "secret1") -> dict[str, str]:
    return {"email": email, "password": password}


def check_limited(response: httpx.Response, code: str = "rate_limited") -> float:
    """It is a 429 that says when to come back; the seconds."""
    problem = check_problem(response, 429, code)
    assert int(response.headers["Retry-After"]) >= 1
    seconds = problem["retry_after_seconds"]
    assert isinstance(seconds, int | float)
    assert float(response.headers["Retry-After"]) >= seconds
    return seconds


async def test_an_account_bears_few_wrong_passwords(pool: Pool) -> None:
    """Wrong passwords, whatever the address's case, use up an account's tries, then the right one waits too; other accounts do not."""
    async with open_limited(pool, LimitsConfig(failed_logins_per_minute=3)) as api:
        for email in ("ann@example.com", "bob@example.com"):
            await api.http.post(REGISTER, json=credentials(email))
        for email in ("ann@example.com", "ANN@example.com", "ann@Example.com"):
            check_problem(await api.http.post(LOGIN, json=credentials(email, "wrong-1")), 401, "wrong_credentials")
        assert check_limited(await api.http.post(LOGIN, json=credentials("ann@example.com"))) > 10
        assert (await api.http.post(LOGIN, json=credentials("bob@example.com"))).status_code == 200


async def test_an_account_that_is_none_is_limited_alike(pool: Pool) -> None:
    """Nobody learns from the limit which addresses have accounts."""
    async with open_limited(pool, LimitsConfig(failed_logins_per_minute=2)) as api:
        answers = [await api.http.post(LOGIN, json=credentials("nobody@example.com")) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [401, 401, 429]


async def test_right_passwords_cost_the_account_nothing(pool: Pool) -> None:
    """Who logs in again and again with the right password is limited by address only."""
    async with open_limited(pool, LimitsConfig(failed_logins_per_minute=1, logins_per_minute=5)) as api:
        await api.http.post(REGISTER, json=credentials("ann@example.com"))
        answers = [await api.http.post(LOGIN, json=credentials("ann@example.com")) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]


async def test_one_address_makes_few_accounts(pool: Pool) -> None:
    """Registrations from one address run out; behind a trusted proxy each client has its own, an IPv6 network being one client."""
    async with open_limited(pool, LimitsConfig(registrations_per_hour=1), trusted_proxies=("127.0.0.1",)) as api:
        for number, (address, status) in enumerate(
            [
                ("192.0.2.1", 201),
                ("192.0.2.1", 429),
                ("198.51.100.1, 192.0.2.1", 429),
                ("192.0.2.2", 201),
                ("2001:db8::1", 201),
                ("2001:db8::2", 429),
                ("2001:db8:0:1::1", 201),
            ]
        ):
            headers = {"X-Forwarded-For": address}
            response = await api.http.post(REGISTER, json=credentials(f"u{number}@example.com"), headers=headers)
            assert response.status_code == status, (number, response.text)


async def test_a_header_from_anybody_is_no_other_address(pool: Pool) -> None:
    """Without trusted proxies X-Forwarded-For changes nothing."""
    async with open_limited(pool, LimitsConfig(registrations_per_hour=1)) as api:
        for number, status in enumerate([201, 429]):
            headers = {"X-Forwarded-For": f"192.0.2.{number}"}
            response = await api.http.post(REGISTER, json=credentials(f"u{number}@example.com"), headers=headers)
            assert response.status_code == status


async def test_requests_are_counted_for_users_and_for_addresses(pool: Pool) -> None:
    """A user's requests run out for that user alone; without a good token, or on no operation at all, the address's do."""
    async with open_limited(pool, LimitsConfig(requests_per_second=0.5)) as api:  # five at once
        ann, bob = [await api.user(f"{name}@example.com") for name in ("ann", "bob")]  # four requests of the address
        statuses = [(await ann.get("/api/v1/auth/me")).status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        assert (await bob.get("/api/v1/auth/me")).status_code == 200
        forged = {"Authorization": "Bearer forged"}
        assert (await api.http.get("/api/v1/auth/me", headers=forged)).status_code == 401
        check_limited(await api.http.get("/api/v1/auth/me", headers=forged))
        check_limited(await api.http.get("/api/v1/balance", headers={"X-API-Key": "forged"}))
        check_limited(await api.http.get("/nothing/here"))
        check_limited(await api.http.get("/health"))
        assert (await bob.get("/api/v1/auth/me")).status_code == 200


async def test_a_refused_upload_is_answered_before_its_body(pool: Pool) -> None:
    """A large body that comes with a request too many is not taken, and the client reads the refusal."""
    async with open_limited(pool, LimitsConfig(requests_per_second=0.2)) as api:
        user = await api.user()
        for _ in range(2):
            assert (await user.get("/api/v1/auth/me")).status_code == 200
        check_limited(await user.put("/api/v1/files?filename=f", content=bytes(3 << 20)))


async def test_uploads_at_once_are_bounded_for_a_user(pool: Pool) -> None:
    """While as many bodies as allowed are under way, another is refused at once; when one ends, also by breaking off, the next is taken."""
    async with open_limited(pool, LimitsConfig(uploads_at_once=1)) as api:
        ann, bob = await api.user(), await api.user("bob@example.com")
        begun = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_put_without_end, ann, begun)
            await begun.wait()
            refused = await ann.put("/api/v1/files?filename=g", content=b"g")
            check_limited(refused, "too_many_transfers")
            assert (await bob.put("/api/v1/files?filename=g", content=b"g")).status_code == 201
            assert (await ann.get("/api/v1/files")).status_code == 200
            nursery.cancel_scope.cancel()
        assert (await _once_free(partial(ann.put, "/api/v1/files?filename=g", content=b"g"))).status_code == 201


async def test_downloads_at_once_are_bounded_for_a_user(pool: Pool) -> None:
    """A download holds its slot until its client has all of it, or is gone."""
    async with open_limited(pool, LimitsConfig(downloads_at_once=1)) as api:
        user = await api.user()
        content = bytes(12 << 20)  # more than the kernel's buffers take
        file = (await user.put("/api/v1/files?filename=f", content=content)).json()
        path = f"/api/v1/files/{file['id']}/download"
        async with user.stream("GET", path) as response:
            assert response.status_code == 200
            check_limited(await user.get(path), "too_many_transfers")
        for _ in range(2):
            assert (await _once_free(partial(user.get, path))).content == content


async def test_the_defaults_let_a_lively_user_work(api: Api) -> None:
    """Eight uploads at once and two hundred requests in a row are far from any limit."""
    user = await api.user()
    statuses: list[int] = []

    async def put(lane: int) -> None:
        for number in range(5):
            response = await user.put(f"/api/v1/files?filename={lane}-{number}", content=b"x")
            statuses.append(response.status_code)

    async with trio.open_nursery() as nursery:
        for lane in range(8):
            nursery.start_soon(put, lane)
    for _ in range(160):
        statuses.append((await user.get("/api/v1/files?limit=1")).status_code)
    assert set(statuses) == {200, 201}


async def _once_free(ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """The first answer that is no 429: the server hears of a departure a moment later."""
    for _ in range(500):
        response = await ask()
        if response.status_code != 429:
            return response
        await trio.sleep(0.01)
    raise TimeoutError("429 for five seconds")


async def _put_without_end(user: httpx.AsyncClient, begun: trio.Event) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        begun.set()
        await trio.sleep_forever()

    await user.put("/api/v1/files?filename=f", content=pieces())
