"""Dialling a node as a stranger would, on its own request, so that it learns whether it can be reached."""

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import attrs
import structlog
import trio

from fsn.coord.database.dial_backs import DialedNode, record_dial_back
from fsn.coord.database.pool import Pool
from fsn.coord.membership import Membership
from fsn.core.errors import Unavailable
from fsn.core.ids import NodeId, PeerId
from fsn.core.rates import Rate, take
from fsn.core.reachability import DialOutcome, DialResult, judge, refused_target, telling_outcome
from fsn.p2p.announcing import announced_addresses
from fsn.p2p.transport.addresses import host_of, with_host
from fsn.p2p.wire.messages import DialBack, DialedBack, Refusal, RefusalCode, Response
from fsn.runtime.clock import Clock

__all__ = ["DialingBack", "Resolve", "resolve_name"]

log = structlog.get_logger()

DIAL_SECONDS: Final = 5.0
"""For one address to answer and prove who it is; all of a request are dialled together."""
RESOLVE_SECONDS: Final = 3.0
PAUSE_SECONDS: Final = 20.0
"""Between two requests of one node."""
NODES_AT_ONCE: Final = 16
MAX_REMEMBERED: Final = 10_000
ELSEWHERE: Final = Rate(per_second=2.0, burst=20)
"""Dials of addresses that the asker does not come from, for all nodes together: who gets their SYN may never have heard of us."""

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""The IP addresses behind a name."""


async def resolve_name(name: str) -> Sequence[str]:
    """As the system resolves it; nothing when it does not, within three seconds."""
    with trio.move_on_after(RESOLVE_SECONDS):
        try:
            found = await trio.socket.getaddrinfo(name, None, type=trio.socket.SOCK_STREAM)
        except OSError:
            return ()
        return [str(address[0]) for *_, address in found]
    return ()


class Dialler(Protocol):
    """What we need of a `Transport`."""

    @property
    def peer(self) -> PeerId:
        """Our own id."""

    def connected_address(self, peer: PeerId) -> str | None:
        """The IP address that the peer's connection comes from."""

    async def probe(self, peer: PeerId, address: str) -> DialResult:
        """Dial an address as a stranger."""


@attrs.define(eq=False)
class DialingBack:
    """Answers `DialBack` of registered nodes: one at a time of each, one in twenty seconds, and never an address of somebody's private
    network but the asker's own."""

    db: Pool
    membership: Membership
    transport: Dialler
    clock: Clock
    resolve: Resolve = resolve_name
    note_reached: Callable[[PeerId, Sequence[str]], None] = lambda peer, addresses: None
    """Told of each node that was reached, and where."""
    _asked_at: OrderedDict[PeerId, float] = attrs.field(factory=OrderedDict)
    _room: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(NODES_AT_ONCE))
    _elsewhere_full_at: float = -math.inf

    async def dial_back(self, peer: PeerId, message: DialBack) -> Response:
        """How a fresh dial of each of the node's addresses ends; the catalogue keeps what follows from it."""
        member = await self.membership.registered(peer)
        if member is None:
            return Refusal(RefusalCode.NOT_AUTHORISED, f"{peer} is not registered here: run `fsn node init`")
        if (wait_seconds := self._wait_seconds(peer)) > 0:
            text = f"a node is dialled once in {PAUSE_SECONDS:g} s"
            return Refusal(RefusalCode.BUSY, text, retry_after_ms=math.ceil(wait_seconds * 1000))
        observed = self.transport.connected_address(peer)
        async with self._room:
            results = await self._dial_all(peer, announced_addresses(message.addresses, observed or ""), observed)
        await self._keep(member.node, peer, results)
        return DialedBack(observed, results)

    def _wait_seconds(self, peer: PeerId) -> float:
        """0, and its turn is taken; or how long until it may ask again."""
        now = trio.current_time()
        if (wait_seconds := self._asked_at.get(peer, -math.inf) + PAUSE_SECONDS - now) > 0:
            return wait_seconds
        self._asked_at[peer] = now
        self._asked_at.move_to_end(peer)
        if len(self._asked_at) > MAX_REMEMBERED:
            self._asked_at.popitem(last=False)
        return 0.0

    async def _dial_all(self, peer: PeerId, addresses: Sequence[str], observed: str | None) -> tuple[DialResult, ...]:
        results = [DialResult(address, DialOutcome.NOT_TRIED) for address in addresses]

        async def dial(index: int) -> None:
            results[index] = await self._dial(peer, addresses[index], observed)

        async with trio.open_nursery() as nursery:
            for index in range(len(addresses)):
                nursery.start_soon(dial, index)
        return tuple(results)

    async def _dial(self, peer: PeerId, address: str, observed: str | None) -> DialResult:
        target, why_not = await self._target(address, observed)
        if why_not:
            return DialResult(address, DialOutcome.NOT_TRIED, why_not)
        with trio.move_on_after(DIAL_SECONDS):
            return attrs.evolve(await self.transport.probe(peer, target), address=address)
        return DialResult(address, DialOutcome.NO_ANSWER, f"no answer within {DIAL_SECONDS:g} s")

    async def _target(self, address: str, observed: str | None) -> tuple[str, str]:
        """What to dial for an address, a name in it resolved once (so that what is dialled is what was judged); or why not."""
        host = host_of(address)
        if host is None:
            return address, ""  # no IP network: the transport knows what it is
        ips = [host.name] if host.is_ip else await self.resolve(host.name)
        if not ips:
            return address, f"the name {host.name} leads to no address"
        ip = observed if observed in ips else ips[0]
        if ip is None or (why_not := refused_target(ip, observed)):
            return address, why_not if ip is not None else "where you come from is not known"
        if ip != observed and not self._may_dial_elsewhere():
            return address, "too many addresses other than those that requests come from are being dialled; ask later"
        return with_host(address, ip), ""

    def _may_dial_elsewhere(self) -> bool:
        taken = take(ELSEWHERE, self._elsewhere_full_at, trio.current_time())
        self._elsewhere_full_at = taken.full_at
        return taken.wait_seconds == 0.0

    async def _keep(self, node: NodeId, peer: PeerId, results: Sequence[DialResult]) -> None:
        verdict = judge(is_connected=True, failure="", results=results)
        if verdict.addresses:
            self.note_reached(peer, verdict.addresses)
        log.info("node_dialed_back", node=str(node), reach=verdict.reach, reason=verdict.reason)
        found = DialedNode(verdict.reach, telling_outcome(results), self.clock())
        with suppress(Unavailable):  # the node is told all the same, and asks again in a few hours
            await record_dial_back(self.db, node, found, verdict.addresses, tested_by=self.transport.peer)
