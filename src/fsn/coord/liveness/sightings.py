"""The worker that writes what this coordinator hears of nodes: many in one statement, heartbeats once a second, changes at once."""

from typing import Final

import trio

from fsn.coord.database.nodes import record_sightings
from fsn.coord.database.pool import Pool
from fsn.coord.database.presence import record_presence
from fsn.coord.membership import Membership
from fsn.core.ids import PeerId
from fsn.runtime.supervise import Rest

__all__ = ["SightingRecording"]

FLUSH_SECONDS: Final = 1.0


class SightingRecording:
    """Writes heartbeats, and who came or went with what that makes of its state.

    Looked at after a pause of `stall_seconds` or more, nobody counts as silent: it was this process that did not listen.
    """

    name: Final = "sighting_recording"

    def __init__(self, membership: Membership, db: Pool, coordinator: PeerId, *, stall_seconds: float) -> None:
        self._membership = membership
        self._db = db
        self._coordinator = coordinator
        self._stall_seconds = stall_seconds
        self._looked_at: float | None = None

    async def step(self) -> Rest:
        """Write what changed since the last step."""
        self._notice_stall()
        changes = self._membership.presence_changes()
        if changes:
            for step in await record_presence(self._db, self._coordinator, changes):
                self._membership.note_status(step.node, step.to)
            self._membership.note_recorded(changes)
        await self._write_sightings()
        return Rest(FLUSH_SECONDS, self._membership.changed)

    def _notice_stall(self) -> None:
        now = trio.current_time()
        if self._looked_at is not None and now - self._looked_at > self._stall_seconds:
            self._membership.resume()
        self._looked_at = now

    async def _write_sightings(self) -> None:
        sightings = self._membership.dirty_sightings()
        is_written = not sightings
        try:
            if sightings:
                await record_sightings(self._db, sightings)
                is_written = True
        finally:
            if not is_written:
                self._membership.forget_written(sightings)
