"""Everyday steps: files come and go, time passes, nodes join, coordinators end and begin."""

from typing import Final

import attrs
import trio
from attrs.validators import ge, gt

from fsn.core.errors import ConfigError, FsnError
from fsn.runtime.config import ByteSize
from fsn.sim.coordinators import SimCoordinator
from fsn.sim.steps import Stage, Step

DAY: Final = 86400.0

__all__ = [
    "AddNodes",
    "Advance",
    "Delete",
    "FindDatabase",
    "KillCoordinator",
    "LoseDatabase",
    "OnCoordinator",
    "Put",
    "ReadAll",
    "StartCoordinator",
    "WaitOnline",
]


@attrs.frozen(kw_only=True)
class Put(Step):
    """A user uploads files of random bytes. One that is refused (too few nodes, say) is counted, no more."""

    verb = "put"
    files: int = attrs.field(default=1, validator=ge(1))
    """How many."""
    size: ByteSize = attrs.field(default=ByteSize(100_000), validator=ge(ByteSize(0)))
    """Of each, e.g. "300KB"."""
    replicas: int | None = None
    """Of each; the policy's when it is not given."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        for _ in range(self.files):
            await stage.put(self.size, self.replicas)


@attrs.frozen(kw_only=True)
class Delete(Step):
    """A user deletes files, by lot."""

    verb = "delete"
    files: int = attrs.field(default=1, validator=ge(1))
    """How many."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        there = stage.files()
        for file in stage.net.rng.sample(there, min(self.files, len(there))):
            await stage.net.user.delete(file)


@attrs.frozen(kw_only=True)
class ReadAll(Step):
    """Every file is downloaded and compared; one that does not come back is a failure of the story."""

    verb = "read_all"

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        for file in stage.files():
            try:
                await stage.net.user.get(file)
            except FsnError as error:
                stage.expect(False, f"{file.id} does not come back: {error.message}")


@attrs.frozen(kw_only=True)
class Advance(Step):
    """Time passes. Invariants are looked at on the way, every six hours."""

    verb = "advance"
    days: float = attrs.field(default=0.0, validator=ge(0))
    """The parts add up."""
    hours: float = attrs.field(default=0.0, validator=ge(0))
    """And so many hours."""
    minutes: float = attrs.field(default=0.0, validator=ge(0))
    """And so many minutes."""
    seconds: float = attrs.field(default=0.0, validator=ge(0))
    """And so many seconds."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        left = self.days * DAY + self.hours * 3600 + self.minutes * 60 + self.seconds
        while left > 0:
            await stage.net.advance(seconds=min(left, DAY / 4))
            left -= DAY / 4
            if left > 0:
                await stage.invariants.check()


@attrs.frozen(kw_only=True)
class WaitOnline(Step):
    """Until the coordinator has heard of each node that runs and can be reached; an hour at most."""

    verb = "wait_online"

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        try:
            await stage.net.wait_online()
        except trio.TooSlowError:
            stage.expect(False, "not all nodes were online after an hour")


@attrs.frozen(kw_only=True)
class AddNodes(Step):
    """New nodes join."""

    verb = "add_nodes"
    count: int = attrs.field(default=1, validator=gt(0))
    """How many."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        for _ in range(self.count):
            await stage.net.add_node()


@attrs.frozen(kw_only=True)
class OnCoordinator(Step):
    """Something that happens to a coordinator."""

    coordinator: int = attrs.field(default=0, validator=ge(0))
    """By number, from 0."""

    def check(self, stage: Stage) -> SimCoordinator:
        """The coordinator. Raises ConfigError for a number that none has."""
        there = stage.net.coordinators
        if self.coordinator >= len(there):
            raise ConfigError(f"coordinators are numbered 0..{len(there) - 1} here; found {self.coordinator}")
        return there[self.coordinator]


@attrs.frozen(kw_only=True)
class KillCoordinator(OnCoordinator):
    """As kill -9: connections to nodes and database break at once."""

    verb = "kill_coordinator"

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        await self.check(stage).kill()


@attrs.frozen(kw_only=True)
class StartCoordinator(OnCoordinator):
    """It is started again."""

    verb = "start_coordinator"

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        await self.check(stage).start()


@attrs.frozen(kw_only=True)
class LoseDatabase(OnCoordinator):
    """It reaches the database no more."""

    verb = "lose_database"

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        self.check(stage).lose_database()


@attrs.frozen(kw_only=True)
class FindDatabase(OnCoordinator):
    """It reaches the database again."""

    verb = "find_database"

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        self.check(stage).find_database()
