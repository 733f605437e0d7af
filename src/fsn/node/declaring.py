"""Telling coordinators what this node means to do, until each knows it, and keeping what they answer."""

import math
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import attrs
import structlog
import trio

from fsn.core.errors import (
    Conflict,
    FsnError,
    Invalid,
    PeerError,
    PeerRefused,
    ProtocolViolation,
    StorageError,
    Unreachable,
)
from fsn.core.ids import PeerId
from fsn.core.maintenance import LONGEST_HOURS
from fsn.node.chunkstore.base import Totals
from fsn.node.reporting import Link, Requests
from fsn.node.standing import NodeStanding, StandingFile
from fsn.p2p.wire.messages import Declaration, Declared, Standing
from fsn.runtime.clock import Clock
from fsn.runtime.threads import run_in_thread

__all__ = ["Counted", "Declaring", "Told"]

log = structlog.get_logger()

ANSWER_SECONDS: Final = 10.0
PROGRESS_SECONDS: Final = 10.0
"""How often a node that drains asks how far it is."""
RETRY_SECONDS: Final = 60.0
"""After so long a failed declaration is repeated."""
FAREWELL_SECONDS: Final = 2.0
SPEED_SECONDS: Final = 600.0
"""Over so long the speed of a drain is taken: repair works in bursts."""
MAX_REASON_BYTES: Final = 200

_ON_THE_WIRE: Final = {"active": Standing.ACTIVE, "draining": Standing.DRAINING, "maintenance": Standing.MAINTENANCE}


@attrs.frozen
class Told:
    """What one coordinator was told last, in which of its connections, and what it said: an answer, or why there is none."""

    standing: NodeStanding
    connected_at: float | None
    at: float
    answer: Declared | None = None
    failure: FsnError | None = None


@attrs.frozen
class Counted:
    """How the coordinators count this node: a state (None until one has answered), since when, why, until when; by our clock."""

    state: str | None = None
    since: datetime | None = None
    reason: str = ""
    until: datetime | None = None


