"""Users: who they are, what they know, and what a stranger cannot learn or forge."""

import base64
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import attrs
import jwt
import pytest
import trio

from fsn.coord.accounts import Accounts
from fsn.coord.config import AccountsConfig, CreditsConfig
from fsn.coord.database.pool import Pool
from fsn.core.errors import Conflict, Invalid, Unauthorized
from fsn.core.ids import UserId

KEY = b"k" * 32
START = datetime(2030, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
TEST_SECONDS = 20


@attrs.define
class HandClock:
    """Shows what the test says."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> HandClock:
    """A clock moved by hand."""
    return HandClock()


def accounts_with(pool: Pool, clock: HandClock, *, grant: str = "100", key: bytes = KEY, cost: int = 4) -> Accounts:
    """Accounts over `pool`, with cheap hashes."""
    return Accounts(
        pool,
        clock=clock,
        token_key=key,
        random_bytes=lambda count: uuid4().bytes[:count],
        config=AccountsConfig(bcrypt_cost=cost, token_hours=24),
        credits=CreditsConfig(welcome_grant=grant),
    )


@pytest.fixture
def accounts(pool: Pool, clock: HandClock) -> Accounts:
    """Accounts as they come."""
    return accounts_with(pool, clock)


async def test_who_registers_can_log_in_and_is_recognised(accounts: Accounts) -> None:
    """The token names the user; the password stands in no repr and not in the clear in the database."""
    with trio.fail_after(TEST_SECONDS):
        account = await accounts.register("ann@example.com", "test123")
        login = await accounts.login("ann@example.com", "test123")
        assert accounts.authenticate(login.token) == account.user.id
        assert (await accounts.account(account.user.id)).user.email == "ann@example.com"
        assert "test123" not in account.user.password_hash
        assert login.expires_at == START.replace(microsecond=0) + timedelta(hours=24)


async def test_an_email_is_taken_in_whatever_case(accounts: Accounts) -> None:
    """One account for one address; logging in minds no case either; the address shows as it was typed first."""
    with trio.fail_after(TEST_SECONDS):
        await accounts.register("Ann@Example.com", "secret1")
        with pytest.raises(Conflict) as caught:
            await accounts.register("aNN@example.COM", "secret2")
        assert caught.value.code == "email_taken"
        login = await accounts.login("ann@EXAMPLE.com", "secret1")
        assert login.account.user.email == "Ann@Example.com"


async def test_of_two_who_register_at_once_one_wins(accounts: Accounts, pool: Pool) -> None:
    """The other gets the conflict, and no second grant is booked."""
    outcomes: list[str] = []

    async def register() -> None:
        try:
            await accounts.register("ann@example.com", "secret1")
            outcomes.append("registered")
        except Conflict as error:
            outcomes.append(error.code)

    with trio.fail_after(TEST_SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(register)
        assert sorted(outcomes) == ["email_taken"] * 3 + ["registered"]
        assert await pool.fetch_one("select count(*) from ledger_tx") == (1,)


async def test_the_welcome_grant_is_booked_once_and_the_books_balance(accounts: Accounts, pool: Pool) -> None:
    """What the user gets the system gives: all entries sum to zero, and the balance is what the entries say."""
    with trio.fail_after(TEST_SECONDS):
        account = await accounts.register("ann@example.com", "secret1")
        await accounts.login("ann@example.com", "secret1")
        assert account.balance == 100_000_000
        assert (await accounts.account(account.user.id)).balance == 100_000_000
        assert await pool.fetch_one("select sum(amount), count(*) from ledger_entry") == (0, 2)
        assert await pool.fetch_one("select kind, ref from ledger_tx") == ("grant", f"welcome:{account.user.id}")


async def test_without_a_grant_nothing_is_booked(pool: Pool, clock: HandClock) -> None:
    """A user may start with nothing; the account is there."""
    with trio.fail_after(TEST_SECONDS):
        account = await accounts_with(pool, clock, grant="0").register("ann@example.com", "secret1")
        assert (await accounts_with(pool, clock).account(account.user.id)).balance == 0
        assert await pool.fetch_one("select count(*) from ledger_tx") == (0,)
        assert await pool.fetch_one("select count(*) from ledger_account where kind = 'user'") == (1,)


@pytest.mark.parametrize("password", ["x" * 72, "ü" * 36, "pass word with blanks", "\U0001f600" * 6])
async def test_long_and_foreign_passwords_count_to_the_last_byte(accounts: Accounts, password: str) -> None:
    """Up to 72 bytes; the last one matters."""
    with trio.fail_after(TEST_SECONDS):
        await accounts.register("ann@example.com", password)
        await accounts.login("ann@example.com", password)
        with pytest.raises(Unauthorized):
            await accounts.login("ann@example.com", password[:-1] + "y")


@pytest.mark.parametrize("password", ["short", "x" * 73, "ü" * 37, "nul\0inside", "\ud800" * 6])
async def test_a_password_that_cannot_be_kept_is_refused(accounts: Accounts, pool: Pool, password: str) -> None:
    """Too short, too long for bcrypt (bytes, not characters), or no text: refused before anything is written."""
    with trio.fail_after(TEST_SECONDS):
        with pytest.raises(Invalid):
            await accounts.register("ann@example.com", password)
        assert await pool.fetch_one("select count(*) from users") == (0,)


@pytest.mark.parametrize(
    "email", ["", "ann", "@example.com", "a b@example.com", "a@b\0", "a@b\n", "\ud800@b", "x" * 65 + "@b"]
)
async def test_what_is_no_address_is_refused(accounts: Accounts, email: str) -> None:
    """At registration it is told what is wanted."""
    with trio.fail_after(TEST_SECONDS), pytest.raises(Invalid):
        await accounts.register(email, "secret1")


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ann@example.com", "secret2"),
        ("bob@example.com", "secret1"),
        ("ann@example.com", ""),
        ("ann@example.com", "secret1\0"),
        ("ann@example.com", "x" * 100_000),
        ("ann@example.com", "\ud800"),
        ("ann@example.com\0", "secret1"),
        ("\ud800", "secret1"),
        ("", "secret1"),
        ("x" * 100_000, "secret1"),
    ],
)
async def test_a_wrong_login_tells_nothing(accounts: Accounts, email: str, password: str) -> None:
    """Unknown address or wrong password, possible or impossible: the same words."""
    with trio.fail_after(TEST_SECONDS):
        await accounts.register("ann@example.com", "secret1")
        with pytest.raises(Unauthorized) as caught:
            await accounts.login(email, password)
        assert caught.value.message == "the email or the password is wrong"
        assert caught.value.code == "wrong_credentials"


async def test_a_login_takes_the_same_work_whoever_it_is(pool: Pool, clock: HandClock) -> None:
    """One comparison of the cost that real passwords have (CPU time, not the clock's), in a thread that keeps nobody waiting."""
    accounts = accounts_with(pool, clock, cost=11)  # some 60 ms of CPU; everything else in a login takes 2 ms
    spent, turns = [], 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.sleep(0.001)
            turns += 1

    with trio.fail_after(TEST_SECONDS):
        await accounts.register("ann@example.com", "secret1")
        for email in ("ann@example.com", "unknown@example.com", "no address"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count_turns)
                before = time.process_time()
                with pytest.raises(Unauthorized):
                    await accounts.login(email, "wrong-password")
                spent.append(time.process_time() - before)
                nursery.cancel_scope.cancel()
    assert min(spent) > 0.02
    assert turns >= 3


async def test_a_token_ends_with_its_time(accounts: Accounts, clock: HandClock) -> None:
    """Good until the second that it names, not after."""
    with trio.fail_after(TEST_SECONDS):
        await accounts.register("ann@example.com", "secret1")
        login = await accounts.login("ann@example.com", "secret1")
        clock.now = login.expires_at - timedelta(seconds=1)
        accounts.authenticate(login.token)
        clock.now = login.expires_at
        with pytest.raises(Unauthorized) as caught:
            accounts.authenticate(login.token)
        assert caught.value.code == "token_expired"


async def test_a_clock_that_jumps_does_not_lock_users_out(accounts: Accounts, clock: HandClock) -> None:
    """A token from the future is good after the clock was set back, as after it was set forward within its time."""
    with trio.fail_after(TEST_SECONDS):
        await accounts.register("ann@example.com", "secret1")
        login = await accounts.login("ann@example.com", "secret1")
        for jump in (timedelta(days=-400), timedelta(hours=23)):
            clock.now = START + jump
            accounts.authenticate(login.token)


GOOD = {"iss": "fsn", "sub": str(UUID(int=1)), "exp": int(START.timestamp()) + 1000}


def forged(claims: dict[str, Any] | None = None, key: bytes = KEY) -> str:
    """A token with claims of the attacker's choice."""
    return jwt.encode({**GOOD, **(claims or {})}, key, algorithm="HS256")


def without(claim: str) -> str:
    """A well signed token that lacks a claim."""
    return jwt.encode({name: value for name, value in GOOD.items() if name != claim}, KEY, algorithm="HS256")


def by_hand(header: object, claims: object, digest: str | None = None) -> str:
    """A token put together without a library, unsigned or signed with our key by another algorithm."""
    head = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
    return f"{head}.{_base64(hmac.digest(KEY, head.encode(), digest)) if digest else ''}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "token",
    [
        forged(key=b"x" * 32),
        by_hand({"alg": "HS512"}, GOOD, "sha512"),
        forged({"iss": "somebody"}),
        forged({"sub": "not a uuid"}),
        forged({"exp": str(int(START.timestamp()) + 1000)}),
        forged({"exp": START.timestamp() + 0.5}),
        without("iss"),
        without("sub"),
        without("exp"),
        by_hand({"alg": "none", "typ": "JWT"}, GOOD),
        by_hand({"alg": "None"}, GOOD),
        by_hand({"alg": "HS256"}, GOOD),
        by_hand([], GOOD),
        "",
        ".",
        "a.b.c",
        "\ud800.\ud800.\ud800",
        "é.é.é",
        "a" * 100_000,
        base64.urlsafe_b64encode(b"[" * 90_000).decode() + ".e30.e30",
        base64.urlsafe_b64encode(b"[" * 760).decode() + ".e30.e30",
        forged()[:-4] + "AAAA",
    ],
    ids=lambda token: ascii(token[:24]),
)
async def test_a_token_that_is_not_ours_is_refused(accounts: Accounts, token: str) -> None:
    """Another key, algorithm or issuer, no signature at all, missing and odd claims, and what is no token."""
    accounts.authenticate(forged())
    with pytest.raises(Unauthorized) as caught:
        accounts.authenticate(token)
    assert caught.value.code == "token_invalid"


async def test_a_token_outlives_no_user(accounts: Accounts) -> None:
    """Well signed, for somebody who is not there."""
    with trio.fail_after(TEST_SECONDS), pytest.raises(Unauthorized) as caught:
        await accounts.account(UserId(UUID(int=1)))
    assert caught.value.code == "token_invalid"


async def test_two_coordinators_with_one_key_know_each_others_tokens(pool: Pool, clock: HandClock) -> None:
    """And one with another key does not."""
    with trio.fail_after(TEST_SECONDS):
        one, two, other = (accounts_with(pool, clock, key=key) for key in (KEY, KEY, b"o" * 32))
        await one.register("ann@example.com", "secret1")
        login = await one.login("ann@example.com", "secret1")
        assert two.authenticate(login.token) == login.account.user.id
        with pytest.raises(Unauthorized):
            other.authenticate(login.token)
