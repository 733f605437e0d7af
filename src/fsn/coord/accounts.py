"""Users: registering, logging in, tokens, balances."""

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from uuid import UUID

import attrs
import bcrypt
import jwt
import trio

from fsn.coord.catalog import User
from fsn.coord.config import AccountsConfig, CreditsConfig
from fsn.coord.database import ledger
from fsn.coord.database.budgets import Budget, set_budget
from fsn.coord.database.charges import standing
from fsn.coord.database.pool import Pool
from fsn.coord.database.users import insert_user, user_by_email, user_by_id
from fsn.core.errors import Invalid, Unauthorized
from fsn.core.ids import UserId, parse_uuid
from fsn.core.names import check_email, check_password
from fsn.core.units import MicroCredits
from fsn.runtime.clock import Clock
from fsn.runtime.threads import run_in_thread

__all__ = ["Account", "Accounts", "Login"]

ALGORITHM = "HS256"
ISSUER = "fsn"
TOKENS_REMEMBERED = 4096
"""Verifying one each time was an eighth of the CPU time that a small request took in the HTTP layers."""
HASHING_AT_ONCE = 2
"""bcrypt holds a core for a quarter of a second: more at once would starve the rest of the machine."""


@attrs.frozen
class Account:
    """A user with what they have."""

    user: User
    balance: MicroCredits
    past_due_since: datetime | None = None
    """Since when the balance does not cover what is stored."""
    kept_until: datetime | None = None
    """When what is not paid is deleted."""
    budget: Budget = Budget(None, MicroCredits(0))
    """What may be spent in a calendar month, and what was."""


@attrs.frozen
class Login:
    """A token and until when it is good."""

    token: str = attrs.field(repr=False)
    expires_at: datetime
    account: Account


class Accounts:
    """Registers and recognises users."""

    def __init__(
        self,
        db: Pool,
        *,
        clock: Clock,
        token_key: bytes,
        random_bytes: Callable[[int], bytes],
        config: AccountsConfig,
        credits: CreditsConfig,
    ) -> None:
        self._db = db
        self._clock = clock
        self._token_key = token_key
        self._random_bytes = random_bytes
        self._config = config
        self._credits = credits
        self._owner = lru_cache(TOKENS_REMEMBERED)(self._verified_owner)
        self._hashing = trio.CapacityLimiter(HASHING_AT_ONCE)
        self._decoy = bcrypt.hashpw(b"nobody's", bcrypt.gensalt(config.bcrypt_cost)).decode()

    async def register(self, email: str, password: str) -> Account:
        """A new user, with the welcome grant booked. Raises Invalid, or Conflict when the email is taken."""
        check_email(email)
        check_password(password)
        hashed = await run_in_thread(_hash, password, self._config.bcrypt_cost, limiter=self._hashing)
        user = User(UserId(UUID(bytes=self._random_bytes(16), version=4)), email, hashed, self._clock())
        grant = self._credits.welcome_grant_micro
        async with self._db.transaction() as connection:
            await insert_user(connection, user)
            await ledger.open_account(connection, "user", user.id)
            if grant:
                await ledger.book(
                    connection,
                    kind="grant",
                    ref=f"welcome:{user.id}",
                    at=user.created_at,
                    owner=("user", user.id),
                    system=ledger.GRANTS,
                    amount=grant,
                )
        return Account(user, grant)

    async def login(self, email: str, password: str) -> Login:
        """A token. Raises Unauthorized, in the same words and time whether the email is unknown or the password wrong."""
        user = await user_by_email(self._db, email) if _is_email(email) else None
        hashed = user.password_hash if user else self._decoy
        is_right = await run_in_thread(_matches, password, hashed, limiter=self._hashing)
        if user is None or not is_right:
            raise Unauthorized("the email or the password is wrong", code="wrong_credentials")
        expires_at = self._clock() + timedelta(hours=self._config.token_hours)
        return Login(self._token(user.id, expires_at), expires_at.replace(microsecond=0), await self._account(user))

    def authenticate(self, token: str) -> UserId:
        """Whose token it is. Raises Unauthorized (`token_expired`, `token_invalid`)."""
        user, expires = self._owner(token)
        if expires <= self._clock().timestamp():
            raise Unauthorized("the token has expired: log in again", code="token_expired")
        return user

    def _verified_owner(self, token: str) -> tuple[UserId, int]:
        """Whose token it is, and until when. This never changes for a token, so that those in use are verified once."""
        try:
            claims = jwt.decode(
                token,
                self._token_key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                options={"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, UnicodeError, RecursionError) as error:  # the last: a header of nested brackets
            raise _bad_token() from error
        subject, expires = parse_uuid(str(claims["sub"])), claims["exp"]
        if subject is None or not isinstance(expires, int):
            raise _bad_token()
        return UserId(subject), expires

    async def account(self, user: UserId) -> Account:
        """The user's account. Raises Unauthorized when there is no such user (any more)."""
        found = await user_by_id(self._db, user)
        if found is None:
            raise _bad_token()
        return await self._account(found)

    async def _account(self, user: User) -> Account:
        found = await standing(self._db, user.id, self._clock())
        since = found.past_due_since
        kept_until = since and since + timedelta(days=self._credits.grace_days)
        return Account(user, found.balance, since, kept_until, found.budget)

    async def set_budget(self, user: UserId, monthly: MicroCredits | None) -> Account:
        """Bound what new files may make of a calendar month's spending; None for no bound."""
        await set_budget(self._db, user, monthly)
        return await self.account(user)

    def _token(self, user: UserId, expires_at: datetime) -> str:
        claims = {
            "iss": ISSUER,
            "sub": str(user),
            "iat": math.floor(self._clock().timestamp()),
            "exp": math.floor(expires_at.timestamp()),
        }
        return jwt.encode(claims, self._token_key, algorithm=ALGORITHM)


def _is_email(text: str) -> bool:
    """Whether it may be in the database at all, which takes neither NUL nor lone surrogates."""
    try:
        check_email(text)
    except Invalid:
        return False
    return True


def _hash(password: str, cost: int) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def _matches(password: str, hashed: str) -> bool:
    try:
        return bcrypt.checkpw(password.encode(), hashed.encode())
    except ValueError:  # longer than 72 bytes, a NUL, a lone surrogate: no such password was ever taken
        return False


def _bad_token() -> Unauthorized:
    return Unauthorized("the token is not one of ours: log in", code="token_invalid")
