"""A user's commands on the account: register, login, logout, balance, quote."""

import os
import sys
from pathlib import Path

import click
import trio

from fsn.cli.credentials import default_credentials
from fsn.cli.exits import json_option, print_json
from fsn.cli.progress import printable
from fsn.cli.session import url_option, with_client
from fsn.client import Balance, Client, Quote, User
from fsn.client.values import as_json as document_of
from fsn.core.errors import Invalid
from fsn.core.units import parse_size

__all__ = ["balance", "login", "logout", "quote", "register"]

password_file_option = click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Read the password from this file's first line (- for standard input). Else FSN_PASSWORD, else a hidden prompt.",
)


def _password(file: Path | None, *, confirm: bool) -> str:
    """From a file, the environment or a hidden prompt; never from the command line, which other users can see."""
    if file is not None:
        with click.open_file(str(file)) as lines:
            return str(lines.readline()).rstrip("\r\n")
    if "FSN_PASSWORD" in os.environ:
        return os.environ["FSN_PASSWORD"]
    if not sys.stdin.isatty():
        raise Invalid("a password is wanted: set FSN_PASSWORD, give --password-file, or run this on a terminal")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True))


def _logged_in(url: str, email: str, password: str, *, as_json_document: bool) -> None:
    async def act() -> None:
        async with Client(url) as client:
            session = await client.login(email, password)
        default_credentials().keep(url, session)
        if as_json_document:
            print_json({"user": document_of(session.user), "expires_at": session.expires_at.isoformat()})
        else:
            click.echo(f"Logged in at {url} as {printable(session.user.email)} ({session.user.credits} credits).")

    trio.run(act)


@click.command()
@click.argument("email")
@url_option
@password_file_option
@json_option
def register(email: str, url: str, password_file: Path | None, as_json: bool) -> None:
    """Make an account and log in.

    \b
    fsn register ann@example.com
    FSN_PASSWORD=... fsn register ann@example.com --url https://storage.example.com
    """
    password = _password(password_file, confirm=True)

    async def act() -> None:
        async with Client(url) as client:
            await client.register(email, password)

    trio.run(act)
    _logged_in(url, email, password, as_json_document=as_json)


@click.command()
@click.argument("email")
@url_option
@password_file_option
@json_option
def login(email: str, url: str, password_file: Path | None, as_json: bool) -> None:
    """Log in; the token (not the password) is kept for this server, readable by you alone.

    \b
    fsn login ann@example.com
    fsn login ann@example.com --password-file ~/.fsn-password
    """
    _logged_in(url, email, _password(password_file, confirm=False), as_json_document=as_json)


@click.command()
@url_option
@json_option
def logout(url: str, as_json: bool) -> None:
    """Forget the token kept for this server."""
    default_credentials().forget(url)
    if as_json:
        print_json({"url": url})


_STANDING = ("past_due_since", "kept_until", "monthly_budget", "spent_this_month")


@click.command()
@url_option
@json_option
def balance(url: str, as_json: bool) -> None:
    """Show your credits, what is owed, and the month's budget."""

    async def act(client: Client) -> tuple[Balance, User]:
        return await client.balance(), await client.me()

    found, account = with_client(url, act)
    if as_json:
        print_json({**document_of(found), **{name: document_of(account)[name] for name in _STANDING}})
        return
    click.echo(f"{found.balance:,.2f} credits")
    if account.monthly_budget is not None:
        click.echo(f"{account.spent_this_month:,.2f} of {account.monthly_budget:,.2f} spent this month")
    if account.past_due_since is not None:
        click.echo(
            f"past due since {account.past_due_since:%Y-%m-%d}: nothing new is taken, and what is not paid is deleted after"
            f" {account.kept_until:%Y-%m-%d}: buy credits"
        )


@click.command()
@click.argument("size")
@click.option("--replicas", type=click.IntRange(1, 10), help="Copies of every chunk.")
@url_option
@json_option
def quote(size: str, replicas: int | None, url: str, as_json: bool) -> None:
    """Show what storing SIZE (such as 10GB) costs for 30 days."""

    async def act(client: Client) -> Quote:
        return await client.quote(parse_size(size), replicas)

    found = with_client(url, act)
    if as_json:
        print_json(document_of(found))
    else:
        click.echo(f"{found.cost:,.2f} credits for 30 days, {found.replicas} replicas")
