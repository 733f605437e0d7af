"""Steps of a story: what each is, and the stage on which it is performed."""

from typing import ClassVar, Final

import attrs
from attrs.validators import ge, le

from fsn.core.errors import ConfigError, FsnError
from fsn.sim.invariants import Invariants
from fsn.sim.network import Network
from fsn.sim.nodes import SimNode
from fsn.sim.users import SimFile

__all__ = ["OnNodes", "Stage", "Step"]

DAY: Final = 86400.0


@attrs.define(eq=False)
class Stage:
    """Where a story is played: the network, what watches it, and what was expected in vain."""

    net: Network
    invariants: Invariants
    failures: list[str] = attrs.field(factory=list)
    refused: int = 0
    """Uploads that the network did not take: no promise, no harm."""

    def files(self) -> list[SimFile]:
        """What the network owes."""
        return [file for user in self.net.users for file in user.files.values()]

    def expect(self, is_so: bool, details: str) -> None:
        """Note a failure unless it is so."""
        if not is_so:
            self.failures.append(details)
            self.net.timeline.note("story", "expected_in_vain", details=details)

    async def put(self, size_bytes: int, replicas: int | None) -> None:
        """Upload random bytes; a refusal is counted."""
        try:
            await self.net.user.put(self.net.rng.randbytes(size_bytes), replicas=replicas)
        except FsnError as error:
            self.refused += 1
            self.net.timeline.note("user0", "put_refused", reason=error.code)


@attrs.frozen(kw_only=True)
class Step:
    """One thing that happens."""

    verb: ClassVar[str]

    async def perform(self, stage: Stage) -> None:
        """Make it happen; return when it has."""
        raise NotImplementedError


@attrs.frozen(kw_only=True)
class OnNodes(Step):
    """Something that happens to some nodes: those named, or so many or such a share at random of those it can happen to."""

    nodes: tuple[int, ...] = ()
    """By number, from 0."""
    count: int = attrs.field(default=0, validator=ge(0))
    """So many, by lot."""
    share: float = attrs.field(default=0.0, validator=[ge(0), le(1)])
    """Such a part, by lot, rounded up: 0.5 is half of them."""

    def chosen(self, stage: Stage) -> list[SimNode]:
        """The nodes; all that it can happen to when nothing is said. Raises ConfigError for a number that no node has."""
        able = [node for node in stage.net.nodes if self.can_happen_to(node)]
        if self.nodes:
            return [_numbered(stage, number) for number in self.nodes]
        if self.count or self.share:
            wanted = self.count or -(-len(able) * self.share // 1)
            return stage.net.rng.sample(able, min(int(wanted), len(able)))
        return able

    def can_happen_to(self, node: SimNode) -> bool:
        """Whether lots are drawn for it, too."""
        return node.is_running

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        for node in self.chosen(stage):
            await self.befall(node, stage)

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """Make it happen to one node."""
        raise NotImplementedError


def _numbered(stage: Stage, number: int) -> SimNode:
    if not 0 <= number < len(stage.net.nodes):
        raise ConfigError(f"nodes are numbered 0..{len(stage.net.nodes) - 1} here; found {number}")
    return stage.net.nodes[number]
