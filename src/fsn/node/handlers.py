"""What a node does when a coordinator asks: store, retrieve, delete. Refusals are answers; only bugs are exceptions here."""

import logging
from collections.abc import Callable, Mapping

import attrs
import structlog
import trio

from fsn.core.errors import Corrupt
from fsn.core.ids import PeerId
from fsn.core.reconciliation import HeldReplica, replica_digest
from fsn.node.chunkstore.base import ChunkStore, StoredChunk
from fsn.node.metrics import NodeMetrics
from fsn.p2p.server import RequestHandler
from fsn.p2p.wire.limits import MAX_LISTED
from fsn.p2p.wire.messages import (
    ChunkRetrieved,
    ChunksDeleted,
    ChunkStored,
    DeleteChunks,
    Reconcile,
    Reconciled,
    ReconcileLevel,
    Refusal,
    RefusalCode,
    Request,
    Response,
    RetrieveChunk,
    StoreChunk,
)

__all__ = ["ChunkHandlers"]

log = structlog.get_logger()


@attrs.define
class ChunkHandlers:
    """Handlers for `fsn.p2p.server.serve_requests`, which lets in known coordinators only and turns our errors into refusals."""

    store: ChunkStore
    is_draining: Callable[[], bool]
    metrics: NodeMetrics = attrs.field(factory=NodeMetrics)

    def by_request(self) -> Mapping[type[Request], RequestHandler]:
        """What to give to `serve_requests`."""
        return {
            StoreChunk: self.metrics.counted("store", self.store_chunk),
            RetrieveChunk: self.metrics.counted("retrieve", self.retrieve_chunk),
            DeleteChunks: self.metrics.counted("delete", self.delete_chunks),
            Reconcile: self.metrics.counted("reconcile", self.reconcile),
        }

    async def store_chunk(self, peer: PeerId, message: StoreChunk) -> Response:
        """Durable when answered. Raises what `ChunkStore.store` raises; refuses with DRAINING while the node empties itself."""
        if self.is_draining():
            return Refusal(RefusalCode.DRAINING, "this node is on its way out, or has left, and takes no new chunks")
        began = trio.current_time()
        await self.store.store(message.replica, message.root, message.data)
        log.debug("chunk_stored", chunk=message.replica.hex, peer=peer, seconds=round(trio.current_time() - began, 4))
        return ChunkStored(message.replica)

    async def retrieve_chunk(self, _: PeerId, message: RetrieveChunk) -> Response:
        """The bytes asked for. Raises what `ChunkStore.retrieve` raises."""
        try:
            data, total_bytes = await self.store.retrieve(message.replica, message.offset, message.length)
        except Corrupt as error:  # the coordinator is told; so is the operator, whose disk it is
            log.error("chunk_damaged", chunk=message.replica.hex, reason=error.message)
            raise
        return ChunkRetrieved(data, total_bytes)

    async def delete_chunks(self, peer: PeerId, message: DeleteChunks) -> Response:
        """The deletions that failed; all others are durable. Raises `StorageError` when the index failed."""
        delete = self.store.trash if message.to_trash else self.store.delete
        failed = await delete(message.replicas)
        log.log(
            logging.ERROR if failed else logging.DEBUG,
            "chunks_deleted",
            peer=peer,
            asked=len(message.replicas),
            failed=len(failed),
        )
        return ChunksDeleted(failed)

    async def reconcile(self, _: PeerId, message: Reconcile) -> Response:
        """Sums of what is stored, or a page of it. Raises `StorageError` when the index failed."""
        if message.level is not ReconcileLevel.REPLICAS:
            within = None if message.level is ReconcileLevel.FIRST_BYTE else message.prefixes
            return Reconciled(sums=await self.store.sums(within))
        # One more than is told, so that the last page is known for it.
        chunks = await self.store.list_within(message.prefixes, message.after, MAX_LISTED + 1)
        return Reconciled(replicas=tuple(map(_held, chunks[:MAX_LISTED])), more=len(chunks) > MAX_LISTED)


def _held(chunk: StoredChunk) -> HeldReplica:
    digest = replica_digest(chunk.replica, chunk.root, chunk.size_bytes)
    return HeldReplica(chunk.replica, digest, chunk.size_bytes)
