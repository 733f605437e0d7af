"""The pages docs/reference/metrics.md and docs/reference/logs.md: what both daemons count, and every line that they log."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from fsn.coord.metrics import CoordinatorMetrics
from fsn.node.metrics import NodeMetrics
from fsn.runtime.metrics import Readings, new_registry
from fsn.web.admin import metrics as node_readings
from fsn.web.api import metrics as coordinator_readings
from fsn.web.middleware import HttpMetrics
from tools.log_calls import LogCall, log_calls
from tools.markdown import row

__all__ = ["exposed_names", "logs_page", "metric_names", "metrics_page"]

OF_THE_SYSTEM = "process_"
"""What prometheus_client itself tells of the process, on Linux."""

MEANINGS = {
    "catalogue_not_counted": "The database did not answer a scrape of `/metrics` in time.",
    "chunk_damaged": "A replica that was asked for is gone, cut short or unreadable on the disk. The coordinator takes another.",
    "chunk_index_damaged": "The index was damaged at the start; it was put aside and made anew from the chunks.",
    "chunk_lost": "A chunk is missing, cut short, or has other bytes than were stored: found at the start, or by reading all chunks.",
    "chunk_store_failing": "The disk or the index has begun to fail; stores are refused until it works again.",
    "chunk_store_recovered": "What the last start had to put right, in numbers.",
    "chunk_store_works_again": "The end of `chunk_store_failing`.",
    "chunk_stored": "A replica is durable here.",
    "chunk_sums_corrected": "At the start, the sums that coordinators compare were not those of the chunks; they were computed anew.",
    "chunks_deleted": "A coordinator asked for deletions; an error when some failed.",
    "chunks_without_row": "Chunks lie here that the index does not know; they are taken into it, which takes a while if they are many.",
    "connection_lost": "A libp2p connection broke.",
    "chunks_to_repair": "A scan of a node's replicas came upon chunks that want repair; they are queued.",
    "coordinator_connected": "The coordinator answered the first heartbeat of a connection.",
    "coordinator_found": "A coordinator that did not answer has told the DHT where it is now; it is dialled there.",
    "coordinator_forgotten": "A coordinator that another one had named was not reached for an hour, and is named by none any more.",
    "coordinator_lost": "The connection to a coordinator ended; it is dialled again, for ever.",
    "coordinator_missing": "Another coordinator over the same database stands still; what it heard of nodes ended when it was alive last.",
    "coordinator_not_reached": "A dial or first heartbeat failed; it is tried again.",
    "coordinator_not_told": "A coordinator did not answer what this node means to do, or its farewell; it is told again.",
    "coordinator_started": "Everything listens.",
    "coordinator_stopping": "The doors close; requests in flight may end.",
    "contacts_not_saved": "The file of known peers could not be written; the node goes on without.",
    "contacts_unreadable": "The file of known peers is damaged; it counts as empty.",
    "coordinator_was_away": "It was stopped, stalled, or without its database; or its clock was set. No node is blamed for that time.",
    "database_away": "The database did not answer `/health`, and why.",
    "database_server_died": "The embedded PostgreSQL ended by itself; it is started again.",
    "database_server_not_started": "It could not be started again; it is tried again.",
    "database_server_started_again": "The end of `database_server_died`.",
    "delete_failed": "A node did not delete; it is asked again in five minutes.",
    "dht_peer_failed": "A peer did not answer a question of the DHT; it is forgotten there.",
    "dht_published": "How many peers took our own record.",
    "dht_record_refused": "A record that somebody sent is not valid, and why.",
    "dht_record_stored": "A peer of the network published where it is.",
    "dht_stream_reset": "A peer broke the rules of the DHT, or may not do what it asked; its stream was given up.",
    "drain_counted": "A pass over the replicas that are still on a draining node is through.",
    "differences_reported": "A comparison found replicas missing or damaged on their node; it was asked twice. They are repaired.",
    "foreign_file": "A file in the chunk folder that is none of ours; it is left alone.",
    "garbage_held": "Much of a node is garbage: nothing goes before `fsn coordinator garbage allow`. Was an old backup put back?",
    "handler_failed": "A bug in answering a peer, with its traceback; the peer was told INTERNAL.",
    "http_application_failed": "A bug beyond the handlers, with its traceback.",
    "http_connection_failed": "A bug in serving one connection, with its traceback; the others go on.",
    "http_connection_refused": "An address has as many connections as one may have; the next was closed at once.",
    "http_handler_failed": "A bug in a handler, with its traceback; the client was told 500 `internal`.",
    "http_listening": "HTTP is served here.",
    "http_request": "One line for each request, at its end: see above.",
    "http_response_cut": "A response could not be finished (a chunk cannot be read, say); the connection was cut so that the client knows.",
    "http_server_error": "What Hypercorn, below us, reports.",
    "http_server_warning": "What Hypercorn, below us, reports.",
    "http_stopped": "HTTP is no longer served.",
    "http_store_failed": "A request failed because a store behind it did, and why; the client was told neither hosts nor folders.",
    "inbound_connection_failed": "Somebody connected and did not get as far as a libp2p connection.",
    "losses_not_reported": "A coordinator did not take a report of losses; it is sent again, to another one or later.",
    "losses_reported": "A coordinator has taken a report of losses.",
    "losses_taken": "A node has reported losses: how many, and how many of them were live until now. They are repaired.",
    "node_counted": "How a coordinator counts this node, when that has changed.",
    "node_declared": "A node declared what it means to do, and its state has changed.",
    "node_dialed_back": "A node asked to be dialled as a stranger would; how it can be reached, and why.",
    "node_left": "A draining node has left: nothing on it counts any more, or its deadline has passed.",
    "node_offline": "A node went silent or its connection to this coordinator ended; `reason` says which.",
    "node_online": "A node's first heartbeat, or the first one since it was offline.",
    "node_reconciled": "A node was compared with the catalogue: how many replicas agree, were lost, are garbage, were queued for deletion.",
    "node_registered": "A node registered, for the first time or again.",
    "node_scanned": "All replicas of a node were looked at: it was silent, is back, drains, has left or was disqualified.",
    "node_started": "The node is ready.",
    "node_stopping": "The node ends.",
    "own_address_gone": "The address that a connection goes out from is no longer one of this machine; the coordinator is dialled anew.",
    "own_addresses_changed": "The addresses of this machine's interfaces changed; coordinators that are not connected are dialled at once.",
    "nodes_to_scan": "Nodes whose silence has outlasted a grace, and nodes that are back after that: their replicas are looked at.",
    "peer_does_not_read": "A peer took too long to accept an answer; its stream was given up.",
    "protocol_violation": "A peer sent what is no message of ours; its stream was given up.",
    "reachability_changed": "How others get to this node changed, and why; see docs/explanation/reachability.md.",
    "reconciliation_failed": "A comparison with a node broke off, and why; it is tried again in ten minutes.",
    "reconciliation_taken_over": "A comparison took so long that another coordinator has begun it anew; nothing is wrong.",
    "recording_failed": "The database was away while chunks were to be recorded; their uploads were told so.",
    "repair_failed": "A chunk could not be repaired; it is tried again after 1, 2, 4 ... minutes, 6 hours at most.",
    "repair_paused": "So many nodes fell silent together that it is rather the network, or us: silence is waited for. Look into it.",
    "repair_resumed": "The end of `repair_paused`.",
    "repairs_recorded": "Repairs are in the catalogue. `left`: replicas that were lost, drained or surplus.",
    "replicas_deleted": "A node was asked to delete replicas.",
    "requests_cut": "The grace of a stopping node was over before all requests under way had ended.",
    "replicas_lost": "Reads showed replicas to be gone or damaged while another one of the chunk was right; their chunks are queued.",
    "proof_answered": "A node answered a challenge, after so many seconds; how long it took it says itself, and nobody believes.",
    "proof_not_given": "A challenge failed, was missed in all tries or refused: who was asked what, and how that ended. Unless it was "
    "refused, the replica counts as lost and is repaired.",
    "proof_round_judged": "A round of proofs is over, and has been reckoned into the reputations of its nodes.",
    "proof_round_suspicious": "So many nodes did not answer, or refused, that it is rather us: nobody is blamed.",
    "reputation_changed": "A node is vetted, suspended, taken on again or disqualified, and why.",
    "held_returned": "What was held back was paid out to nodes that have left or stayed long enough, or taken from judged ones.",
    "proof_failed": "A coordinator asked for a proof of a replica that is gone, damaged or unreadable here. Gone or damaged, the proof "
    "has failed; unreadable, it is asked for three times more.",
    "retrieve_failed": "A node did not give a chunk, or gave wrong bytes; the next replica is tried.",
    "scrub_round_ended": "All chunks were read and compared: how many, and how many were damaged or missing.",
    "stage_stopping": "A part of the daemon is being stopped and has its grace.",
    "standing_changed": "What the node means to do from now on: active, draining, maintenance, left.",
    "standing_not_saved": "The disk did not take the node's new standing; it is tried again.",
    "stop_asked": "SIGTERM or SIGINT came.",
    "stop_forced": "A second signal came; everything is cancelled.",
    "store_failed": "A node did not store a replica; another node is tried.",
    "peer_moved_to_tcp": "A peer that only QUIC had reached is reached by TCP again: what is new goes there.",
    "quic_connection_failed": "A QUIC connection was given up because of what the peer sent, or by a bug; others are not touched.",
    "quic_receive_failed": "The UDP socket for QUIC told an error of the network; it goes on.",
    "stream_broke": "A stream of requests broke.",
    "stream_handler_failed": "A bug in serving a stream, with its traceback.",
    "stream_lost": "A stream broke.",
    "tcp_not_reached": "A peer that is connected by QUIC is still not reached by TCP, and why.",
    "storage_charged": "Users paid for a day of what they store: how many files, and micro-credits in all.",
    "account_past_due": "A balance does not cover a day of storing: nothing new is taken; its files are kept until then.",
    "unpaid_file_deleted": "A file was deleted, for its user's days of grace are over.",
    "payment_does_not_fit": "A payment is not what its purchase is, and was not booked: look for `session` at the provider.",
    "payment_of_others": "An event of the payment provider about a purchase that is not in this database.",
    "payment_provider_fails": "The payment provider could not be asked; `kind` says why (AuthenticationError: its key is wrong).",
    "payment_refused": "The payment provider does not take what was asked for.",
    "purchase_not_looked_up": "A pending purchase was shown as it is known here: the provider could not be asked.",
    "statements_posted": "Nodes' days were paid: how many statements, and micro-credits in all.",
    "trash_emptied": "Replicas left the trash for good, after their time there.",
    "trash_gave_room": "Replicas left the trash early: their room was needed for new ones.",
    "upload_expired": "An upload was not completed in time and was dropped.",
    "worker_failed": "A background worker failed; it is started again after a while, and the eighth failure in a row ends the process.",
}
"""What each word means. A word without a meaning, or the other way round, stops `make docs` and fails a test."""


def metrics_page() -> Iterator[str]:
    """Every metric of both daemons."""
    yield from (
        "",
        "# Metrics",
        "",
        "For Prometheus, as text: `GET /metrics` of the coordinator (with `[http] metrics_token_file` the token in that file is wanted",
        "as a bearer token) and of a node's admin API. Histograms have `_bucket`, `_sum` and `_count`; they and counters also have",
        "`_created`, the time of their beginning. Chunks are counted once each, and batches once each. On Linux `process_*` tell of",
        "the process itself (CPU seconds, memory, open files).",
        "",
        "Worth an alarm: `fsn_database_up == 0`; `fsn_nodes_online` below the replicas that files get;",
        '`rate(fsn_chunk_stores_total{outcome="failed"}[5m])` above nothing; `fsn_node_store_failing == 1`;',
        "`fsn_node_heartbeat_age_seconds > 60`; `fsn_node_chunks_lost` growing; `fsn_repair_paused == 1`;",
        '`fsn_repairs_waiting{live="0"} > 0`, and `fsn_repair_oldest_timestamp_seconds` older than a day.',
    )
    yield from ("", "## Coordinator", "", *_table(_coordinator_collectors()))
    yield from ("", "## Storage node", "", *_table(_node_collectors()))


def metric_names(page: str, section: str) -> set[str]:
    """The names in the table below that heading of the page."""
    lines = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0].splitlines()
    return {line.split("`")[1] for line in lines if line.startswith("| `")}


def exposed_names(exposition: str) -> set[str]:
    """The names of the metrics in an exposition, as the page writes them, less what it does not list."""
    names = {line.split()[2] for line in exposition.splitlines() if line.startswith("# TYPE ")}
    return {name for name in names if not name.startswith(OF_THE_SYSTEM) and not name.endswith("_created")}


def _coordinator_collectors() -> list[Collector]:
    registry = CollectorRegistry()
    CoordinatorMetrics(registry)
    HttpMetrics(registry)
    services = Readings(cast(Any, None), coordinator_readings.READINGS)
    catalogue = Readings(cast(Any, None), coordinator_readings.CATALOGUE_READINGS)
    return [*_collectors(registry), services, catalogue, *_collectors(new_registry())]


def _node_collectors() -> list[Collector]:
    registry = CollectorRegistry()
    NodeMetrics(registry)
    HttpMetrics(registry)
    node = Readings(cast(Any, None), node_readings.READINGS)
    return [*_collectors(registry), node, *_collectors(new_registry())]


def _collectors(registry: CollectorRegistry) -> list[Collector]:
    return list(registry._collector_to_names)


def _table(collectors: Sequence[Collector]) -> Iterator[str]:
    yield from ("| metric | kind | labels | meaning |", "|---|---|---|---|")
    for collector in collectors:
        for metric in collector.describe() if isinstance(collector, Readings) else collector.collect():
            if not metric.name.startswith(OF_THE_SYSTEM):
                labels: Sequence[str] = getattr(metric, "_labelnames", ()) or getattr(collector, "_labelnames", ())
                named = ", ".join(f"`{label}`" for label in labels)
                yield row(f"`{_full_name(metric.name, metric.type)}`", metric.type, named, metric.documentation)


def _full_name(name: str, kind: str) -> str:
    return name + {"counter": "_total", "info": "_info"}.get(kind, "")


def logs_page() -> Iterator[str]:
    """Every word that is logged."""
    calls = sorted(log_calls())
    unsaid, gone = {call.word for call in calls} - set(MEANINGS), set(MEANINGS) - {call.word for call in calls}
    assert not unsaid, f"MEANINGS in tools/observability.py says nothing of {unsaid}"
    assert not gone, f"MEANINGS in tools/observability.py has words that nobody logs: {gone}"
    yield from (
        "",
        "# Logs",
        "",
        "To standard error, one event a line: JSON with `event`, `level`, `timestamp` and the members below, or text for people on a",
        "terminal ([`[log]`](configuration.md)). Every line that belongs to an HTTP request also has its `request_id`, which the client",
        "sees as `X-Request-Id` and in each problem document. No line holds a key, token, password or the name of a user's file.",
        "",
        "## One line a request",
        "",
        "`http_request` has `method`; `route`, which is the rule (`/api/v1/files/<uuid:file_id>`) and never the path or query;",
        "`status`; `received_bytes` and `sent_bytes` of bodies; `seconds` from the request's head to the end of the response;",
        "`user` or `node` with the id of who asked, where a token or key said so; and `outcome`:",
        "",
        "| outcome | meaning |",
        "|---|---|",
        "| `answered` | the response went out whole |",
        "| `left_in_body` | the client went away before its body was read whole, and got no answer (status 499) |",
        "| `left` | the client went away before an answer (status 499) |",
        "| `cut` | the response broke off: the client went away, took nothing for too long, or `http_response_cut` says why |",
        "| `failed` | a bug; a line with its traceback stands before this one |",
        "",
        "## All words",
        "",
        "| event | level | by | members | meaning |",
        "|---|---|---|---|---|",
    )
    for call in calls:
        members = ", ".join(f"`{name}`" if name != "..." else name for name in call.members)
        yield row(f"`{call.word}`", " or ".join(call.levels), _who(call), members, MEANINGS[call.word])


def _who(call: LogCall) -> str:
    package = call.place.partition("/")[0]
    if call.place in ("node/registration.py",):
        return "`fsn node init`"
    if package == "daemon":
        package = call.place.partition("/")[2].removesuffix(".py")
    if call.place.startswith("web/api/"):  # the coordinator's; a node has web/admin/
        package = "coord"
    return {"coord": "coordinator", "coordinator": "coordinator", "node": "node"}.get(package, "both")
