"""Steps that take days: nights in which machines are off, and whole lives in which anything may happen, by lot."""

from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from random import Random
from typing import Final

import attrs
from attrs.validators import ge, gt, le

from fsn.core.errors import FsnError
from fsn.runtime.config import ByteSize
from fsn.sim.nodes import SimNode
from fsn.sim.steps import OnNodes, Stage, Step

__all__ = ["Life", "Nights"]

DAY: Final = 86400.0
WEEK: Final = 7 * DAY
CHECK_SECONDS: Final = DAY / 4
SMALL_BYTES: Final = 2000


@attrs.frozen(kw_only=True)
class Nights(OnNodes):
    """These nodes are switched off every night, each within the hour, and on again in the morning."""

    verb = "nights"
    days: int = attrs.field(default=3, validator=gt(0))
    """So many nights."""
    hours_off: float = attrs.field(default=8.0, validator=[gt(0), le(22)])
    """How long a night is."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        nodes, agenda = self.chosen(stage), Agenda(stage)
        for day in range(self.days):
            for node in nodes:
                evening = day * DAY + stage.net.rng.random() * 3600
                agenda.at(evening, node.stop)
                agenda.at(evening + self.hours_off * 3600, node.start)
        await agenda.play(self.days * DAY)


@attrs.frozen(kw_only=True)
class Life(Step):
    """Days in which files come and go, machines are off for a while, and some never come back; new ones take their place."""

    verb = "life"
    days: float = attrs.field(default=7.0, validator=gt(0))
    """How long."""
    deaths_per_week: float = attrs.field(default=0.05, validator=[ge(0), le(1)])
    """Such a part of the nodes dies in a week, with its disk."""
    newcomer_hours: float = attrs.field(default=24.0, validator=gt(0))
    """On the average so long after a death another node joins."""
    outages_per_week: float = attrs.field(default=1.0, validator=ge(0))
    """So often a node is away for a while: killed, without power, cut off, or stopped in order."""
    outage_hours: float = attrs.field(default=3.0, validator=gt(0))
    """On the average so long."""
    rot_per_week: float = attrs.field(default=0.0, validator=ge(0))
    """So often bits flip in a chunk of a node."""
    coordinator_kills_per_week: float = attrs.field(default=1.0, validator=ge(0))
    """So often a coordinator is killed; it is started again a few minutes later."""
    puts_per_day: float = attrs.field(default=10.0, validator=ge(0))
    """So many files are uploaded."""
    deletes_per_day: float = attrs.field(default=4.0, validator=ge(0))
    """So many are deleted."""
    most_bytes: ByteSize = attrs.field(default=ByteSize(300_000), validator=ge(ByteSize(SMALL_BYTES)))
    """The largest file; most are far smaller."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        await _Living(self, stage).run()


class Agenda:
    """What is to be done at which time; in between time passes and invariants are looked at."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._began = stage.net.now
        self._number = 0
        self._entries: list[tuple[float, int, Callable[[], Awaitable[object]]]] = []

    @property
    def now(self) -> float:
        """Seconds since the step began."""
        return self._stage.net.now - self._began

    def at(self, seconds: float, do: Callable[[], Awaitable[object]]) -> None:
        """So long after the step began."""
        self._number += 1
        heappush(self._entries, (seconds, self._number, do))

    async def play(self, seconds: float) -> None:
        """Until so long after the step began; what would come later is left out."""
        next_check = CHECK_SECONDS
        while self._entries and self._entries[0][0] <= seconds:
            due, _, do = heappop(self._entries)
            next_check = await self._check_until(due, next_check)
            await self._wait_until(due)
            await do()
        await self._check_until(seconds, next_check)
        await self._wait_until(seconds)

    async def _check_until(self, due: float, next_check: float) -> float:
        while next_check < due:
            await self._wait_until(next_check)
            await self._stage.invariants.check()
            next_check += CHECK_SECONDS
        return next_check

    async def _wait_until(self, due: float) -> None:
        if due > self.now:
            await self._stage.net.advance(seconds=due - self.now)


class _Living:
    """One life under way."""

    def __init__(self, life: Life, stage: Stage) -> None:
        self._life = life
        self._stage = stage
        self._net = stage.net
        self._rng = Random(stage.net.rng.getrandbits(64))  # noqa: S311 - repeatable on purpose
        self._agenda = Agenda(stage)

    async def run(self) -> None:
        """Draw what happens, each kind by its own rate, and let it happen."""
        life, count = self._life, len([node for node in self._net.nodes if not node.is_gone])
        self._repeat(life.puts_per_day / DAY, self._put)
        self._repeat(life.deletes_per_day / DAY, self._delete)
        self._repeat(life.deaths_per_week * count / WEEK, self._die)
        self._repeat(life.outages_per_week * count / WEEK, self._go_away)
        self._repeat(life.rot_per_week * count / WEEK, self._rot)
        self._repeat(life.coordinator_kills_per_week * len(self._net.coordinators) / WEEK, self._kill_coordinator)
        await self._agenda.play(life.days * DAY)
        await self._come_back()

    def _repeat(self, per_second: float, do: Callable[[], Awaitable[None]]) -> None:
        """A Poisson process."""
        end = self._life.days * DAY
        at = self._rng.expovariate(per_second) if per_second else end
        while at < end:
            self._agenda.at(at, do)
            at += self._rng.expovariate(per_second)

    def _later(self, average_seconds: float, do: Callable[[], Awaitable[object]]) -> None:
        self._agenda.at(self._agenda.now + self._rng.expovariate(1 / average_seconds), do)

    async def _put(self) -> None:
        size = int(SMALL_BYTES * (self._life.most_bytes / SMALL_BYTES) ** self._rng.random())
        await self._stage.put(size, None)

    async def _delete(self) -> None:
        if files := self._stage.files():
            try:
                await self._net.user.delete(self._rng.choice(files))
            except FsnError as error:
                self._net.timeline.note("user0", "delete_failed", reason=error.code)

    async def _die(self) -> None:
        if alive := [node for node in self._net.nodes if not node.is_gone]:
            await self._rng.choice(alive).die()
            self._later(self._life.newcomer_hours * 3600, self._join)

    async def _join(self) -> None:
        if self._net.coordinator.is_serving:
            await self._net.add_node()
        else:
            self._later(3600, self._join)

    async def _go_away(self) -> None:
        if not (there := [node for node in self._net.nodes if node.is_reachable]):
            return
        node = self._rng.choice(there)
        how = self._rng.choice(["stop", "kill", "power_off", "cut_off"])
        if how == "cut_off":
            node.cut_off()
        else:
            await {"stop": node.stop, "kill": node.kill, "power_off": node.power_off}[how]()
        self._later(self._life.outage_hours * 3600, lambda: self._return(node))

    async def _return(self, node: SimNode) -> None:
        if node.is_gone:
            return
        if node.place.is_silent:
            node.mend()
        await node.start()

    async def _rot(self) -> None:
        if there := [node for node in self._net.nodes if not node.is_gone]:
            self._rng.choice(there).rot(1)

    async def _kill_coordinator(self) -> None:
        coordinator = self._rng.choice(self._net.coordinators)
        await coordinator.kill()
        self._later(600, coordinator.start)

    async def _come_back(self) -> None:
        """Who is away for a while is back at the end."""
        for coordinator in self._net.coordinators:
            await coordinator.start()
        for node in self._net.nodes:
            await self._return(node)
