"""Whether others can reach this node: asking coordinators to dial it, and noticing that its own addresses have changed."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final, Protocol

import attrs
import structlog
import trio

from fsn.core.errors import PeerError
from fsn.core.ids import PeerId
from fsn.core.reachability import DialResult, Verdict, judge
from fsn.node.reporting import Link, Requests
from fsn.p2p.wire.limits import MAX_DIALS
from fsn.p2p.wire.messages import DialBack, DialedBack
from fsn.runtime.supervise import Rest

__all__ = ["AddressWatching", "Reachability", "Told"]

log = structlog.get_logger()

ANSWER_SECONDS: Final = 30.0
TEST_SECONDS: Final = 3 * 3600.0
"""From one test to the next, give or take a quarter."""
SETTLE_SECONDS: Final = 30.0
"""At most, before a test that a new connection gave rise to: a coordinator that starts again does not dial all its nodes at once."""
RETRY_SECONDS: Final = 60.0
"""Until the next try when no coordinator could say anything."""
ASKED: Final = 3
"""Coordinators that are asked in one test."""
POLL_SECONDS: Final = 1.0


class Links(Protocol):
    """What we need of `Reporting`."""

    @property
    def links(self) -> tuple[Link, ...]:
        """How things stand with each coordinator."""

    async def wait_connected(self) -> None:
        """Return when a coordinator is connected."""

    async def wait_new_connection(self) -> None:
        """Return when the next connection is made."""


@attrs.frozen
class Told:
    """What one coordinator found, and when by trio's clock; `observed` is the IP address that it sees us come from."""

    coordinator: PeerId
    at: float
    observed: str | None
    results: tuple[DialResult, ...]


class Reachability:
    """Has this node dialled by its coordinators: at its start, after each new connection to one, and every few hours."""

    def __init__(
        self, links: Links, requests: Requests, addresses: Callable[[], Sequence[str]], *, rng: Random
    ) -> None:
        self._links = links
        self._requests = requests
        self._addresses = addresses
        self._rng = rng
        self._told: tuple[Told, ...] | None = None
        self._failure = ""
        self.on_tested: Callable[[], None] = lambda: None
        """Called when a test has ended with a verdict."""

    @property
    def told(self) -> tuple[Told, ...]:
        """What each coordinator that was asked last found; empty before the first test."""
        return self._told or ()

    @property
    def verdict(self) -> Verdict:
        """How others get to this node, as far as it is known."""
        links = self._links.links
        is_connected = any(link.is_connected for link in links)
        failure = self._failure if is_connected else next((link.failure for link in links if link.failure), "")
        results = None if self._told is None else [result for told in self._told for result in told.results]
        return judge(is_connected=is_connected, failure=failure or "", results=results)

    async def run(self) -> None:
        """Test until cancelled, which is harmless at any time."""
        while True:
            await self._links.wait_connected()
            is_known = await self.test()
            pause = TEST_SECONDS * (0.75 + self._rng.random() / 2) if is_known else RETRY_SECONDS
            with trio.move_on_after(pause):
                await self._links.wait_new_connection()
                await trio.sleep(SETTLE_SECONDS * self._rng.random())

    async def test(self) -> bool:
        """Ask up to three connected coordinators; whether any of them could tell. What an earlier test found is forgotten then."""
        before = self.verdict.reach
        connected = [link.contact.peer for link in self._links.links if link.is_connected]
        told = [
            found
            for peer in self._rng.sample(connected, min(ASKED, len(connected)))
            if (found := await self._ask(peer))
        ]
        if told:
            self._told = tuple(told)
            self.on_tested()
        if (verdict := self.verdict).reach != before:
            log.info("reachability_changed", reach=verdict.reach, reason=verdict.reason)
        return bool(told)

    async def _ask(self, coordinator: PeerId) -> Told | None:
        request = DialBack(tuple(self._addresses())[:MAX_DIALS])
        try:
            answer = await self._requests.request(coordinator, request, within_seconds=ANSWER_SECONDS)
        except PeerError as error:
            self._failure = f"not tested: {error.message}"
            return None
        assert isinstance(answer, DialedBack)
        return Told(coordinator, trio.current_time(), answer.observed_address, answer.results)


@attrs.define(eq=False)
class AddressWatching:
    """Looks at the addresses of this machine's interfaces once a second; when they are others than before, it has `redial` called.

    A connection whose own address is gone sends nothing any more, which its keep-alive notices after 7..12 s only.
    """

    own_addresses: Callable[[], frozenset[str]]
    redial: Callable[[frozenset[str]], Awaitable[None]]
    name: str = "address_watching"
    _known: frozenset[str] | None = None

    async def step(self) -> Rest:
        """Look once."""
        found = self.own_addresses()
        before, self._known = self._known, found
        if before is not None and found != before:
            log.info("own_addresses_changed", gone=sorted(before - found), new=sorted(found - before))
            await self.redial(found)
        return Rest(POLL_SECONDS)
