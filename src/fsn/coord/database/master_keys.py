"""Which master keys this database needs."""

from collections.abc import Collection
from datetime import datetime

from fsn.coord.database.pool import Pool
from fsn.core.errors import ConfigError

__all__ = ["check_master_keys"]


async def check_master_keys(db: Pool, known: Collection[str], current: str, now: datetime) -> None:
    """Note that `current` is in use. Raises ConfigError when files need a master key that is not among `known`."""
    needed = {str(row[0]) for row in await db.fetch_all("select id from master_keys")}
    if missing := needed - set(known):
        raise ConfigError(
            f"files in this database are locked with master key {', '.join(sorted(missing))}, which this coordinator does not have:"
            " copy the key file of the coordinator that made them (secrets/master.key in its data folder)"
        )
    await db.execute(
        "insert into master_keys (id, first_used_at) values (%s, %s) on conflict do nothing", [current, now]
    )
