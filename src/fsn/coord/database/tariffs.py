"""Tariffs: what a GB-month earns a node, from when on. They are never changed; a new one comes after the last."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from fsn.coord.database.pool import Pool

__all__ = ["Tariff", "add_tariff", "list_tariffs"]


@attrs.frozen
class Tariff:
    """What a GB-month of sealed bytes earns a node, in micro-credits, on the days that begin from `valid_from` on."""

    version: int
    valid_from: datetime
    node_reward: int
    reason: str


async def list_tariffs(db: Pool) -> Sequence[Tariff]:
    """All of them, in the order in which they come into force."""
    return await db.fetch_all(
        "select version, valid_from, node_reward, reason from tariffs order by valid_from", row=Tariff
    )


async def add_tariff(db: Pool, *, valid_from: datetime, node_reward: int, reason: str) -> Tariff | None:
    """Decide on another reward from a moment on; None when one from that moment, or a later one, is there already."""
    return await db.fetch_one(
        """insert into tariffs (version, valid_from, node_reward, reason)
           select max(version) + 1, %(from)s, %(reward)s, %(reason)s from tariffs having max(valid_from) < %(from)s
           returning version, valid_from, node_reward, reason""",
        {"from": valid_from, "reward": node_reward, "reason": reason},
        row=Tariff,
    )
