"""What is counted of a node's work: once a request of a coordinator, once a batch written to the disk."""

import time

import trio
from prometheus_client import CollectorRegistry, Counter, Histogram

from fsn.core.errors import FsnError
from fsn.core.ids import PeerId
from fsn.p2p.server import RequestHandler, refusal_for
from fsn.p2p.wire.messages import ChunkRetrieved, Refusal, Request, Response, StoreChunk
from fsn.runtime.metrics import SECONDS, new_registry

__all__ = ["NodeMetrics"]

BATCHES = (1, 2, 4, 8, 16, 32, 64)


class NodeMetrics:
    """The counters of one node, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = new_registry() if registry is None else registry
        self._requests = Counter(
            "fsn_node_requests",
            "Requests of coordinators, by kind and outcome: ok, the code of a refusal, internal (a bug), or late (its time was over).",
            ("request", "outcome"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "fsn_node_request_seconds",
            "Seconds of a request that ended well.",
            ("request",),
            registry=self.registry,
            buckets=SECONDS,
        )
        self._received = Counter("fsn_node_stored_bytes", "Bytes of replicas stored.", registry=self.registry)
        self._sent = Counter("fsn_node_retrieved_bytes", "Bytes of replicas read back.", registry=self.registry)
        self._batch_chunks = Histogram(
            "fsn_node_batch_chunks",
            "Chunks that were written to the disk together.",
            registry=self.registry,
            buckets=BATCHES,
        )
        self._batch_seconds = Histogram(
            "fsn_node_batch_seconds",
            "Seconds until they were durable.",
            registry=self.registry,
            buckets=SECONDS,
        )

    def note_batch(self, chunks: int, seconds: float) -> None:
        """So many chunks went to the disk together, in so many seconds."""
        self._batch_chunks.observe(chunks)
        self._batch_seconds.observe(seconds)

    def counted(self, name: str, handler: RequestHandler) -> RequestHandler:
        """`handler`, with each of its requests counted under `name`."""
        seconds, ok = self._seconds.labels(name), self._requests.labels(name, "ok")

        async def handle(peer: PeerId, request: Request) -> Response:
            began = time.perf_counter()
            try:
                answer = await handler(peer, request)
            except BaseException as error:
                self._requests.labels(name, _outcome(error)).inc()
                raise
            if isinstance(answer, Refusal):
                self._requests.labels(name, _word(answer)).inc()
                return answer
            seconds.observe(time.perf_counter() - began)
            ok.inc()
            self._count_bytes(request, answer)
            return answer

        return handle

    def _count_bytes(self, request: Request, answer: Response) -> None:
        if isinstance(request, StoreChunk):
            self._received.inc(len(request.data))
        elif isinstance(answer, ChunkRetrieved):
            self._sent.inc(len(answer.data))


def _outcome(error: BaseException) -> str:
    if isinstance(error, FsnError):
        return _word(refusal_for(error))
    return "late" if isinstance(error, trio.Cancelled) else "internal"


def _word(refusal: Refusal) -> str:
    return str(refusal.code).lower()
