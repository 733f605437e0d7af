"""Which other coordinators over the database are alive, by what this one sees of their rows: clocks need not agree."""

from collections.abc import Iterable, Sequence

import attrs

from fsn.coord.database.coordinators import CoordinatorRecord
from fsn.core.ids import PeerId
from fsn.p2p.wire.messages import Contact

__all__ = ["Coordinators"]


@attrs.define
class _Other:
    record: CoordinatorRecord
    moved_at: float
    """When its row was seen to change last, or first of all."""
    has_moved: bool = False
    is_buried: bool = False


class Coordinators:
    """The others. One whose row does not change for `dead_seconds` is dead; times are trio's."""

    def __init__(self, us: PeerId, *, dead_seconds: float) -> None:
        self._us = us
        self._dead_seconds = dead_seconds
        self._others: dict[PeerId, _Other] = {}

    def look(self, records: Iterable[CoordinatorRecord], now: float) -> None:
        """Take what stands in the database now."""
        found = {record.peer: record for record in records if record.peer != self._us}
        for peer in [peer for peer in self._others if peer not in found]:
            del self._others[peer]
        for peer, record in found.items():
            other = self._others.get(peer)
            if other is None:
                self._others[peer] = _Other(record, now)
            elif other.record.alive_at != record.alive_at:
                self._others[peer] = _Other(record, now, has_moved=True)

    def resume(self, now: float) -> None:
        """We were away ourselves: nobody stood still meanwhile, as far as we know."""
        for other in self._others.values():
            other.moved_at = now

    def living(self) -> tuple[Contact, ...]:
        """Those that showed themselves alive lately, in the order of their ids."""
        return tuple(
            Contact(peer, tuple(other.record.addresses))
            for peer, other in sorted(self._others.items())
            if other.has_moved and not other.is_buried
        )

    def dead(self, now: float) -> Sequence[CoordinatorRecord]:
        """Those that stand still for too long and are not buried yet."""
        return [
            other.record
            for other in self._others.values()
            if not other.is_buried and now - other.moved_at >= self._dead_seconds
        ]

    def note_buried(self, record: CoordinatorRecord) -> None:
        """It is done; should its row change again, it lives."""
        other = self._others.get(record.peer)
        if other is not None and other.record == record:
            other.is_buried = True
