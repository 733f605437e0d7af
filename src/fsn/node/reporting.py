"""Staying in touch with coordinators: dial, heartbeat, notice a loss, dial again, for ever."""

import math
from collections.abc import Callable, Collection
from random import Random
from typing import Final, Protocol

import attrs
import structlog
import trio

from fsn.core.errors import PeerError, PeerTimeout, ProtocolViolation
from fsn.core.ids import PeerId
from fsn.p2p.transport.base import Transport
from fsn.p2p.wire.messages import Contact, Earnings, Heartbeat, HeartbeatAnswer, ProofRecord, Request, Response

__all__ = ["FORGET_SECONDS", "MAX_COORDINATORS", "Link", "Reporting", "redial_pause"]

log = structlog.get_logger()

HEARTBEAT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 10.0
"""A coordinator that does not answer a heartbeat within this is gone: the connection is closed and dialled anew."""
DIAL_SECONDS: Final = 10.0
"""For each address of a coordinator."""
EAGER_SECONDS: Final = 300.0
SHORTEST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
FORGET_SECONDS: Final = 3600.0
"""A coordinator that another one named, not reached for so long, and named by none since, is forgotten; the pinned one never is."""
WOULD_BE_NAMED_SECONDS: Final = 300.0
"""A coordinator that has answered for so long without a break would have named every other one that lives. While none has, nobody is
forgotten: after an outage of all of them, any of them may be the first one back."""
MAX_COORDINATORS: Final = 16
"""More than any network will run over one database; a bound on what an answer can make us do."""


class Requests(Protocol):
    """What we need of a `fsn.p2p.client.Requester`."""

    async def request(self, peer: PeerId, message: Request, *, within_seconds: float) -> Response:
        """The peer's answer; raises `PeerError`."""


@attrs.define(eq=False)
class Link:
    """How things stand with one coordinator. Times by trio's clock, None for never; `failure` is the last one, in words."""

    contact: Contact
    lost_at: float
    named_at: float = -math.inf
    """When another coordinator named it last."""
    is_pinned: bool = False
    is_connected: bool = False
    connected_at: float | None = None
    heartbeat_at: float | None = None
    earned_micro_credits: int = 0
    proofs: ProofRecord | None = None
    earnings: Earnings | None = None
    failure: str | None = None


def redial_pause(down_seconds: float, rng: Random) -> float:
    """Seconds until the next dial, so long after the loss.

    At most 1 s for the first five minutes (a coordinator that restarts has its nodes back at once), then doubling every minute up to
    60 s. Half of it is drawn at random, so that a thousand nodes do not arrive in one instant.
    """
    minutes = max(0.0, down_seconds - EAGER_SECONDS) / 60.0
    longest = min(SHORTEST_PAUSE_SECONDS * math.exp2(min(minutes, 10.0)), LONGEST_PAUSE_SECONDS)
    return longest * (0.5 + rng.random() / 2)


