"""One comparison of a node's replicas with the catalogue: sums first, exact lists only where these differ."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from fsn.coord.database.pool import Pool
from fsn.coord.database.reconciliations import list_within, sums_by_first_byte, sums_by_two_bytes
from fsn.core.errors import ProtocolViolation
from fsn.core.ids import NodeId, PeerId, ReplicaId
from fsn.core.reconciliation import Difference, HeldReplica, PrefixSum, compare, differing
from fsn.p2p.client import Requester
from fsn.p2p.wire.limits import MAX_FIRST_BYTES, MAX_LISTED, MAX_PREFIXES
from fsn.p2p.wire.messages import Reconcile, Reconciled, ReconcileLevel

__all__ = ["Comparison", "prefix_of"]

ANSWER_SECONDS: Final = 30.0
MOST_HELD: Final = 100_000
"""Replicas in the lists of one step: a node that names more has other ids than random ones, or no end."""

Judge = Callable[[Difference], Awaitable[None]]


def prefix_of(replica: ReplicaId) -> int:
    """The first two bytes of the id."""
    return replica.int >> 112


@attrs.frozen
class Comparison:
    """The catalogue is read before the node is asked: what it lists has been on the node by then, unless it is lost."""

    db: Pool
    requester: Requester
    node: NodeId
    peer: PeerId

    async def run(self, judge: Judge) -> PrefixSum:
        """Compare everything; `judge` gets the differences a few thousand replicas at a time. Returns the sum over what agrees.

        Raises PeerError. What changes meanwhile may show up as a difference: it is for `judge` to look again.
        """
        ours = await sums_by_first_byte(self.db, self.node)
        theirs = await self._sums(Reconcile(ReconcileLevel.FIRST_BYTE), range(256))
        firsts, agreed = differing(ours, theirs)
        for some in _slices(firsts, MAX_FIRST_BYTES):
            agreed = agreed.plus(await self._descend(some, judge))
        return agreed

    async def held(self, prefixes: Sequence[int]) -> list[HeldReplica]:
        """What the node lists within prefixes of two bytes. Raises PeerError."""
        found: list[HeldReplica] = []
        after, wanted = None, frozenset(prefixes)
        while True:
            page = await self._ask(Reconcile(ReconcileLevel.REPLICAS, tuple(prefixes), after))
            self._check_page(page, wanted, after)
            found.extend(page.replicas)
            if not page.more:
                return found
            if not page.replicas or len(found) > MOST_HELD:
                raise ProtocolViolation(f"{self.peer} lists no end of replicas within {len(prefixes)} prefixes")
            after = page.replicas[-1].replica

    async def _descend(self, firsts: Sequence[int], judge: Judge) -> PrefixSum:
        ours = await sums_by_two_bytes(self.db, self.node, firsts)
        asked = Reconcile(ReconcileLevel.TWO_BYTES, tuple(firsts))
        theirs = await self._sums(asked, [first << 8 | second for first in firsts for second in range(256)])
        prefixes, agreed = differing(ours, theirs)
        for some in _by_count(prefixes, ours, theirs):
            listed = await list_within(self.db, self.node, some)
            difference = compare(listed, await self.held(some))
            agreed = agreed.plus(difference.agreed)
            await judge(difference)
        return agreed

    async def _sums(self, asked: Reconcile, wanted: Sequence[int]) -> Mapping[int, PrefixSum]:
        sums = (await self._ask(asked)).sums
        if not sums.keys() <= set(wanted):
            raise ProtocolViolation(f"{self.peer} sums up prefixes that it was not asked for")
        return sums

    def _check_page(self, page: Reconciled, wanted: frozenset[int], after: ReplicaId | None) -> None:
        """The order within a page is the codec's to check."""
        if any(prefix_of(each.replica) not in wanted for each in page.replicas):
            raise ProtocolViolation(f"{self.peer} lists replicas that it was not asked for")
        if after is not None and page.replicas and page.replicas[0].replica <= after:
            raise ProtocolViolation(f"{self.peer} does not go on after the last page")

    async def _ask(self, message: Reconcile) -> Reconciled:
        answer = await self.requester.request(self.peer, message, within_seconds=ANSWER_SECONDS)
        if not isinstance(answer, Reconciled):
            raise ProtocolViolation(f"{self.peer} answered a comparison with {type(answer).__name__}")
        return answer


def _slices(numbers: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), most):
        yield numbers[start : start + most]


def _by_count(
    prefixes: Sequence[int], ours: Mapping[int, PrefixSum], theirs: Mapping[int, PrefixSum]
) -> Iterator[Sequence[int]]:
    """Slices of prefixes with about a page of replicas each."""
    some: list[int] = []
    count = 0
    for prefix in prefixes:
        more = max(side[prefix].count if prefix in side else 0 for side in (ours, theirs))
        if some and (count + more > MAX_LISTED or len(some) == MAX_PREFIXES):
            yield some
            some, count = [], 0
        some.append(prefix)
        count += more
    if some:
        yield some
