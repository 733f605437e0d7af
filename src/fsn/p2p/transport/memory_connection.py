"""A connection of a memory network: its streams' pipes, held while the way is silent, broken when somebody gives it up."""

from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from fsn.core.errors import Unreachable
from fsn.core.ids import PeerId
from fsn.p2p.transport.memory_links import NOTICE_SECONDS, Weather
from fsn.p2p.transport.memory_streams import Pipe

__all__ = ["Connection", "End"]


class End(Protocol):
    """A transport, as its connections see it."""

    @property
    def peer(self) -> PeerId:
        """Whose it is."""

    def start_noticing(self, connection: "Connection") -> None:
        """Run the connection's `give_up_unless_mended` in the background; nothing happens at an end that is gone."""


@attrs.define(eq=False)
class Connection:
    """A connection that nobody has given up: who is joined, and its streams."""

    weather: Weather
    forget: "Callable[[Connection], None]"
    ends: tuple[End, End]
    pipes: "dict[Pipe, None]" = attrs.field(factory=dict)
    broken: trio.Event = attrs.field(factory=trio.Event)
    is_held: bool = False
    is_orphan: bool = False
    """One end is gone without a word."""
    _news: trio.Event = attrs.field(factory=trio.Event)
    _watching: list[End] = attrs.field(factory=list)
    peers: frozenset[PeerId] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.peers = frozenset(end.peer for end in self.ends)

    def pipe(self, sender: PeerId, receiver: PeerId) -> Pipe:
        """A new one from one end to the other."""

        def arrival(size_bytes: int) -> float:
            return self.weather.arrival_time(sender, receiver, size_bytes)

        return Pipe(self.pipes, arrival, is_held=self.is_held)

    def look(self) -> None:
        """Hold what is on its way, or let it go, as the weather is; a hold that lasts is noticed."""
        a, b = self.ends
        should_hold = self.is_orphan or self.weather.is_silent(a.peer, b.peer)
        is_noticed = self.is_orphan or not self.weather.is_paused(a.peer, b.peer)
        if should_hold != self.is_held:
            self.is_held = should_hold
            for pipe in list(self.pipes):
                if should_hold:
                    pipe.hold()
                else:
                    pipe.let_go()
            self._tell()
        if should_hold and is_noticed:
            for end in self.ends:
                if end not in self._watching:
                    end.start_noticing(self)

    async def give_up_unless_mended(self, end: End) -> None:
        """What the kernel at `end` does."""
        self._watching.append(end)
        try:
            with trio.move_on_after(NOTICE_SECONDS):
                while self.is_held and not self.broken.is_set():
                    await self._news.wait()
                return
            self.break_off()
        finally:
            self._watching.remove(end)

    async def wait_news(self) -> None:
        """Return when it was held, let go or broken. Raises `Unreachable` when it is broken."""
        await self._news.wait()
        if self.broken.is_set():
            raise Unreachable("the connection broke")

    def break_off(self) -> None:
        self.forget(self)
        self.broken.set()
        self._tell()
        for pipe in list(self.pipes):
            pipe.cut()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()
