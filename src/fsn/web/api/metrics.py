"""`GET /metrics` of the coordinator: what was counted, and what is read of its services and its catalogue at each scrape."""

import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
import trio
from prometheus_client import CollectorRegistry, generate_latest
from quart import Response

from fsn.coord.database.counts import CatalogueCounts, catalogue_counts
from fsn.coord.database.pool import Pool
from fsn.coord.services import Services
from fsn.core.errors import Unauthorized, Unavailable
from fsn.runtime.metrics import Reading, Readings
from fsn.runtime.private_files import read_secret
from fsn.web.bearer import bearer
from fsn.web.operations import Coded, Operations
from fsn.web.quart_front import current_request

__all__ = ["CATALOGUE_READINGS", "METRICS_TYPE", "READINGS", "declare_metrics", "load_scrape_token"]

log = structlog.get_logger(__name__)

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
COUNTING_SECONDS = 2.0
"""A scrape does not wait longer for the database; what is counted there is left out then."""

READINGS: Sequence[Reading[Services]] = (
    Reading(
        "fsn_nodes_online",
        "Storage nodes that are connected here and were heard of lately.",
        lambda services: services.membership.counts["online"],
    ),
    Reading(
        "fsn_connections",
        "Connections to other peers now, by what they go over (tcp, quic-v1).",
        lambda services: services.transport.connection_counts(),
        label="transport",
    ),
    Reading(
        "fsn_dht_peers",
        "Peers of the DHT (nodes reached by a dial-back, other coordinators) that are remembered here.",
        lambda services: len(services.discovery.table) if services.discovery else 0,
    ),
    Reading(
        "fsn_dht_records",
        "Peer records kept for others.",
        lambda services: len(services.discovery.store) if services.discovery else 0,
    ),
    Reading(
        "fsn_upload_window_bytes",
        "Plaintext in flight in all uploads (`[upload] total_window_bytes` is the limit).",
        lambda services: services.window.taken_bytes,
    ),
    Reading(
        "fsn_retrieve_hedges",
        "How often a second node was asked for a chunk because the first was late.",
        lambda services: services.fetcher.hedges,
        kind="counter",
    ),
    Reading(
        "fsn_retrieve_patience_seconds",
        "After how many seconds without an answer a node counts as late now.",
        lambda services: services.fetcher.patience.seconds,
    ),
    Reading(
        "fsn_recorder_waiting",
        "Chunks and whole small files that wait for the next transaction.",
        lambda services: services.recorder.waiting,
    ),
    Reading(
        "fsn_database_pool_connections",
        "Connections of the pool, by what they do; `[database.pool] size` is the limit of both together.",
        lambda services: {"in_use": services.db.in_use, "idle": services.db.idle},
        label="state",
    ),
    Reading(
        "fsn_database_pool_waiting",
        "Tasks that wait for a connection.",
        lambda services: services.db.waiting,
    ),
    Reading(
        "fsn_database_connections_opened",
        "Connections opened since the start.",
        lambda services: services.db.opened,
        kind="counter",
    ),
)
CATALOGUE_READINGS: Sequence[Reading[CatalogueCounts | None]] = (
    Reading(
        "fsn_database_up",
        "1 if the database answered this scrape within 2 s, else 0; then those below are missing.",
        lambda counts: float(counts is not None),
    ),
    Reading(
        "fsn_nodes",
        "Storage nodes in the catalogue, by state.",
        lambda counts: counts.nodes if counts else {},
        label="state",
    ),
    Reading(
        "fsn_repairs_waiting",
        "Chunks that wait for repair or are in it, by how many of their replicas can be read; each counted to 100,000.",
        lambda counts: {str(live): count for live, count in counts.repairs.waiting.items()} if counts else {},
        label="live",
    ),
    Reading(
        "fsn_repair_oldest_timestamp_seconds",
        "When the chunk that has waited longest was queued, in seconds of the epoch; missing when none waits.",
        lambda counts: counts.repairs.oldest.timestamp() if counts and counts.repairs.oldest else {},
    ),
    Reading(
        "fsn_uploads_open",
        "Uploads that were begun and neither completed nor dropped.",
        lambda counts: counts.uploads_open if counts else {},
    ),
    Reading(
        "fsn_reconciliation_nodes_held",
        "Nodes with so much garbage that nothing of it is deleted before `fsn coordinator garbage allow`.",
        lambda counts: counts.garbage_held if counts else {},
    ),
)


def declare_metrics(api: Operations, services: Services, scrape_token: str | None) -> None:
    """Add the operation; who asks must bring `scrape_token`, unless it is None."""

    @api.operation(
        "GET", "/metrics", summary="Figures for Prometheus", tags=("health",), produces="text/plain",
        errors=(Coded(Unauthorized, ("token_missing", "token_invalid")),),
    )  # fmt: skip
    async def get_metrics() -> Response:
        """Open to anyone who can connect, or with `[http] metrics_token_file` to who brings that token as a bearer token."""
        if scrape_token is not None:
            _check_token(scrape_token)
        counted = CollectorRegistry()
        counted.register(Readings(await _counts(services.db), CATALOGUE_READINGS))
        return Response(
            generate_latest(services.metrics.registry) + generate_latest(counted), content_type=METRICS_TYPE
        )


def load_scrape_token(file: Path | None) -> str | None:
    """The token in `file`, None for no file. Raises ConfigError when it cannot be read or holds none."""
    return None if file is None else read_secret(file, "http.metrics_token_file")


def _check_token(scrape_token: str) -> None:
    given = bearer(current_request().headers.get("Authorization", ""), "set the token that the scrape job sends")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), scrape_token.encode()):
        raise Unauthorized("the token is not the one in [http] metrics_token_file", code="token_invalid")


async def _counts(db: Pool) -> CatalogueCounts | None:
    with trio.move_on_after(COUNTING_SECONDS):
        try:
            return await catalogue_counts(db)
        except Unavailable as error:
            log.debug("catalogue_not_counted", reason=error.message)
    return None
