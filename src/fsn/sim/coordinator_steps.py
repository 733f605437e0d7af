"""Steps that end a coordinator in the middle of its work."""

import attrs
import trio
from attrs.validators import gt

from fsn.core.errors import FsnError
from fsn.runtime.config import ByteSize
from fsn.sim.everyday_steps import OnCoordinator
from fsn.sim.standing_steps import Drain
from fsn.sim.steps import Stage, Step
from fsn.sim.timeline import Event

__all__ = ["KillAmidUpload", "KillCoordinatorAt"]


@attrs.frozen(kw_only=True)
class KillAmidUpload(OnCoordinator):
    """A user uploads a file through this coordinator, which is killed meanwhile. What is acknowledged all the same is owed."""

    verb = "kill_amid_upload"
    size: ByteSize = attrs.field(default=ByteSize(3_000_000), validator=gt(ByteSize(0)))
    """Of the file."""
    after_seconds: float = attrs.field(default=1.0, validator=gt(0))
    """So long after its beginning."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        coordinator, net = self.check(stage), stage.net
        content = net.rng.randbytes(self.size)

        async def upload() -> None:
            try:
                await net.user.put(content, via=coordinator)
            except FsnError as error:
                net.timeline.note(net.user.name, "put_broken", reason=error.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await net.advance(seconds=self.after_seconds)
            await coordinator.kill()


@attrs.frozen(kw_only=True)
class KillCoordinatorAt(Step):
    """The coordinator that tells of an event first is killed at that moment: with the rest of its work under way."""

    verb = "kill_coordinator_at"
    what: str
    """The event's word, as the timeline shows it, e.g. "repairs_recorded"."""
    hours: float = attrs.field(default=1.0, validator=gt(0))
    """It is waited for so long; that it does not happen is a failure of the story."""
    drains: tuple[int, ...] = ()
    """These nodes, by number, begin to drain first: in a small network the drain would be over before another step begins."""

    async def perform(self, stage: Stage) -> None:
        """See `Step.perform`."""
        names = {each.name: each for each in stage.net.coordinators}
        send, receive = trio.open_memory_channel[Event](1)

        def listen(event: Event) -> None:
            if event.what == self.what and event.who in names and not send.statistics().current_buffer_used:
                send.send_nowait(event)

        stage.net.listeners.append(listen)
        try:
            if self.drains:
                await Drain(nodes=self.drains).perform(stage)
            with trio.move_on_after(self.hours * 3600) as waiting:
                await names[(await receive.receive()).who].kill()
        finally:
            stage.net.listeners.remove(listen)
        stage.expect(
            not waiting.cancelled_caught, f"{self.what} within {self.hours:g} hours; no coordinator told of it"
        )
