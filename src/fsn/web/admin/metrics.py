"""What is read of a node's services at each scrape, beside what `fsn.node.metrics` counts."""

from collections.abc import Sequence
from typing import Final

import trio

from fsn.core.reachability import Reach
from fsn.node.services import NodeServices
from fsn.runtime.metrics import Reading

__all__ = ["METRICS_TYPE", "READINGS"]

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

READINGS: Sequence[Reading[NodeServices]] = (
    Reading("fsn_node_chunks", "Replicas stored.", lambda node: node.store.totals().count),
    Reading("fsn_node_used_bytes", "Bytes of the replicas stored.", lambda node: node.store.totals().size_bytes),
    Reading("fsn_node_free_bytes", "Bytes that would still be taken.", lambda node: node.store.free_bytes()),
    Reading("fsn_node_capacity_bytes", "The allowance.", lambda node: node.config.capacity_bytes),
    Reading(
        "fsn_node_store_queued_bytes",
        "Bytes of replicas that came and are not durable yet.",
        lambda node: node.store.queued_bytes,
    ),
    Reading(
        "fsn_node_store_failing",
        "1 while the disk or the index does not do what it is asked (`chunk_store_failing` in the log says why), else 0.",
        lambda node: float(node.store.failure is not None),
    ),
    Reading("fsn_node_trash_bytes", "Bytes in the trash.", lambda node: node.store.trash_totals().size_bytes),
    Reading(
        "fsn_node_scrub_share",
        "How much of the round of reading all chunks is done, 0 to 1.",
        lambda node: node.scrubbing.status.share if node.scrubbing.status else 0.0,
    ),
    Reading(
        "fsn_node_scrub_lost",
        "Chunks that this round has found damaged or missing.",
        lambda node: node.scrubbing.status.lost if node.scrubbing.status else 0,
    ),
    Reading("fsn_node_chunks_lost", "Losses found at all starts.", lambda node: node.store.recovery.lost_total),
    Reading(
        "fsn_node_takes_chunks",
        "1 while new chunks are stored; 0 while the node drains and when it has left.",
        lambda node: float(node.declaring.standing.takes_chunks),
    ),
    Reading(
        "fsn_node_drain_replicas_left",
        "Replicas that a drain has still to move, as the coordinators count them; 0 without a drain.",
        lambda node: node.declaring.answer.replicas_left if node.declaring.answer else 0,
    ),
    Reading("fsn_node_coordinators_known", "Coordinators known.", lambda node: len(node.reporting.links)),
    Reading(
        "fsn_node_coordinators_connected",
        "Coordinators connected now.",
        lambda node: sum(link.is_connected for link in node.reporting.links),
    ),
    Reading(
        "fsn_node_connections",
        "Connections to other peers now, by what they go over (tcp, quic-v1).",
        lambda node: node.transport.connection_counts(),
        label="transport",
    ),
    Reading(
        "fsn_node_dht_peers",
        "Peers of the DHT that answered and are remembered.",
        lambda node: len(node.discovering.discovery.table),
    ),
    Reading(
        "fsn_node_reachability",
        "1 for how others get to this node now (direct, own_connection, untested, none), 0 for the other ways.",
        lambda node: {reach.value: float(reach == node.reachability.verdict.reach) for reach in Reach},
        label="reach",
    ),
    Reading(
        "fsn_node_connected",
        "1 if this coordinator is connected, else 0.",
        lambda node: {link.contact.peer: float(link.is_connected) for link in node.reporting.links},
        label="coordinator",
    ),
    Reading(
        "fsn_node_heartbeat_age_seconds",
        "Seconds since this coordinator last answered a heartbeat; missing until it has.",
        lambda node: _heartbeat_ages(node),
        label="coordinator",
    ),
)


def _heartbeat_ages(node: NodeServices) -> dict[str, float]:
    now = trio.current_time()
    return {
        link.contact.peer: now - link.heartbeat_at for link in node.reporting.links if link.heartbeat_at is not None
    }
