"""One chunk back from its nodes: the first replica that opens rightly; a second node is asked as well when the first is late."""

from collections import deque
from collections.abc import Callable
from random import Random

import attrs
import structlog
import trio

from fsn.coord.catalog import StoredChunk
from fsn.coord.config import DownloadConfig
from fsn.coord.membership import Member, Membership
from fsn.coord.metrics import CoordinatorMetrics
from fsn.core.errors import Corrupt, PeerError, PeerRefused, ProtocolViolation, TooFewCopies
from fsn.core.ids import ReplicaId
from fsn.core.keys import FileKey
from fsn.core.patience import Patience
from fsn.core.sealing import open_replica
from fsn.p2p.client import Requester
from fsn.p2p.wire.messages import ChunkRetrieved, RefusalCode, RetrieveChunk
from fsn.runtime.groups import sole_error

__all__ = ["Fetcher"]

log = structlog.get_logger()

PATIENCE_FACTOR = 3.0
LOSSES = frozenset({RefusalCode.NOT_FOUND, RefusalCode.CORRUPT})
"""With these a node says itself that it has the replica no more."""


class Fetcher:
    """Fetches chunks. What it returns was authenticated: right bytes or an error."""

    def __init__(
        self,
        membership: Membership,
        requester: Requester,
        *,
        chance: Random,
        config: DownloadConfig,
        metrics: CoordinatorMetrics | None = None,
        note_lost: Callable[[ReplicaId, str], None] = lambda replica, reason: None,
    ) -> None:
        self.patience = Patience(PATIENCE_FACTOR, config.hedge_seconds)
        self.hedges = 0
        """How often a second node was asked because the first was late."""
        self._membership = membership
        self._requester = requester
        self._chance = chance
        self._within_seconds = config.retrieve_seconds
        self._metrics = metrics or CoordinatorMetrics()
        self._note_lost = note_lost

    async def fetch(self, chunk: StoredChunk, key: FileKey) -> bytes:
        """The chunk's plaintext. Raises TooFewCopies when no replica of it can be read now.

        Replicas that are gone or do not authenticate are noted as lost, but only where another one of the chunk has proved that the
        key and the catalogue are right: a coordinator with an old database or a wrong key condemns nobody.
        """
        with self._metrics.retrieving_chunk():
            return await self._fetch(chunk, key)

    async def _fetch(self, chunk: StoredChunk, key: FileKey) -> bytes:
        race = _Race(chunk, key, deque(self._reachable(chunk)))
        reachable = len(race.waiting)
        with sole_error():
            async with trio.open_nursery() as nursery:
                race.scope = nursery.cancel_scope
                while race.waiting:
                    race.news = trio.Event()
                    nursery.start_soon(self._run, race, race.waiting.popleft())
                    with trio.move_on_after(self.patience.seconds) as waiting:
                        await race.news.wait()
                    self.hedges += waiting.cancelled_caught and bool(race.waiting)
        if race.plaintext is None:
            raise TooFewCopies(
                f"chunk {chunk.index} cannot be read now: it has {len(chunk.replicas)} replicas, {reachable} on nodes that are"
                " connected, and none of these gave it",
                wanted=1,
                found=0,
            )
        for replica, reason in race.refuted:
            self._note_lost(replica, reason)
        return race.plaintext

    async def _run(self, race: "_Race", runner: "_Runner") -> None:
        """Ask one node; the first to come in with the right bytes ends the race."""
        race.running.append(runner)
        try:
            with self._metrics.retrieving_replica():
                race.plaintext = await self._ask(race.chunk, race.key, runner)
        except (PeerError, Corrupt) as error:
            race.running.remove(runner)
            self._note_failure(race.chunk, runner, error)
            if not runner.is_lost and (reason := _loss(error)):
                race.refuted.append((runner.replica, reason))
            race.news.set()
            return
        for late in race.running[: race.running.index(runner)]:  # asked before it, and beaten
            self._membership.note_slow(late.member)
        race.scope.cancel()

    async def _ask(self, chunk: StoredChunk, key: FileKey, runner: "_Runner") -> bytes:
        began = trio.current_time()
        member = runner.member
        with self._membership.reading(member):
            answer = await self._requester.request(
                member.peer, RetrieveChunk(runner.replica), within_seconds=self._within_seconds
            )
        if not isinstance(answer, ChunkRetrieved):
            raise ProtocolViolation(f"{member.peer} answered a retrieve with {type(answer).__name__}")
        plaintext = open_replica(
            key, chunk=chunk.id, replica=runner.replica, size_bytes=chunk.size_bytes, data=answer.data
        )
        self.patience.note(trio.current_time() - began)
        return plaintext

    def _note_failure(self, chunk: StoredChunk, runner: "_Runner", error: PeerError | Corrupt) -> None:
        if not isinstance(error, PeerRefused | Corrupt):
            self._membership.note_slow(runner.member)
        log.warning(
            "retrieve_failed",
            node=str(runner.member.node),
            replica=runner.replica.hex,
            chunk=chunk.id.hex,
            reason=error.message,
        )

    def _reachable(self, chunk: StoredChunk) -> list["_Runner"]:
        """The replicas on connected nodes: lost ones last, before them those that were slow of late; the least busy node first, by lot
        among equals."""
        found = []
        for is_lost, replicas in enumerate((chunk.replicas, chunk.lost)):
            for replica, node in replicas:
                member = self._membership.member(node)
                if member is not None and self._membership.is_connected(member):
                    rank = (is_lost, self._membership.is_slow(member), member.reads, self._chance.random())
                    found.append((rank, _Runner(replica, member, bool(is_lost))))
        found.sort(key=lambda item: item[0])
        return [runner for _, runner in found]


def _loss(error: PeerError | Corrupt) -> str | None:
    """Why the replica is lost; None when the error says nothing about that."""
    if isinstance(error, Corrupt):
        return "read: does not authenticate"
    if isinstance(error, PeerRefused) and error.refusal in LOSSES:
        return f"read: {error.refusal}"
    return None


@attrs.frozen(eq=False)
class _Runner:
    """A replica and the node that has it."""

    replica: ReplicaId
    member: Member
    is_lost: bool = False


@attrs.define(eq=False)
class _Race:
    """The nodes that are asked for one chunk: one as a rule."""

    chunk: StoredChunk
    key: FileKey
    waiting: deque[_Runner]
    running: list[_Runner] = attrs.field(factory=list)
    """In the order of their start."""
    plaintext: bytes | None = None
    refuted: list[tuple[ReplicaId, str]] = attrs.field(factory=list)
    """Replicas that are not there, or not right, and what showed it."""
    news: trio.Event = attrs.field(factory=trio.Event)
    """Set when somebody gave up: the next may start at once."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
