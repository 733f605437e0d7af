"""What storing costs users now."""

import math
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from fsn.coord.config import CreditsConfig
from fsn.coord.database.pool import Pool
from fsn.coord.database.tariffs import Tariff, list_tariffs
from fsn.core.units import MicroCredits
from fsn.runtime.clock import Clock

__all__ = ["Pricing"]

KEEP_SECONDS: Final = 30.0
"""A tariff begins on a day to come, so that all coordinators know it when it does; but for one added in the last moments before."""


@attrs.define(eq=False)
class Pricing:
    """The tariffs' price of the day, unless the settings name one."""

    db: Pool
    clock: Clock
    config: CreditsConfig
    _tariffs: Sequence[Tariff] = attrs.field(default=(), init=False)
    _read_at: float = attrs.field(default=-math.inf, init=False)

    async def price(self) -> MicroCredits:
        """Micro-credits for 10^9 bytes, 30 days and a replica. Raises Unavailable when the tariffs cannot be read."""
        if (set_by_hand := self.config.price_micro) is not None:
            return set_by_hand
        if trio.current_time() >= self._read_at + KEEP_SECONDS:
            self._tariffs = await list_tariffs(self.db)
            self._read_at = trio.current_time()
        now = self.clock()
        return MicroCredits([each.user_price for each in self._tariffs if each.valid_from <= now][-1])
