"""A node's pay over HTTP: its statements with all that they follow from, and payouts. The node sends its API key."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

import attrs
import msgspec

from fsn.coord.database.payouts import Payout, list_payouts, request_payout
from fsn.coord.database.statements import SignedStatement, list_statements
from fsn.coord.services import Services
from fsn.core.errors import Conflict, InsufficientCredits, Invalid, Unavailable
from fsn.core.ids import NodeId
from fsn.core.units import format_credits
from fsn.web.api.paging import Page, decode_cursor, encode_cursor
from fsn.web.auth import NODE, asking_node
from fsn.web.operations import Coded, Operations, RequestModel

__all__ = ["StatementView", "declare_earnings", "statement_view"]


class InputsView(msgspec.Struct):
    """What a day's pay follows from; see the page on earnings. `day`: days since 1970-01-01; `reward`: micro-credits a GB-month."""

    node: UUID
    day: int
    age_days: int
    byte_seconds: int
    present: int
    counted: int
    asked: int
    missed: int
    failed: int
    rounds: int
    unproved: int
    tariff: int
    reward: int


class LineView(msgspec.Struct):
    """A rule and by how much it changed the pay."""

    rule: str
    micro_credits: int


class StatementView(msgspec.Struct):
    """A day's pay, in micro-credits. `hash` is over inputs, lines and `previous` (the hash of the statement before), `signature` the
    coordinator's of the hash; all in hexadecimal."""

    day: date
    inputs: InputsView
    lines: list[LineView]
    earned: int
    held: int
    previous: str
    hash: str
    coordinator: str
    signature: str


class StatementsView(msgspec.Struct):
    """A page of statements, the oldest first; `next_cursor` is null on the last one."""

    statements: list[StatementView]
    next_cursor: str | None


class PayoutBody(RequestModel, frozen=True, kw_only=True):
    """How many credits, as text ("12.50"), and where to. With the same `id` again nothing more is asked for."""

    id: UUID
    micro_credits: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    destination: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class PayoutView(msgspec.Struct):
    """A payout that was asked for: `pending`, `paid` or `refused`; then `note` has the words of the administrator who said so."""

    id: UUID
    micro_credits: int
    amount: str
    status: str
    destination: str
    at: datetime
    settled_at: datetime | None
    note: str | None


class PayoutsView(msgspec.Struct):
    """The last hundred, the newest first."""

    payouts: list[PayoutView]


def declare_earnings(api: Operations, services: Services) -> None:
    """Add the operations."""

    @api.operation(
        "GET", "/api/v1/statements", summary="What the node that asks was paid, day by day", tags=("credits",),
        query=Page, ok=(200, StatementsView), errors=(Unavailable,), security=(NODE,),
    )  # fmt: skip
    async def get_statements(query: Page) -> StatementsView:
        """Everything that each amount follows from: recompute it."""
        after = decode_cursor(query.cursor, date)
        found = await list_statements(services.db, _asking(), after, query.limit)
        is_full = len(found) == query.limit
        return StatementsView(
            [statement_view(each) for each in found], encode_cursor(found[-1].day) if is_full else None
        )

    @api.operation(
        "GET", "/api/v1/payouts", summary="Payouts that the node asked for", tags=("credits",),
        ok=(200, PayoutsView), errors=(Unavailable,), security=(NODE,),
    )  # fmt: skip
    async def get_payouts() -> PayoutsView:
        """The newest first."""
        return PayoutsView([_payout_view(each) for each in await list_payouts(services.db, _asking())])

    @api.operation(
        "POST", "/api/v1/payouts", summary="Ask for a payout", tags=("credits",),
        body=PayoutBody, ok=(201, PayoutsView),
        errors=(Invalid, InsufficientCredits, Coded(Conflict, ("not_funded", "payout_differs")), Unavailable), security=(NODE,),
    )  # fmt: skip
    async def post_payout(body: PayoutBody) -> PayoutsView:
        """Recorded as pending; the balance falls by it at once. An administrator pays it by hand, or refuses it. In all no more is paid out
        than users have bought (409 `not_funded`)."""
        if not body.destination.isprintable():
            raise Invalid(f"a destination has printable characters only; got {body.destination!a}")
        await request_payout(services.db, body.id, _asking(), body.micro_credits, body.destination, services.clock())
        return await get_payouts()


def _payout_view(found: Payout) -> PayoutView:
    return PayoutView(
        found.id, found.amount, format_credits(found.amount), found.status, found.destination, found.at, found.settled_at, found.note,
    )  # fmt: skip


def _asking() -> NodeId:
    node = asking_node()
    assert node is not None, "the guard lets nodes in only"
    return node.id


def statement_view(found: SignedStatement) -> StatementView:
    """As it is shown."""
    statement = found.statement
    return StatementView(
        found.day,
        InputsView(**attrs.asdict(statement.inputs)),
        [LineView(line.rule, line.micro_credits) for line in statement.lines],
        statement.earned,
        statement.held,
        found.previous.hex(),
        found.hash.hex(),
        found.coordinator,
        found.signature.hex(),
    )