class Reporting:
    """Keeps a connection to every known coordinator and tells each how this node is."""

    def __init__(
        self,
        transport: Transport,
        requests: Requests,
        *,
        describe: Callable[[], Heartbeat],
        rng: Random,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._transport = transport
        self._requests = requests
        self._describe = describe
        self._rng = rng
        self._heartbeat_seconds = heartbeat_seconds
        self._links: dict[PeerId, Link] = {}
        self._new = trio.Event()
        self._connected = trio.Event()
        self._hurry = trio.Event()
        self.on_connected: Callable[[], None] = lambda: None
        """Called when a coordinator has answered the first heartbeat of a connection."""
        self.on_lost: Callable[[], None] = lambda: None
        """Called when the connection to a coordinator has ended."""

    def knows(self, peer: PeerId) -> bool:
        """Whether `peer` is a coordinator of ours: the pinned one, or one that a coordinator of ours has named."""
        return peer in self._links

    @property
    def links(self) -> tuple[Link, ...]:
        """How things stand with each."""
        return tuple(self._links.values())

    def connected(self) -> list[PeerId]:
        """The coordinators that answered lately."""
        return [link.contact.peer for link in self._links.values() if link.is_connected]

    def add(self, contact: Contact, *, is_pinned: bool = True) -> None:
        """Keep in touch with `contact` from now on, for ever if it is pinned; known ones get the new addresses."""
        now = trio.current_time()
        if link := self._links.get(contact.peer):
            link.contact = contact if contact.addresses else link.contact
            link.is_pinned |= is_pinned
            link.named_at = now
        elif len(self._links) < MAX_COORDINATORS and contact.peer != self._transport.peer:
            self._links[contact.peer] = Link(contact, lost_at=now, named_at=now, is_pinned=is_pinned)
            self._new.set()

    async def wait_connected(self) -> None:
        """Return when a coordinator answers our heartbeats; at once when one does."""
        while not any(link.is_connected for link in self.links):
            await self._connected.wait()

    async def wait_new_connection(self) -> None:
        """Return when the next connection to a coordinator is made."""
        await self._connected.wait()

    async def redial(self, addresses: Collection[str]) -> None:
        """Our own addresses are these now: give up connections that go out from others, and dial at once whoever is not connected."""
        for link in self.links:
            local = self._transport.local_address(link.contact.peer)
            if local is not None and local not in addresses:
                log.info("own_address_gone", address=local, coordinator=link.contact.peer)
                await self._transport.disconnect(link.contact.peer)
        self.hurry()

    def hurry(self) -> None:
        """Dial at once whoever is not connected."""
        hurry, self._hurry = self._hurry, trio.Event()
        hurry.set()

    async def run(self) -> None:
        """Report until cancelled, which is harmless at any time."""
        running: set[Link] = set()
        async with trio.open_nursery() as nursery:
            while True:
                running &= set(self._links.values())
                for peer, link in self._links.items():
                    if link not in running:
                        running.add(link)
                        nursery.start_soon(self._keep, link, name=f"reporting to {peer}")
                self._new = trio.Event()
                await self._new.wait()

    async def _keep(self, link: Link) -> None:
        while not self._is_forgotten(link):
            began = trio.current_time()
            try:
                await self._connect(link)
                await self._report_while_connected(link)
                link.failure = "the connection was lost"
            except PeerError as error:
                link.failure = error.message
            in_vain_seconds = 0.0 if link.is_connected else trio.current_time() - began
            await self._lose(link)
            pause = redial_pause(trio.current_time() - link.lost_at, self._rng)
            with trio.move_on_after(
                max(0.0, pause - in_vain_seconds)
            ):  # pauses count from dial to dial, however long one hangs
                await self._hurry.wait()

    def _is_forgotten(self, link: Link) -> bool:
        """Drop a link that nobody will miss, or say that it stays."""
        if link.is_pinned or trio.current_time() - max(link.lost_at, link.named_at) < FORGET_SECONDS:
            return False
        if not self._would_be_named():
            return False
        del self._links[link.contact.peer]
        log.info("coordinator_forgotten", coordinator=link.contact.peer)
        return True

    def _would_be_named(self) -> bool:
        """Whether a coordinator that lives would have been named to us by now."""
        since = trio.current_time() - max(WOULD_BE_NAMED_SECONDS, 2 * self._heartbeat_seconds)
        return any(link.is_connected and (link.connected_at or 0.0) <= since for link in self.links)

    async def _connect(self, link: Link) -> None:
        peer, addresses = link.contact.peer, link.contact.addresses
        with trio.move_on_after(DIAL_SECONDS * max(1, len(addresses))):
            await self._transport.connect(peer, addresses)
            return
        raise PeerTimeout(f"no address of {peer} answered in time: {', '.join(addresses) or 'none is known'}")

    async def _report_while_connected(self, link: Link) -> None:
        """Heartbeats until the connection ends. Raises `PeerError` when one gets no proper answer."""
        while self._transport.is_connected(link.contact.peer):
            self._take(link, await self._beat(link))
            with trio.move_on_after(self._heartbeat_seconds):
                await self._transport.wait_disconnected(link.contact.peer)

    async def _beat(self, link: Link) -> HeartbeatAnswer:
        peer = link.contact.peer
        answer = await self._requests.request(peer, self._describe(), within_seconds=ANSWER_SECONDS)
        if not isinstance(answer, HeartbeatAnswer):
            raise ProtocolViolation(f"{peer} answered a heartbeat with {type(answer).__name__}")
        return answer

    def _take(self, link: Link, answer: HeartbeatAnswer) -> None:
        is_new, link.is_connected, link.failure = not link.is_connected, True, None
        if is_new:
            log.info("coordinator_connected", coordinator=link.contact.peer)
            link.connected_at = trio.current_time()
            connected, self._connected = self._connected, trio.Event()
            connected.set()
            self.on_connected()
        link.heartbeat_at = trio.current_time()
        link.earned_micro_credits = answer.earned_micro_credits
        link.proofs, link.earnings = answer.proofs or link.proofs, answer.earnings or link.earnings
        for contact in answer.coordinators:
            self.add(contact, is_pinned=False)

    async def _lose(self, link: Link) -> None:
        """Close what may be left of the connection: dialling over a half-dead one returns at once and helps nobody."""
        if link.is_connected:
            link.is_connected, link.lost_at = False, trio.current_time()
            log.warning("coordinator_lost", coordinator=link.contact.peer, reason=link.failure)
            self.on_lost()
        else:
            log.debug("coordinator_not_reached", coordinator=link.contact.peer, reason=link.failure)
        with trio.move_on_after(ANSWER_SECONDS):
            await self._transport.disconnect(link.contact.peer)
