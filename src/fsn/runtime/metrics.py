"""Figures for Prometheus that are read when somebody asks; what is counted as it happens are prometheus_client's own counters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, Literal, TypeVar

import attrs
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from fsn.core.version import VERSION

__all__ = ["SECONDS", "Reading", "Readings", "new_registry"]

Source = TypeVar("Source")
Values = float | Mapping[str, float]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Buckets for what takes a millisecond when all is well and a minute when nothing is."""


@attrs.frozen
class Reading(Generic[Source]):
    """One figure of `Source`: a number, or numbers by the value of its label."""

    name: str
    """Without the `_total` that a counter gets."""
    meaning: str
    read: Callable[[Source], Values]
    label: str | None = None
    kind: Literal["gauge", "counter"] = "gauge"


class Readings(Collector, Generic[Source]):
    """Reads figures of `source` at each scrape. Registering it reads nothing."""

    def __init__(self, source: Source, readings: Sequence[Reading[Source]]) -> None:
        self._source = source
        self._readings = readings

    def describe(self) -> Iterator[Metric]:
        """The figures without values."""
        return map(_family, self._readings)

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        for reading in self._readings:
            family, values = _family(reading), reading.read(self._source)
            if isinstance(values, Mapping):
                for label, value in values.items():
                    family.add_metric([label], value)
            else:
                family.add_metric([], values)
            yield family


def new_registry() -> CollectorRegistry:
    """A registry that knows our version and, on Linux, what the process takes of the machine."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Version())
    return registry


class _Version(Collector):
    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("fsn_build", "The version of fsn that runs", {"version": VERSION})


def _family(reading: Reading[Source]) -> "CounterMetricFamily | GaugeMetricFamily":
    kind = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
    return kind(reading.name, reading.meaning, labels=[] if reading.label is None else [reading.label])
