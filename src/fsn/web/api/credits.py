"""Credits over HTTP: the balance, and what storing would cost."""

from typing import Annotated

import msgspec

from fsn.coord.database import ledger
from fsn.coord.database.statements import NodeMoney, SignedStatement, last_statement, money_of
from fsn.coord.services import Services
from fsn.core.chunking import MAX_FILE_BYTES
from fsn.core.errors import Unavailable
from fsn.core.units import MicroCredits, format_credits
from fsn.web.api.earnings import StatementView, statement_view
from fsn.web.api.fields import Replicas
from fsn.web.auth import NODE, USER, asking_node, asking_user
from fsn.web.operations import Operations, RequestModel

__all__ = ["declare_credits"]


class QuoteQuery(RequestModel, frozen=True, kw_only=True):
    """What is to be stored."""

    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]
    replicas: Replicas | None = None


class QuoteView(msgspec.Struct):
    """The cost of 30 days, in credits with two decimals, and exactly in micro-credits."""

    size_bytes: int
    replicas: int
    cost: str
    cost_micro_credits: int


class BalanceView(msgspec.Struct, omit_defaults=True):
    """A user's or a node's balance; `earned` (in all), `pending` (payouts asked for), `held` (held back) and `last_statement` (left out
    before the first) are a node's."""

    balance: str
    balance_micro_credits: int
    earned: str | None = None
    pending: str | None = None
    held: str | None = None
    last_statement: StatementView | None = None


def declare_credits(api: Operations, services: Services) -> None:
    """Add the operations on credits."""

    @api.operation(
        "GET", "/api/v1/balance", summary="The balance of the user or node that asks", tags=("credits",),
        ok=(200, BalanceView), errors=(Unavailable,), security=(USER, NODE),
    )  # fmt: skip
    async def balance() -> BalanceView:
        """A user sends the bearer token, a node its `X-API-Key`."""
        if (node := asking_node()) is not None:
            money = (await money_of(services.db, [node.id]))[node.id]
            return _node_balance(money, await last_statement(services.db, node.id))
        amount = await ledger.balance(services.db, "user", asking_user())
        return BalanceView(format_credits(amount), amount)

    @api.operation(
        "GET", "/api/v1/quote", summary="What storing a file would cost", tags=("credits",),
        query=QuoteQuery, ok=(200, QuoteView), errors=(Unavailable,),
    )  # fmt: skip
    async def quote(query: QuoteQuery) -> QuoteView:
        """For 30 days, at today's price."""
        cost = await services.admission.cost(query.size_bytes, query.replicas)
        replicas = services.admission.replicas(query.replicas)
        return QuoteView(query.size_bytes, replicas, format_credits(cost), cost)


def _node_balance(money: NodeMoney, last: SignedStatement | None) -> BalanceView:
    earned, pending, held = (format_credits(MicroCredits(each)) for each in (money.earned, money.pending, money.held))
    return BalanceView(
        format_credits(MicroCredits(money.balance)), money.balance, earned=earned, pending=pending, held=held,
        last_statement=None if last is None else statement_view(last),
    )  # fmt: skip
