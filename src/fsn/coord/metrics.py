"""What is counted of the coordinator's work: once a chunk, replica or batch, never once a frame."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fsn.core.errors import FsnError
from fsn.runtime.metrics import SECONDS, new_registry

__all__ = ["CoordinatorMetrics"]

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class CoordinatorMetrics:
    """The counters of one coordinator, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = new_registry() if registry is None else registry
        self._storing = _Outcomes(
            self.registry, "fsn_chunk_store", "Storing a chunk: seal it, until it is durable on all its nodes"
        )
        self._retrieving = _Outcomes(self.registry, "fsn_chunk_retrieve", "Reading a chunk back and opening it")
        self._replica_storing = _Outcomes(
            self.registry, "fsn_replica_store", "Sending a replica to a node, once for each try"
        )
        self._replica_retrieving = _Outcomes(
            self.registry, "fsn_replica_retrieve", "Asking a node for a replica, once for each try"
        )
        self._reconciling = _Outcomes(
            self.registry, "fsn_reconciliation", "Comparing a node's replicas with the catalogue"
        )
        self._proofs = Counter(
            "fsn_proofs",
            "Challenges by how they ended: passed, failed, missed (in all tries), error (refused), offline; timeout: asked again.",
            ("outcome",),
            registry=self.registry,
        )
        self._differences = Counter(
            "fsn_reconciliation_replicas",
            "Replicas in which a node differed: missing and damaged ones were reported as lost, garbage was queued for deletion.",
            ("found",),
            registry=self.registry,
        )
        self._repairing = _Outcomes(
            self.registry, "fsn_chunk_repair", "Repairing a chunk: read it, seal it anew, store it"
        )
        self.repaired_bytes = Counter(
            "fsn_repaired_bytes",
            "Sealed bytes of replicas that repair made and that are recorded.",
            registry=self.registry,
        )
        self.replicas_lost = Counter(
            "fsn_replicas_lost",
            "Replicas that failed reads showed to be lost; other causes are in the log.",
            registry=self.registry,
        )
        self.replicas_left = Counter(
            "fsn_replicas_left",
            "Replicas that left the catalogue because enough others live: lost ones, drained ones, surplus.",
            registry=self.registry,
        )
        self.repair_paused = Gauge(
            "fsn_repair_paused",
            "1 while so many nodes are silent that repair waits for them, else 0.",
            registry=self.registry,
        )
        self._batch_entries = Histogram(
            "fsn_recorder_batch_entries",
            "Chunks and whole small files that one transaction recorded.",
            registry=self.registry,
            buckets=BATCHES,
        )
        self._batch_seconds = Histogram(
            "fsn_recorder_batch_seconds", "Seconds of such a transaction.", registry=self.registry, buckets=SECONDS
        )

    def count_proofs(self, passed: int, failed: int, missed: int, errors: int, offline: int, timeouts: int) -> None:
        """So many challenges ended so."""
        counts = {
            "passed": passed, "failed": failed, "missed": missed, "error": errors, "offline": offline, "timeout": timeouts
        }  # fmt: skip
        for outcome, count in counts.items():
            if count:
                self._proofs.labels(outcome).inc(count)

    def reconciling(self) -> AbstractContextManager[None]:
        """For the length of the block a node is being compared with the catalogue."""
        return self._reconciling.counting()

    def count_differences(self, found: str, replicas: int) -> None:
        """So many replicas were missing or damaged and reported as lost, or garbage and queued for deletion."""
        self._differences.labels(found).inc(replicas)

    def storing_chunk(self) -> AbstractContextManager[None]:
        """For the length of the block a chunk is being stored."""
        return self._storing.counting()

    def storing_replica(self) -> AbstractContextManager[None]:
        """For the length of the block a replica is on its way to a node."""
        return self._replica_storing.counting()

    def repairing_chunk(self) -> AbstractContextManager[None]:
        """For the length of the block a chunk is being repaired."""
        return self._repairing.counting()

    def retrieving_chunk(self) -> AbstractContextManager[None]:
        """For the length of the block a chunk is being read back."""
        return self._retrieving.counting()

    def retrieving_replica(self) -> AbstractContextManager[None]:
        """For the length of the block a node is asked for a replica."""
        return self._replica_retrieving.counting()

    @contextmanager
    def recording(self, entries: int) -> Iterator[None]:
        """For the length of the block so many entries are being recorded."""
        began = time.perf_counter()
        yield
        if entries:
            self._batch_entries.observe(entries)
            self._batch_seconds.observe(time.perf_counter() - began)


class _Outcomes:
    """How many began and how they ended: `ok`, `failed` (an error of ours) or `left` (cancelled, or a bug); and how long the good took."""

    def __init__(self, registry: CollectorRegistry, name: str, meaning: str) -> None:
        ended = Counter(
            name + "s",
            f"{meaning}, by how it ended: ok, failed, or left (the client went away, or another was first).",
            ("outcome",),
            registry=registry,
        )
        self._ok, self._failed, self._left = map(ended.labels, ("ok", "failed", "left"))
        self._in_flight = Gauge(f"{name}s_in_flight", f"{meaning}: how many now.", registry=registry)
        self._seconds = Histogram(
            f"{name}_seconds", f"{meaning}: seconds of those that were ok.", registry=registry, buckets=SECONDS
        )

    @contextmanager
    def counting(self) -> Iterator[None]:
        began, outcome = time.perf_counter(), self._left
        self._in_flight.inc()
        try:
            yield
            outcome = self._ok
            self._seconds.observe(time.perf_counter() - began)
        except FsnError:
            outcome = self._failed
            raise
        finally:
            self._in_flight.dec()
            outcome.inc()
