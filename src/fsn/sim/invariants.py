"""What must hold in a network after every step of a story, whatever befell it: the catalogue compared with what is really there."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from fsn.coord.database.inspection import (
    Charge,
    CountedReplica,
    NodeVerdict,
    charges,
    counted_replicas,
    daily_charges,
    ledger_state,
    node_statuses,
    node_verdicts,
)
from fsn.coord.database.pool import Pool
from fsn.coord.database.statements import SignedStatement, list_statements
from fsn.core.chunking import CHUNK_BYTES
from fsn.core.errors import FsnError
from fsn.core.ids import FileId, NodeId, ReplicaId
from fsn.core.placement import network_prefix
from fsn.node.earnings import Received
from fsn.sim.coordinators import POOL
from fsn.sim.network import Network
from fsn.sim.nodes import SimNode
from fsn.sim.users import SimFile, SimUser

__all__ = ["ChunkView", "Invariants", "Violation"]

FIND_OUT_SECONDS: Final = 2 * 86400.0
"""A node that is there and does not list a replica is found out after so long at most: two rounds of reconciliation, a day apart."""
READS_A_CHECK: Final = 2
SECOND_TRY_SECONDS: Final = 120.0
GONE_STATES: Final = frozenset({"left", "disqualified"})


@attrs.frozen
class Violation:
    """Something that must never be, was."""

    at: float
    invariant: str
    details: str


@attrs.frozen
class ChunkView:
    """A chunk of an acknowledged file: the replicas that are counted, and the nodes that truly hold one."""

    file: SimFile
    index: int
    counted: tuple[CountedReplica, ...]
    sound: tuple[SimNode, ...]
    """Nodes whose disks hold right bytes, running or not."""

    @property
    def readable(self) -> tuple[SimNode, ...]:
        """Those of the sound ones that are there and willing now."""
        return tuple(node for node in self.sound if node.is_reachable and not _is_unwilling(node))


class Invariants:
    """Checks a network again and again; remembers what it saw, for some things may be wrong for a while."""

    def __init__(self, net: Network, *, find_out_seconds: float = FIND_OUT_SECONDS) -> None:
        self.violations: list[Violation] = []
        self.lost: dict[FileId, str] = {}
        """Acknowledged files of which a chunk is on no disk any more."""
        self._net = net
        self._find_out_seconds = find_out_seconds
        self._db = Pool(net.dsn, POOL, net.driver.connector())
        self._absent_since: dict[ReplicaId, float] = {}
        self._domains_before = 0
        self._seen: set[ReplicaId] = set()

    def close(self) -> None:
        """Close its connection."""
        self._db.close()

    async def check(self) -> Sequence[Violation]:
        """Look at everything once; what is violated now. Reads a file or two, which takes virtual time where the network has latency."""
        before = len(self.violations)
        counted = await counted_replicas(self._db)
        statuses = await node_statuses(self._db)
        chunks = self._chunks(counted)
        self._check_kept(chunks)
        self._check_present(counted, statuses)
        self._check_apart(counted, statuses)
        await self._check_ledger()
        await self._check_reads(chunks)
        return self.violations[before:]

    async def chunks(self) -> list[ChunkView]:
        """All chunks of acknowledged files, as things stand."""
        return self._chunks(await counted_replicas(self._db))

    async def statuses(self) -> Mapping[NodeId, str]:
        """How each node stands in the catalogue."""
        return await node_statuses(self._db)

    async def verdicts(self) -> Mapping[NodeId, NodeVerdict]:
        """What each node's proofs have come to."""
        return {each.node: each for each in await node_verdicts(self._db)}

    async def statements(self, node: NodeId) -> Sequence[Received]:
        """What a node was paid, day by day, as it would be given them."""
        found: list[SignedStatement] = []
        while page := await list_statements(self._db, node, found[-1].day if found else None, 1000):
            found += page
        return [Received(each.statement, each.previous, each.hash, each.coordinator, each.signature) for each in found]

    async def charges(self) -> Sequence[Charge]:
        """What was paid for each file."""
        return await charges(self._db)

    async def daily_charges(self) -> int:
        """What all users have paid day by day, in micro-credits."""
        return await daily_charges(self._db)

    # --- no acknowledged file is lost, none unreadable while it could be read

    def _chunks(self, counted: Sequence[CountedReplica]) -> list[ChunkView]:
        of_chunk: dict[tuple[FileId, int], list[CountedReplica]] = defaultdict(list)
        for replica in counted:
            of_chunk[replica.file, replica.index].append(replica)
        nodes = self._nodes()
        return [
            ChunkView(file, index, tuple(found), tuple(_sound(found, nodes)))
            for file in self._files()
            for index in range(-(-file.size_bytes // CHUNK_BYTES))
            for found in [of_chunk[file.id, index]]
        ]

    def _check_kept(self, chunks: Sequence[ChunkView]) -> None:
        for chunk in chunks:
            if not chunk.sound and chunk.file.id not in self.lost:
                details = (
                    f"chunk {chunk.index} of {chunk.file.name} is on no disk; {len(chunk.counted)} replicas are counted"
                )
                self.lost[chunk.file.id] = details
                self._violated("kept", details)

    async def _check_reads(self, chunks: Sequence[ChunkView]) -> None:
        """A few files, at random, of those whose chunks all lie on a node that is there."""
        if not any(each.is_serving for each in self._net.coordinators):
            return
        is_readable: dict[FileId, bool] = defaultdict(lambda: True)
        for chunk in chunks:
            is_readable[chunk.file.id] &= bool(chunk.readable)
        able = [(user, file) for user in self._net.users for file in user.files.values() if is_readable[file.id]]
        for user, file in self._net.rng.sample(able, min(READS_A_CHECK, len(able))):
            await self._check_read(user, file)

    async def _check_read(self, user: SimUser, file: SimFile) -> None:
        try:
            await user.get(file)
            return
        except FsnError:
            await self._net.advance(seconds=SECOND_TRY_SECONDS)  # a node that is just coming back is not connected yet
        still = [chunk for chunk in await self.chunks() if chunk.file.id == file.id]
        if not still or not all(chunk.readable for chunk in still):
            return
        try:
            await user.get(file)
        except FsnError as error:
            self._violated(
                "readable", f"{file.name} cannot be read though each chunk is on a node that is there: {error}"
            )

    # --- no replica is counted that is not there

    def _check_present(self, counted: Sequence[CountedReplica], statuses: Mapping[NodeId, str]) -> None:
        nodes, absent = self._nodes(), dict[ReplicaId, float]()
        for replica in counted:
            node = nodes.get(replica.node)
            is_known_gone = statuses.get(replica.node) in GONE_STATES
            if node is None or is_known_gone or not node.is_reachable or replica.replica in node.disk.store:
                continue
            since = absent[replica.replica] = self._absent_since.get(replica.replica, self._net.now)
            if self._net.now - since > self._find_out_seconds:
                self._violated(
                    "present", f"a replica is counted on {node.name} that it has not listed since {since:g} s"
                )
        self._absent_since = absent

    # --- no two replicas of a chunk in one failure domain while others are free

    def _check_apart(self, counted: Sequence[CountedReplica], statuses: Mapping[NodeId, str]) -> None:
        nodes = self._nodes()
        usable = [node for node in nodes.values() if node.is_reachable and statuses.get(node.id) == "online"]
        domains = len({_domain(node) for node in usable})
        for replicas in _by_chunk(counted):
            new = [each for each in replicas if each.replica not in self._seen]
            held = [_domain(nodes[each.node]) for each in replicas if each.node in nodes]
            are_free = min(domains, self._domains_before) > len(replicas)
            if new and are_free and len(set(held)) < len(held):
                self._violated("apart", f"replicas of one chunk share a failure domain: {', '.join(sorted(held))}")
        self._seen = {each.replica for each in counted}
        self._domains_before = domains

    # --- the ledger sums to zero

    async def _check_ledger(self) -> None:
        state = await ledger_state(self._db)
        if state.total or state.unexplained:
            self._violated("ledger", f"entries add up to {state.total}, {state.unexplained} balances are unexplained")

    def _violated(self, invariant: str, details: str) -> None:
        violation = Violation(self._net.now, invariant, details)
        self.violations.append(violation)
        self._net.timeline.note("invariants", f"violated_{invariant}", details=details)

    def _nodes(self) -> dict[NodeId, SimNode]:
        return {node.id: node for node in self._net.nodes}

    def _files(self) -> Iterator[SimFile]:
        for user in self._net.users:
            yield from user.files.values()


def _sound(counted: Sequence[CountedReplica], nodes: Mapping[NodeId, SimNode]) -> Iterator[SimNode]:
    for replica in counted:
        node = nodes.get(replica.node)
        if node is not None and not node.is_gone and node.disk.holds(replica.replica):
            yield node


def _by_chunk(counted: Sequence[CountedReplica]) -> Iterator[list[CountedReplica]]:
    of_chunk: dict[tuple[FileId, int], list[CountedReplica]] = defaultdict(list)
    for replica in counted:
        of_chunk[replica.file, replica.index].append(replica)
    yield from of_chunk.values()


def _domain(node: SimNode) -> str:
    return network_prefix(node.place.address) or node.name


def _is_unwilling(node: SimNode) -> bool:
    faults = node.disk.faults
    return (
        faults.refuses or faults.corrupts or faults.is_failing or bool(faults.read_errors) or faults.delay_seconds > 5
    )
