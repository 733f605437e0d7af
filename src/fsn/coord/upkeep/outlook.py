"""What repair knows of the nodes at a moment: who is silent, for how long; and whether so many are that nothing follows from it."""

from collections.abc import Awaitable, Callable, Mapping

import attrs
import structlog
import trio

from fsn.coord.config import RepairConfig
from fsn.coord.database.chunk_states import ChunkState, HeldReplica
from fsn.coord.database.presence import Silence
from fsn.coord.metrics import CoordinatorMetrics
from fsn.core.ids import NodeId, ReplicaId
from fsn.core.placement import Candidate, network_prefix
from fsn.core.repair import Grace, Holder, PauseRule, Plan, fell_together, must_pause, plan

__all__ = ["Outlook", "Outlooks"]

log = structlog.get_logger()


@attrs.frozen
class Outlook:
    """Who is silent now. `paused_because` is None while repair goes on as usual."""

    silences: Mapping[NodeId, Silence]
    grace: Grace
    paused_because: str | None = None

    def holder(self, replica: HeldReplica) -> Holder[ReplicaId]:
        """A replica of the catalogue as the rules see it."""
        silence = self.silences.get(replica.node)
        return Holder(
            replica.id,
            replica.status,
            silence.watched_seconds if silence else None,
            replica.is_lost,
            Candidate(
                replica.node,
                replica.operator,
                network_prefix(replica.observed_address) if replica.observed_address else None,
                replica.region,
                replica.free_bytes,
                replica.reputation,
            ),
        )

    def plan(self, state: ChunkState) -> Plan[ReplicaId]:
        """What is to be done about a chunk."""
        return self.plan_of([self.holder(replica) for replica in state.replicas], state.wanted)

    def plan_of(self, holders: list[Holder[ReplicaId]], wanted: int) -> Plan[ReplicaId]:
        """The same, of holders."""
        return plan(holders, wanted, self.grace, is_paused=self.paused_because is not None)


class Outlooks:
    """Looks anew when the last look is older than a tick."""

    def __init__(
        self,
        read_silences: Callable[[], Awaitable[Mapping[NodeId, Silence]]],
        count_heard: Callable[[], int],
        config: RepairConfig,
        metrics: CoordinatorMetrics,
    ) -> None:
        self._read_silences = read_silences
        self._count_heard = count_heard
        self._tick_seconds = config.tick_seconds
        self._grace = Grace(config.grace_hours * 3600, config.short_grace_minutes * 60)
        self._rule = PauseRule(
            config.pause_share, config.pause_min_nodes, config.together_minutes * 60, config.pause_hours * 3600
        )
        self._metrics = metrics
        self._looked_at = 0.0
        self.latest: Outlook | None = None

    async def current(self) -> Outlook:
        """Not older than a tick. Raises Unavailable."""
        if self.latest is None or trio.current_time() - self._looked_at >= self._tick_seconds:
            return await self.look()
        return self.latest

    async def look(self) -> Outlook:
        """As things stand now. Raises Unavailable."""
        silences = await self._read_silences()
        outlook = Outlook(silences, self._grace, self._reason_to_pause(silences))
        self._tell(outlook)
        self.latest, self._looked_at = outlook, trio.current_time()
        return outlook

    def _reason_to_pause(self, silences: Mapping[NodeId, Silence]) -> str | None:
        ages, heard = [silence.watched_seconds for silence in silences.values()], self._count_heard()
        if not must_pause(ages, heard, self._rule):
            return None
        return f"{fell_together(ages, self._rule)} nodes fell silent together, {heard} are heard: repair waits for the silent"

    def _tell(self, outlook: Outlook) -> None:
        was = self.latest.paused_because if self.latest else None
        self._metrics.repair_paused.set(outlook.paused_because is not None)
        if outlook.paused_because and not was:
            log.error("repair_paused", reason=outlook.paused_because, silent=len(outlook.silences))
        elif was and not outlook.paused_because:
            log.warning("repair_resumed", silent=len(outlook.silences))
