"""Steps in which owners of nodes declare what they are about to do: leave for good, or be away for a while."""

import attrs
from attrs.validators import gt, optional

from fsn.core.errors import FsnError, Unavailable
from fsn.node.declaring import Declaring
from fsn.sim.nodes import SimNode
from fsn.sim.steps import OnNodes, Stage
from fsn.sim.timeline import acting_as

__all__ = ["CancelDrain", "Declare", "Drain", "EndMaintenance", "Maintenance"]


class Declare(OnNodes):
    """What an owner tells the node, as `fsn node` does it. One that is refused is noted as `..._refused`, no more."""

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        stage.net.timeline.note(node.name, self.verb)
        try:
            if node.services is None:
                raise Unavailable(f"{node.name} does not run")
            with acting_as(node.name):
                await self.declare(node.services.declaring)
        except FsnError as error:
            stage.net.timeline.note(node.name, f"{self.verb}_refused", reason=error.code, details=error.message)

    async def declare(self, declaring: Declaring) -> None:
        """Tell it."""
        raise NotImplementedError


@attrs.frozen(kw_only=True)
class Drain(Declare):
    """They leave: copies of their chunks are made elsewhere first, then theirs are deleted."""

    verb = "drain"
    deadline_hours: float | None = attrs.field(default=None, validator=optional(gt(0)))
    """They wait no longer than this, whatever has been copied; for ever when it is not given."""

    async def declare(self, declaring: Declaring) -> None:
        """See `Declare`."""
        await declaring.drain(self.deadline_hours)


@attrs.frozen(kw_only=True)
class CancelDrain(Declare):
    """They stay after all."""

    verb = "cancel_drain"

    async def declare(self, declaring: Declaring) -> None:
        """See `Declare`."""
        await declaring.cancel_drain()


@attrs.frozen(kw_only=True)
class Maintenance(Declare):
    """They will be away for a while, and say so: nothing is repaired until it is over, be they there or not."""

    verb = "maintenance"
    hours: float = attrs.field(default=4.0, validator=gt(0))
    """How long."""
    reason: str = "a story"
    """As the nodes' list shows it."""

    async def declare(self, declaring: Declaring) -> None:
        """See `Declare`."""
        await declaring.begin_maintenance(self.hours, self.reason)


@attrs.frozen(kw_only=True)
class EndMaintenance(Declare):
    """They are back before the time."""

    verb = "end_maintenance"

    async def declare(self, declaring: Declaring) -> None:
        """See `Declare`."""
        await declaring.end_maintenance()