class Declaring:
    """The node's standing, and who knows of it. `run` does the telling; the other methods are for the operator's commands."""

    def __init__(
        self,
        requests: Requests,
        links: Callable[[], tuple[Link, ...]],
        file: StandingFile,
        *,
        clock: Clock,
        totals: Callable[[], Totals],
        progress_seconds: float = PROGRESS_SECONDS,
    ) -> None:
        """Raises ConfigError when the standing cannot be read."""
        self.standing = file.load()
        self._requests = requests
        self._links = links
        self._file = file
        self._clock = clock
        self._totals = totals
        self._progress_seconds = progress_seconds
        self._told: dict[PeerId, Told] = {}
        self._telling: set[PeerId] = set()
        """Who is being told now: one thing after the other, each; but nobody waits for another."""
        self._seen: deque[tuple[float, int]] = deque()
        self._wake = trio.Event()
        self._heard = trio.Event()
        self._changing = trio.Lock()

    @property
    def answer(self) -> Declared | None:
        """The latest that a coordinator has said of this standing; None until one has."""
        answers = [told for told in self._told.values() if told.answer is not None and told.standing == self.standing]
        return max(answers, key=lambda told: told.at).answer if answers else None

    @property
    def counted(self) -> Counted:
        """How the coordinators count this node, as the last of them said."""
        answers = [told for told in self._told.values() if told.answer is not None]
        if not answers:
            return Counted()
        told = max(answers, key=lambda each: each.at)
        answer, then = told.answer, self._clock() - timedelta(seconds=trio.current_time() - told.at)
        assert answer is not None
        until = then + timedelta(seconds=answer.remaining_seconds) if answer.remaining_seconds else None
        return Counted(answer.state, then - timedelta(seconds=answer.since_seconds), answer.reason, until)

    def knows(self, link: Link) -> bool:
        """Whether this coordinator has answered to the standing in force, in this connection."""
        told = self._told.get(link.contact.peer)
        return told is not None and told.answer is not None and self._is_told(link)

    @property
    def bytes_per_second(self) -> float | None:
        """The speed of the drain over the last minutes; None while it is not known."""
        if len(self._seen) < 2:
            return None
        (began, most), (ended, least) = self._seen[0], self._seen[-1]
        return max(0, most - least) / (ended - began) if ended > began else None

    async def drain(self, deadline_hours: float | None) -> None:
        """Take no more chunks from now on, and declare it; durable on return. Again, it changes the deadline.

        Raises Conflict when the node has left, StorageError.
        """
        self._check_not_left()
        now, until = self._clock(), self._in(deadline_hours)
        if self.standing.kind == "draining":
            await self._change(attrs.evolve(self.standing, until=until))
            return
        held = self._totals()
        self._seen.clear()
        await self._change(NodeStanding("draining", now, until, "", held.count, held.size_bytes))

    async def cancel_drain(self) -> None:
        """Stay: chunks that were not moved yet stay, too. Harmless when nothing drains. Raises Conflict when the node has left."""
        self._check_not_left()
        if self.standing.kind == "draining":
            await self._change(NodeStanding("active", self._clock()))

    async def begin_maintenance(self, hours: float, reason: str) -> None:
        """Declare that the node will be away for a while; in force on return. Raises Invalid, Conflict, Unreachable: then it is not."""
        self._check_not_left()
        _check_maintenance(hours, reason)
        if self.standing.kind == "draining":
            raise Conflict(
                "the node drains: it gets no chunks already, and copies of its own are made; cancel the drain first"
            )
        before = self.standing
        await self._change(NodeStanding("maintenance", self._clock(), self._in(hours), reason))
        try:
            self._check_granted()
        except FsnError:
            await self._change(before if before.kind == "maintenance" else NodeStanding("active", self._clock()))
            raise

    async def end_maintenance(self) -> None:
        """Back to work; harmless when there is no maintenance."""
        if self.standing.kind == "maintenance":
            await self._change(NodeStanding("active", self._clock()))

    def wake(self) -> None:
        """Somebody has (been) connected: look who must be told."""
        self._wake.set()

    async def run(self) -> None:
        """Tell until cancelled, which is harmless at any time."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                await self._end_what_is_over()
                for link in self._links():
                    if link.contact.peer not in self._telling and self._due_in(link) <= 0:
                        self._telling.add(link.contact.peer)
                        nursery.start_soon(self._tell, link, name=f"declaring to {link.contact.peer}")
                with trio.move_on_after(self._rest_seconds()):
                    await self._wake.wait()

    async def farewell(self) -> None:
        """Tell every connected coordinator that this node stops now, so that none has to wait for its silence. Bounded, never raises."""
        with trio.move_on_after(FAREWELL_SECONDS):
            async with trio.open_nursery() as nursery:
                for link in self._links():
                    nursery.start_soon(self._say_goodbye, link)

    async def _say_goodbye(self, link: Link) -> None:
        try:
            await self._requests.request(
                link.contact.peer, Declaration(Standing.STOPPING), within_seconds=FAREWELL_SECONDS
            )
        except PeerError as error:
            log.debug("coordinator_not_told", coordinator=link.contact.peer, reason=error.message)

    async def _change(self, standing: NodeStanding) -> None:
        """Save, then tell; return when every connected coordinator has answered or failed to, or after ANSWER_SECONDS."""
        async with self._changing:
            await self._save(standing)
        with trio.move_on_after(ANSWER_SECONDS):
            while not all(self._is_told(link) for link in self._links() if link.is_connected):
                self._heard = trio.Event()
                await self._heard.wait()

    async def _save(self, standing: NodeStanding) -> None:
        await run_in_thread(self._file.save, standing)
        log.info("standing_changed", standing=standing.kind, until=standing.until and standing.until.isoformat())
        self.standing = standing
        self._wake.set()

    async def _save_unless_changed(self, standing: NodeStanding, to: NodeStanding) -> None:
        """What follows by itself; while the disk refuses, it is tried again with the next answer or after the next wake."""
        async with self._changing:
            if self.standing == standing:
                try:
                    await self._save(to)
                except StorageError as error:
                    log.error("standing_not_saved", standing=to.kind, reason=error.message)

    async def _end_what_is_over(self) -> None:
        standing = self.standing
        if standing.kind == "maintenance" and standing.until is not None and self._clock() >= standing.until:
            await self._save_unless_changed(standing, NodeStanding("active", standing.until))

    async def _tell(self, link: Link) -> None:
        standing, connected_at, peer = self.standing, link.connected_at, link.contact.peer
        answer, failure = None, None
        try:
            answer = await self._ask(peer, self._declaration(standing))
        except PeerError as error:
            failure = error
            log.debug("coordinator_not_told", coordinator=peer, reason=error.message)
        before = self._told.get(peer)
        self._told[peer] = Told(standing, connected_at, trio.current_time(), answer, failure)
        if answer is not None:
            await self._heed(peer, standing, answer, before.answer if before else None)
        self._telling.discard(peer)
        self._heard.set()
        self._wake.set()

    async def _ask(self, peer: PeerId, declaration: Declaration) -> Declared:
        answer = await self._requests.request(peer, declaration, within_seconds=ANSWER_SECONDS)
        if not isinstance(answer, Declared):
            raise ProtocolViolation(f"{peer} answered a declaration with {type(answer).__name__}")
        return answer

    async def _heed(self, peer: PeerId, standing: NodeStanding, answer: Declared, before: Declared | None) -> None:
        if before is None or (before.state, before.reason) != (answer.state, answer.reason):
            log.info("node_counted", coordinator=peer, state=answer.state, reason=answer.reason)
        if standing.kind == "draining":
            self._note_progress(answer)
        if answer.state == "left" and standing.kind != "left":
            left = attrs.evolve(standing, kind="left", since=self._clock(), until=None, reason=answer.reason)
            await self._save_unless_changed(standing, left)

    def _note_progress(self, answer: Declared) -> None:
        now = trio.current_time()
        self._seen.append((now, answer.bytes_left))
        while len(self._seen) > 2 and self._seen[0][0] < now - SPEED_SECONDS:
            self._seen.popleft()

    def _declaration(self, standing: NodeStanding) -> Declaration:
        left = (standing.until - self._clock()).total_seconds() if standing.until is not None else None
        remaining = max(1, math.ceil(left)) if left is not None else 0
        if (
            standing.kind == "left"
        ):  # its reason is the coordinator's; who has left wants nothing else than to have left
            return Declaration(Standing.DRAINING)
        return Declaration(_ON_THE_WIRE[standing.kind], remaining, standing.reason)

    def _is_told(self, link: Link) -> bool:
        told = self._told.get(link.contact.peer)
        return told is not None and told.standing == self.standing and told.connected_at == link.connected_at

    def _due_in(self, link: Link) -> float:
        """Seconds until this coordinator is to be told (again)."""
        told = self._told.get(link.contact.peer)
        if not link.is_connected:
            return math.inf
        if told is None or not self._is_told(link):
            return 0.0
        if self.standing.kind == "draining":
            return told.at + self._progress_seconds - trio.current_time()
        return told.at + RETRY_SECONDS - trio.current_time() if told.failure is not None else math.inf

    def _rest_seconds(self) -> float:
        others = [link for link in self._links() if link.contact.peer not in self._telling]
        rests = [max(0.0, self._due_in(link)) for link in others]
        if self.standing.kind == "maintenance" and self.standing.until is not None:
            rests.append(max(1.0, (self.standing.until - self._clock()).total_seconds()))
        return min(rests, default=math.inf)

    def _in(self, hours: float | None) -> datetime | None:
        return None if hours is None else self._clock() + timedelta(hours=hours)

    def _check_not_left(self) -> None:
        if self.standing.kind == "left":
            raise Conflict(
                "this node has left the network for good; another one is made by `fsn node init` in a new folder",
                code="left",
            )

    def _check_granted(self) -> None:
        """Raise what says why no coordinator counts the maintenance."""
        told = [told for told in self._told.values() if told.standing == self.standing]
        if any(each.answer is not None and each.answer.state == "maintenance" for each in told):
            return
        refused = [each.failure for each in told if isinstance(each.failure, PeerRefused)]
        if refused:
            raise Conflict(f"no maintenance: {refused[0].message}", code="maintenance_refused")
        counted = [each.answer.state for each in told if each.answer is not None]
        if counted:
            raise Conflict(
                f"no maintenance: the coordinators count this node as {counted[0]}", code="maintenance_refused"
            )
        raise Unreachable(
            "no coordinator answers at the moment, so none would know of the maintenance;"
            " try again when `fsn node status` shows one as connected"
        )


def _check_maintenance(hours: float, reason: str) -> None:
    if not 0 < hours <= LONGEST_HOURS:
        raise Invalid(f"a maintenance lasts at most {LONGEST_HOURS:g} hours; got {hours:g}")
    if len(reason.encode()) > MAX_REASON_BYTES or not reason.isprintable():
        raise Invalid(f"a reason has at most {MAX_REASON_BYTES} bytes, printable; got {reason[:40]!a}")
