"""Worker that charges users for the days that follow those paid for in advance."""

from datetime import timedelta
from typing import Final

import attrs
import structlog

from fsn.coord.config import CreditsConfig
from fsn.coord.database.charges import charge_user, users_due
from fsn.coord.database.pool import Pool
from fsn.runtime.clock import Clock
from fsn.runtime.supervise import Bell, Rest

__all__ = ["Charging"]

log = structlog.get_logger()

LOOK_SECONDS: Final = 600.0
USERS_AT_ONCE: Final = 100


@attrs.define(eq=False)
class Charging:
    """A step charges one day of up to a hundred users. Several coordinators may: each day of a file is charged once."""

    db: Pool
    clock: Clock
    config: CreditsConfig
    deletions_due: Bell
    bell: Bell
    name: str = "charging"

    async def step(self) -> Rest | None:
        """Whoever is due now. After a break the days that were left out follow, one after the other."""
        now, grace = self.clock(), timedelta(days=self.config.grace_days)
        users = await users_due(self.db, now, USERS_AT_ONCE)
        files = amount = 0
        for user in users:
            charged = await charge_user(self.db, user, now, grace)
            files, amount = files + charged.files, amount + charged.amount
            if charged.is_newly_past_due:
                log.warning("account_past_due", user=str(user), kept_until=(now + grace).isoformat())
            for file in charged.deleted:
                log.warning("unpaid_file_deleted", user=str(user), file=str(file))
            if charged.deleted:
                self.deletions_due.ring()
        if files:
            log.info("storage_charged", files=files, micro_credits=amount)
        return None if users else Rest(LOOK_SECONDS, self.bell)
