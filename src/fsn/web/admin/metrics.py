"""A node's figures in Prometheus' text format, read when they are asked for."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fsn.node.services import NodeServices

__all__ = ["METRICS_TYPE", "render_metrics"]

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class _NodeCollector(Collector):
    def __init__(self, node: NodeServices) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        store, links = self._node.store, self._node.reporting.links
        totals = store.totals()
        connected = sum(link.is_connected for link in links)
        yield GaugeMetricFamily("fsn_node_chunks", "Replicas stored", totals.count)
        yield GaugeMetricFamily("fsn_node_used_bytes", "Bytes of the replicas stored", totals.size_bytes)
        yield GaugeMetricFamily("fsn_node_free_bytes", "Bytes that would still be taken", store.free_bytes())
        yield GaugeMetricFamily("fsn_node_capacity_bytes", "The allowance", self._node.config.capacity_bytes)
        yield GaugeMetricFamily("fsn_node_coordinators_connected", "Coordinators connected now", connected)
        yield GaugeMetricFamily("fsn_node_coordinators_known", "Coordinators known", len(links))
        yield GaugeMetricFamily("fsn_node_chunks_lost", "Losses found at all starts", store.recovery.lost_total)


def render_metrics(node: NodeServices) -> bytes:
    """The exposition, UTF-8."""
    registry = CollectorRegistry()
    registry.register(_NodeCollector(node))
    return generate_latest(registry)
