"""What `/health` tells anyone."""

from structlog.testing import capture_logs

from fsn.coord.database.pool import open_pool
from fsn.web.api.health import PartView, database_health


async def test_a_database_that_is_away_is_told_without_its_address() -> None:
    """Anyone may ask for health: the reason, with host and account, goes to the log."""
    with capture_logs() as logs:
        async with open_pool("postgresql://account@127.0.0.1:1/fsn") as pool:
            assert await database_health(pool) == PartView("degraded", "the database is not available")
    assert [(entry["event"], "127.0.0.1" in entry["reason"]) for entry in logs] == [("database_away", True)]
