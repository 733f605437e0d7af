"""One chunk onto its nodes: sealed for each, sent to all at once; who fails is replaced by another."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import structlog
import trio

from fsn.coord.catalog import PlacedReplica
from fsn.coord.config import PlacementConfig, UploadConfig
from fsn.coord.membership import Membership
from fsn.coord.metrics import CoordinatorMetrics
from fsn.coord.recording import Recorder
from fsn.core.errors import (
    PeerError,
    PeerRefused,
    PeerTimeout,
    ProtocolViolation,
    TooFewCopies,
    TooFewNodes,
    Unreachable,
)
from fsn.core.ids import ChunkId, FileId, NodeId
from fsn.core.keys import FileKey
from fsn.core.patience import Patience
from fsn.core.sealing import TAG_BYTES, seal
from fsn.p2p.client import Requester
from fsn.p2p.wire.messages import ChunkStored, RefusalCode, StoreChunk

__all__ = ["Replicator"]

log = structlog.get_logger()

REMEMBERED_SETS = 10_000
PATIENCE_FACTOR = 10.0
NOTHING_STORED = frozenset({RefusalCode.FULL, RefusalCode.DRAINING, RefusalCode.NOT_AUTHORISED, RefusalCode.INVALID})
"""Refusals after which nothing lies on the node. One that failed inside, or gave up (BUSY), may have stored it all the same."""


class Replicator:
    """Stores chunks on nodes. Keeps consecutive chunks of a file on one set of nodes."""

    def __init__(
        self,
        membership: Membership,
        requester: Requester,
        recorder: Recorder,
        *,
        random_bytes: Callable[[int], bytes],
        upload: UploadConfig,
        placement: PlacementConfig,
        metrics: CoordinatorMetrics | None = None,
    ) -> None:
        self.membership = membership
        self.requester = requester
        self.recorder = recorder
        self.random_bytes = random_bytes
        self.upload = upload
        self.metrics = metrics or CoordinatorMetrics()
        self.patience = Patience(PATIENCE_FACTOR, upload.slow_seconds)
        self._chunks_per_set = placement.chunks_per_set
        self._sets: OrderedDict[tuple[FileId, int], tuple[NodeId, ...]] = OrderedDict()

    async def store(
        self, file: FileId, key: FileKey, index: int, chunk: ChunkId, plaintext: memoryview | bytes, copies: int
    ) -> tuple[PlacedReplica, ...]:
        """`copies` sealed replicas of a chunk, each durable on a node of its own.

        Raises TooFewNodes when fewer nodes are usable, TooFewCopies when not all acknowledged in time. Whatever was stored in vain, on
        failure and on cancellation, is queued for deletion.
        """
        work = _Placing(self, key, chunk, plaintext, self._targets(file, index, copies, len(plaintext)), range(copies))
        try:
            with trio.move_on_after(self.upload.chunk_seconds):
                await work.run()
        finally:
            if len(work.stored) < copies:
                self.recorder.discard(work.stored)
        if len(work.stored) < copies:
            self._sets.pop((file, index // self._chunks_per_set), None)
            raise TooFewCopies(
                f"{copies} nodes had to store chunk {index}; {len(work.stored)} did: send it again",
                wanted=copies,
                found=len(work.stored),
            )
        self._remember(file, index, tuple(replica.node for replica in work.stored))
        return tuple(sorted(work.stored, key=lambda replica: replica.number))

    async def store_beside(
        self,
        key: FileKey,
        chunk: ChunkId,
        plaintext: bytes,
        *,
        numbers: Sequence[int],
        beside: tuple[NodeId, ...],
        without: frozenset[NodeId],
        rather_not: frozenset[NodeId],
    ) -> tuple[PlacedReplica, ...]:
        """Replicas of a chunk that has others: one for each of `numbers`, or fewer; each durable on a node of its own, none of `without`,
        in other failure domains than `beside` while there are enough; on `rather_not` when nobody else can take it.

        Raises TooFewNodes when no node can take one, TooFewCopies when none did in time. On failure and on cancellation what was
        stored is queued for deletion.
        """
        copies, sealed_bytes = len(numbers), len(plaintext) + TAG_BYTES
        targets = self.membership.choose(copies, sealed_bytes, without=without | rather_not, beside=beside)
        if len(targets) < copies:
            beside_all = (*beside, *targets)
            targets += self.membership.choose(copies - len(targets), sealed_bytes, without=without, beside=beside_all)
        if not targets:
            raise TooFewNodes(wanted=len(numbers), found=0)
        work = _Placing(self, key, chunk, plaintext, tuple(targets), numbers, beside, without)
        has_ended = False
        try:
            with trio.move_on_after(self.upload.chunk_seconds):
                await work.run()
            has_ended = True
        finally:
            if not has_ended:
                self.recorder.discard(work.stored)
        if not work.stored:
            raise TooFewCopies(
                f"{len(targets)} nodes were asked to store a replica; none did", wanted=len(numbers), found=0
            )
        return tuple(sorted(work.stored, key=lambda replica: replica.number))

    def _targets(self, file: FileId, index: int, copies: int, size_bytes: int) -> tuple[NodeId, ...]:
        """The nodes of the chunk's set, gaps filled; a new set for every `chunks_per_set` chunks."""
        sealed_bytes = size_bytes + TAG_BYTES
        known = self._sets.get((file, index // self._chunks_per_set), ())
        kept = tuple(node for node in known if self._is_good(node, sealed_bytes))
        if len(kept) == copies:
            return kept
        fresh = self.membership.choose(copies - len(kept), sealed_bytes, beside=kept)
        if len(kept) + len(fresh) < copies:
            raise TooFewNodes(wanted=copies, found=len(kept) + len(fresh))
        targets = (*kept, *fresh)
        self._remember(file, index, targets)
        return targets

    def _is_good(self, node: NodeId, size_bytes: int) -> bool:
        member = self.membership.member(node)
        return (
            member is not None
            and self.membership.is_online(member)
            and member.free_bytes >= size_bytes
            and member.suspect_until <= trio.current_time()
        )

    def _remember(self, file: FileId, index: int, nodes: tuple[NodeId, ...]) -> None:
        key = (file, index // self._chunks_per_set)
        self._sets[key] = nodes
        self._sets.move_to_end(key)
        if len(self._sets) > REMEMBERED_SETS:
            self._sets.popitem(last=False)


class _Placing:
    """The copies of one chunk under way."""

    def __init__(
        self,
        replicator: Replicator,
        key: FileKey,
        chunk: ChunkId,
        plaintext: memoryview | bytes,
        targets: tuple[NodeId, ...],
        numbers: Sequence[int],
        beside: tuple[NodeId, ...] = (),
        without: frozenset[NodeId] = frozenset(),
    ) -> None:
        self.stored: list[PlacedReplica] = []
        self._with = replicator
        self._key = key
        self._chunk = chunk
        self._plaintext = plaintext
        self._targets = list(targets)
        self._numbers = numbers
        self._beside = beside
        self._tried: set[NodeId] = {*targets, *without}

    async def run(self) -> None:
        """Return when every copy is stored or has run out of candidates."""
        async with trio.open_nursery() as nursery:
            for place in range(len(self._targets)):
                nursery.start_soon(self._store_copy, place)

    async def _store_copy(self, place: int) -> None:
        most_seconds, is_last_try = self._with.upload.store_seconds, False
        while True:
            node = self._targets[place]
            within_seconds = most_seconds if is_last_try else min(self._with.patience.seconds, most_seconds)
            try:
                with self._with.metrics.storing_replica():
                    self.stored.append(await self._send(node, self._numbers[place], within_seconds))
                return
            except PeerError as error:
                log.warning("store_failed", node=str(node), chunk=self._chunk.hex, reason=error.message)
                self._with.membership.suspect(node)
                is_late = isinstance(error, PeerTimeout) and within_seconds < most_seconds
            if (replacement := self._replacement(place)) is not None:
                self._targets[place] = replacement
                self._tried.add(replacement)
            elif is_late:  # and nobody could take its place: it gets all the time there is
                is_last_try = True
            else:
                return

    async def _send(self, node: NodeId, number: int, within_seconds: float) -> PlacedReplica:
        """Seal a copy for `node` and hand it over. A replica id is drawn for every try: sealed bytes go to one node only."""
        member = self._with.membership.member(node)
        if member is None:
            raise Unreachable(f"node {node} is not connected")
        sealed = seal(self._key, self._chunk, self._plaintext, self._with.random_bytes)
        replica = PlacedReplica(sealed.replica, number, node, sealed.root, len(sealed.data))
        began = trio.current_time()
        may_lie_there = True  # so it is when the answer is lost, says something else, or we are cancelled
        try:
            answer = await self._with.requester.request(
                member.peer,
                StoreChunk(sealed.replica, sealed.root, sealed.data),
                within_seconds=within_seconds,
            )
            if answer != ChunkStored(sealed.replica):
                raise ProtocolViolation(
                    f"{member.peer} was sent replica {sealed.replica.hex}; it acknowledged {answer}"
                )
            may_lie_there = False
        except PeerRefused as error:
            may_lie_there = error.refusal not in NOTHING_STORED
            raise
        except PeerTimeout:
            self._with.patience.note(within_seconds)  # at least: when all turn slow, so must we
            raise
        finally:
            if may_lie_there:
                self._with.recorder.discard([replica])
        self._with.patience.note(trio.current_time() - began)
        self._with.membership.spend(node, replica.sealed_bytes)
        return replica

    def _replacement(self, place: int) -> NodeId | None:
        beside = (*self._beside, *(node for other, node in enumerate(self._targets) if other != place))
        size_bytes = len(self._plaintext) + TAG_BYTES
        chosen = self._with.membership.choose(1, size_bytes, without=frozenset(self._tried), beside=beside)
        return chosen[0] if chosen else None
