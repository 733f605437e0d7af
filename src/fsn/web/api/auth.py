"""Accounts over HTTP: register, log in, who am I."""

from datetime import datetime
from uuid import UUID

import msgspec

from fsn.coord.accounts import Account
from fsn.coord.services import Services
from fsn.core.errors import Conflict, Invalid, Unauthorized, Unavailable
from fsn.core.units import MicroCredits, format_credits, parse_credits
from fsn.web.api.fields import Email, Password
from fsn.web.auth import USER, asking_user
from fsn.web.limits import Limits
from fsn.web.operations import Coded, Operations, RequestModel

__all__ = ["declare_auth"]

AUTH = "/api/v1/auth"
MOST_MICRO = 10**18
"""A million million credits."""


class Credentials(RequestModel, frozen=True, kw_only=True):
    """An email address and a password (6 characters to 72 bytes)."""

    email: Email
    password: Password


class UserView(msgspec.Struct):
    """A user. `credits` are shown with two decimals. `past_due_since`: the balance does not cover what is stored, nothing new is taken, and
    what is not paid is deleted after `kept_until`; both null while nothing is owed. `monthly_budget`: in a calendar month (UTC) no upload
    begins that would bring what is charged and set aside above it; `spent_this_month` is what that comes to; both null without a budget."""

    id: UUID
    email: str
    credits: str
    created_at: datetime
    past_due_since: datetime | None
    kept_until: datetime | None
    monthly_budget: str | None
    spent_this_month: str | None


class BudgetBody(RequestModel, frozen=True, kw_only=True):
    """Credits as text, "50.00"; null for no budget."""

    monthly_credits: str | None


class LoginView(msgspec.Struct):
    """A bearer token, and until when it is good."""

    token: str
    expires_at: datetime
    user: UserView


def declare_auth(api: Operations, services: Services, limits: Limits) -> None:
    """Add the operations on accounts."""
    accounts = services.accounts

    @api.operation(
        "POST", f"{AUTH}/register", summary="Make an account", tags=("auth",),
        body=Credentials, ok=(201, UserView),
        errors=(Coded(Invalid, ("invalid_email", "invalid_password")), Coded(Conflict, ("email_taken",)), Unavailable),
    )  # fmt: skip
    async def register(body: Credentials) -> UserView:
        """The address must be new, whatever its case. A new account starts with the welcome grant."""
        limits.count_registration()
        return _user_view(await accounts.register(body.email, body.password))

    @api.operation(
        "POST", f"{AUTH}/login", summary="Log in", tags=("auth",),
        body=Credentials, ok=(200, LoginView), errors=(Coded(Unauthorized, ("wrong_credentials",)), Unavailable),
    )  # fmt: skip
    async def login(body: Credentials) -> LoginView:
        """Send the token as `Authorization: Bearer ...`."""
        with limits.login(body.email):
            login = await accounts.login(body.email, body.password)
        return LoginView(login.token, login.expires_at, _user_view(login.account))

    @api.operation(
        "GET", f"{AUTH}/me", summary="The account that the token belongs to", tags=("auth",),
        ok=(200, UserView), errors=(Unavailable,), security=(USER,),
    )  # fmt: skip
    async def me() -> UserView:
        """With its credits."""
        return _user_view(await accounts.account(asking_user()))

    @api.operation(
        "PUT", f"{AUTH}/budget", summary="Bound what a month may cost", tags=("auth",), body=BudgetBody,
        ok=(200, UserView), errors=(Invalid, Unavailable), security=(USER,),
    )  # fmt: skip
    async def put_budget(body: BudgetBody) -> UserView:
        """For new files: what is stored already is charged all the same, and counts."""
        return _user_view(await accounts.set_budget(asking_user(), _budget(body.monthly_credits)))


def _budget(text: str | None) -> MicroCredits | None:
    if text is None:
        return None
    if not 0 <= (found := parse_credits(text)) <= MOST_MICRO:
        raise Invalid(f"a budget is 0 to {MOST_MICRO // 10**6} credits, or null; got {text[:40]}")
    return found


def _user_view(account: Account) -> UserView:
    user = account.user
    return UserView(
        user.id,
        user.email,
        format_credits(account.balance),
        user.created_at,
        account.past_due_since,
        account.kept_until,
        None if account.budget.monthly is None else format_credits(account.budget.monthly),
        None if account.budget.monthly is None else format_credits(account.budget.spent),
    )
