"""Tariffs: what a GB-month earns a node and costs a user, from when on. They are never changed; a new one comes after the last."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from fsn.coord.database.pool import Pool

__all__ = ["Tariff", "add_tariff", "list_tariffs"]


@attrs.frozen
class Tariff:
    """From `valid_from` on, in micro-credits: what a GB-month of sealed bytes earns a node, on days that begin then or later, and what a
    GB-month of a replica costs a user, for files whose upload begins then or later."""

    version: int
    valid_from: datetime
    node_reward: int
    user_price: int
    reason: str


async def list_tariffs(db: Pool) -> Sequence[Tariff]:
    """All of them, in the order in which they come into force."""
    return await db.fetch_all(
        "select version, valid_from, node_reward, user_price, reason from tariffs order by valid_from", row=Tariff
    )


async def add_tariff(
    db: Pool, *, valid_from: datetime, node_reward: int | None, user_price: int | None, reason: str
) -> Tariff | None:
    """Decide on another reward or price from a moment on; what is None stays as it is in the last tariff. None when one from that moment,
    or a later one, is there already."""
    return await db.fetch_one(
        """insert into tariffs (version, valid_from, node_reward, user_price, reason)
           select version + 1, %(from)s, coalesce(%(reward)s, node_reward), coalesce(%(price)s, user_price), %(reason)s
           from (select * from tariffs order by version desc limit 1) last where valid_from < %(from)s
           returning version, valid_from, node_reward, user_price, reason""",
        {"from": valid_from, "reward": node_reward, "price": user_price, "reason": reason},
        row=Tariff,
    )
