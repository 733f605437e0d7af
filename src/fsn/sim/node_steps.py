"""Steps that befall nodes: their processes and their way into the network."""

import attrs
from attrs.validators import ge, gt, le

from fsn.runtime.config import ByteSize
from fsn.sim.nodes import SimNode
from fsn.sim.steps import OnNodes, Stage

__all__ = [
    "CutOff",
    "Die",
    "JumpClock",
    "Kill",
    "Mend",
    "Partition",
    "Pause",
    "Place",
    "PowerOff",
    "Readdress",
    "Start",
    "Stop",
]


@attrs.frozen(kw_only=True)
class Kill(OnNodes):
    """As kill -9: connections break at once, the disk stays."""

    verb = "kill"

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        await node.kill()


@attrs.frozen(kw_only=True)
class PowerOff(OnNodes):
    """Gone without a word; others notice late."""

    verb = "power_off"

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        await node.power_off()


@attrs.frozen(kw_only=True)
class Stop(OnNodes):
    """As SIGTERM: it ends in order."""

    verb = "stop"

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        await node.stop()


@attrs.frozen(kw_only=True)
class Die(OnNodes):
    """Gone for good, with its disk."""

    verb = "die"

    def can_happen_to(self, node: SimNode) -> bool:
        """See `OnNodes`."""
        return not node.is_gone

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        await node.die()


@attrs.frozen(kw_only=True)
class Start(OnNodes):
    """Nodes that do not run are started; all of them when none is named."""

    verb = "start"

    def can_happen_to(self, node: SimNode) -> bool:
        """See `OnNodes`."""
        return not node.is_running and not node.is_gone

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        await node.start()


@attrs.frozen(kw_only=True)
class CutOff(OnNodes):
    """Nothing gets through to them, and nobody is told."""

    verb = "cut_off"

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        node.cut_off()


@attrs.frozen(kw_only=True)
class Pause(OnNodes):
    """As SIGSTOP."""

    verb = "pause"

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        node.pause()


@attrs.frozen(kw_only=True)
class Mend(OnNodes):
    """Partitions, cuts and pauses are over; of all nodes when none is named."""

    verb = "mend"

    def can_happen_to(self, node: SimNode) -> bool:
        """See `OnNodes`."""
        return node.place.is_silent

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        stage.net.mend()
        await OnNodes.perform(self, stage)

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        node.resume()
        node.mend()


@attrs.frozen(kw_only=True)
class Partition(OnNodes):
    """Nothing gets through between these nodes and all the others with the coordinators, until `mend`."""

    verb = "partition"

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        side = self.chosen(stage)
        stage.net.partition([], list(side))


@attrs.frozen(kw_only=True)
class Readdress(OnNodes):
    """They have another IP address from now on; their connections are dead."""

    verb = "readdress"

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        node.readdress(f"12.{stage.net.rng.randrange(250)}.{stage.net.rng.randrange(250)}.9")


@attrs.frozen(kw_only=True)
class JumpClock(OnNodes):
    """Their clocks on the wall are set forward, or back."""

    verb = "jump_clock"
    seconds: float
    """By so much."""

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        node.jump_clock(self.seconds)


@attrs.frozen(kw_only=True)
class Place(OnNodes):
    """Their way into the network is so from now on."""

    verb = "place"
    latency_seconds: float = attrs.field(default=0.0, validator=ge(0))
    """One way, to the middle of the network."""
    jitter_seconds: float = attrs.field(default=0.0, validator=ge(0))
    """Up to so much more."""
    loss: float = attrs.field(default=0.0, validator=[ge(0), le(0.9)])
    """The share of packets lost."""
    bytes_per_second: ByteSize = attrs.field(default=ByteSize(1 << 40), validator=gt(ByteSize(0)))
    """In each direction, e.g. "2MB"."""

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        place = node.place
        place.latency_seconds, place.jitter_seconds, place.loss = self.latency_seconds, self.jitter_seconds, self.loss
        place.bytes_per_second = float(self.bytes_per_second)
