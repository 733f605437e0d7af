"""`fsn coordinator repairs`: the repair queue for an operator's eyes."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import click

from fsn.cli.exits import print_json
from fsn.cli.progress import printable
from fsn.coord.database.pool import Pool, open_pool
from fsn.coord.database.repairs import MOST_LIVE, QueuedRepair, queue_counts, queued_repairs
from fsn.core.errors import ConfigError
from fsn.daemon.coordinator import CoordinatorConfig, open_database

__all__ = ["show_repairs"]

PAGE = 1000


async def show_repairs(config: CoordinatorConfig, limit: int, as_json: bool) -> None:
    """Print up to `limit` rows of the queue, worst first, from the configured database; beside a running coordinator, too."""
    if config.database.dsn is None and not (config.data_dir / "postgres").exists():
        raise ConfigError(f"there is no database in {config.data_dir}: name the coordinator's --data-dir, or its --dsn")
    async with (
        open_database(config) as dsn,
        open_pool(dsn, config.database.pool, driver=config.database.driver) as pool,
    ):
        counts = await queue_counts(pool)
        total = sum(counts.waiting.values())
        if as_json:
            found = [_as_json(repair) async for repair in _worst(pool, limit)]
            print_json({"repairs": found, "waiting": {str(live): n for live, n in counts.waiting.items()}})
            return
        click.echo(f"chunks that wait for repair or are in it: {total}")
        now = datetime.now(UTC)
        async for repair in _worst(pool, limit):
            click.echo(_line(repair, now))
        if total > limit:
            click.echo(f"... and {total - limit} more: --limit {total}")


async def _worst(db: Pool, limit: int) -> AsyncIterator[QueuedRepair]:
    page: Sequence[QueuedRepair] = await queued_repairs(db, None, min(PAGE, limit))
    while page:
        for repair in page:
            yield repair
        limit, last = limit - len(page), page[-1]
        after = (last.live, last.due_at, last.file, last.index)
        page = await queued_repairs(db, after, min(PAGE, limit)) if limit else ()


def _line(repair: QueuedRepair, now: datetime) -> str:
    live = f"{MOST_LIVE} or more" if repair.live == MOST_LIVE else str(repair.live)
    waits = f"queued {_age(now, repair.queued_at)} ago"
    if repair.leased_by:
        state = f"in repair at {repair.leased_by}"
    elif repair.due_at > now:
        state = f"again in {_age(repair.due_at, now)}"
    else:
        state = "due"
    tries = f", tried {repair.tries} times" if repair.tries else ""
    failure = f": {printable(repair.failure)}" if repair.failure else ""
    return (
        f"{repair.file} chunk {repair.index}: {live} live, {printable(repair.reason)}, {waits}, {state}{tries}{failure}"
    )


def _age(later: datetime, earlier: datetime) -> str:
    seconds = max(0, int((later - earlier).total_seconds()))
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def _as_json(repair: QueuedRepair) -> dict[str, object]:
    return {
        "file_id": str(repair.file),
        "chunk_index": repair.index,
        "live_replicas": repair.live,
        "reason": repair.reason,
        "queued_at": repair.queued_at.isoformat(),
        "due_at": repair.due_at.isoformat(),
        "tries": repair.tries,
        "in_repair_at": repair.leased_by,
        "failure": repair.failure,
    }
