"""A node's statements as its operator sees them: fetched from the coordinator, and computed anew from their inputs."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

import attrs

from fsn.client.connection import Connection, Timeouts
from fsn.client.retrying import Retrying
from fsn.core.economics import FIRST_HASH, DayInputs, Line, Statement, daily_statement, statement_hash
from fsn.core.errors import ConfigError, FsnError, ProtocolViolation
from fsn.core.ids import NodeId, PeerId
from fsn.node.config import API_KEY_NAME, NodeConfig
from fsn.runtime.identity import public_key_of, verify
from fsn.runtime.private_files import read_private_file

__all__ = [
    "Payout",
    "Received",
    "ask_for_payout",
    "fetch_payouts",
    "fetch_statements",
    "first_difference",
    "parse_statement",
]

PAGE: Final = 1000
MOST_PAGES: Final = 100
"""Two hundred and seventy years: what has more never ends."""
LAST_DAY: Final = 2_000_000
"""Dates have four digits for their year."""
_TIMEOUTS: Final = Timeouts(connect_seconds=10.0, answer_seconds=30.0, send_seconds=10.0)


@attrs.frozen
class Received:
    """A statement as the coordinator gave it."""

    statement: Statement
    previous: bytes
    hash: bytes
    coordinator: PeerId
    signature: bytes


@attrs.frozen
class Payout:
    """A payout that was asked for: `status` is pending, paid or refused; then `note` has the administrator's words. `at`: RFC 3339."""

    id: UUID
    micro_credits: int
    status: str
    destination: str
    at: str
    note: str


async def fetch_statements(config: NodeConfig) -> list[Received]:
    """All of this node's, the oldest first. Raises ConfigError without an API key, and what the coordinator refuses with."""
    found: list[Received] = []
    cursor: str | None = ""
    async with _connected(config) as connection:
        for _ in range(MOST_PAGES):
            params = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            page = await connection.call("GET", "/api/v1/statements", params=params)
            with _understood(config, "page of statements"):
                found += [parse_statement(each) for each in page["statements"]]
                cursor = page["next_cursor"]
            if cursor is None:
                return found
    raise ProtocolViolation(f"{config.coordinator.url} has more than {MOST_PAGES} pages of statements: they never end")


async def fetch_payouts(config: NodeConfig) -> list[Payout]:
    """The last hundred that this node asked for, the newest first. Raises as `fetch_statements`."""
    async with _connected(config) as connection:
        return _payouts(config, await connection.call("GET", "/api/v1/payouts"))


async def ask_for_payout(config: NodeConfig, wanted: UUID, micro_credits: int, destination: str) -> list[Payout]:
    """Ask for a payout, once for each id, and return as `fetch_payouts`. Raises InsufficientCredits, Conflict (`not_funded`: users have not
    bought so much), and as `fetch_statements`."""
    body = {"id": str(wanted), "micro_credits": micro_credits, "destination": destination}
    async with _connected(config) as connection:
        return _payouts(config, await connection.call("POST", "/api/v1/payouts", body=body, idempotent=True))


def _payouts(config: NodeConfig, answer: Any) -> list[Payout]:
    with _understood(config, "list of payouts"):
        return [_payout(each) for each in answer["payouts"]]


def _payout(given: Mapping[str, Any]) -> Payout:
    words = {name: str(given[name] or "") for name in ("status", "destination", "at", "note")}
    return Payout(UUID(given["id"]), int(given["micro_credits"]), **words)


@asynccontextmanager
async def _connected(config: NodeConfig) -> AsyncIterator[Connection]:
    try:
        key = read_private_file(config.data_dir / API_KEY_NAME).decode("ascii").strip()
    except FileNotFoundError:
        raise ConfigError(f"there is no API key in {config.data_dir}: `fsn node init` gets one") from None
    headers = {"X-API-Key": key}
    async with Connection(config.coordinator.url, None, _TIMEOUTS, Retrying(attempts=3), headers=headers) as connection:
        yield connection


@contextmanager
def _understood(config: NodeConfig, what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolViolation(f"{config.coordinator.url} sent what is no {what}: {error}") from None


def parse_statement(document: Mapping[str, Any]) -> Received:
    """One of them. Raises KeyError, TypeError or ValueError for what is none."""
    given = dict(document["inputs"])
    inputs = DayInputs(node=NodeId(UUID(given.pop("node"))), **{name: int(value) for name, value in given.items()})
    lines = tuple(Line(str(each["rule"]), int(each["micro_credits"])) for each in document["lines"])
    return Received(
        Statement(inputs, lines, int(document["earned"]), int(document["held"])),
        bytes.fromhex(document["previous"]),
        bytes.fromhex(document["hash"]),
        PeerId(document["coordinator"]),
        bytes.fromhex(document["signature"]),
    )


def first_difference(statements: Sequence[Received], node: NodeId) -> str | None:
    """What is wrong first: an amount that does not follow from its inputs, a broken chain, a bad signature; None when all is right.

    Whether the inputs are true is another question: bytes, uptime and proofs can be compared with the node's own records.
    """
    previous, last_day = FIRST_HASH, -1
    for each in statements:
        inputs = each.statement.inputs
        where = f"day {inputs.day} ({_date(inputs.day)})"
        if inputs.node != node:
            return f"{where}: the statement is one of node {inputs.node}, not of {node}"
        if inputs.day <= last_day:
            return f"{where}: it comes after day {last_day}"
        if (wrong := _wrong_amount(each.statement)) is not None:
            return f"{where}: {wrong}"
        if each.previous != previous:
            return f"{where}: it follows {each.previous.hex()[:16]}..., the one before has {previous.hex()[:16]}..."
        if statement_hash(each.statement, previous) != each.hash:
            return f"{where}: its hash is not that of what it says"
        if not _is_signed(each):
            return f"{where}: the signature is not one of coordinator {each.coordinator}"
        previous, last_day = each.hash, inputs.day
    return None


def _wrong_amount(given: Statement) -> str | None:
    right = daily_statement(given.inputs)
    for wanted, found in zip(right.lines, given.lines, strict=False):
        if wanted != found:
            return f"line {found.rule!r} says {found.micro_credits}, computed is {wanted.rule!r} {wanted.micro_credits}"
    if len(right.lines) != len(given.lines):
        return f"it has {len(given.lines)} lines, computed are {len(right.lines)}"
    for name in ("earned", "held"):
        if getattr(right, name) != getattr(given, name):
            return f"{name} is {getattr(given, name)}, computed is {getattr(right, name)}"
    return None


def _is_signed(given: Received) -> bool:
    try:
        return verify(public_key_of(given.coordinator), given.hash, given.signature)
    except FsnError:
        return False


def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat() if 0 <= day < LAST_DAY else "no date"
