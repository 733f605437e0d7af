"""A catalogue with nodes and a file in it, a clock that is set by hand, and what declares and drains over them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import attrs

from fsn.coord.config import MembershipConfig, PlacementConfig
from fsn.coord.database.chunk_states import remove_replicas
from fsn.coord.database.drains import NodeStanding, standing_of
from fsn.coord.database.node_states import transitions_of
from fsn.coord.database.pool import Pool
from fsn.coord.declaring import Declarations
from fsn.coord.membership import Membership
from fsn.coord.upkeep.draining import Draining
from fsn.core.ids import FileId, NodeId, PeerId, ReplicaId
from fsn.p2p.client import open_requester
from fsn.p2p.transport.memory import MemoryNetwork
from fsn.p2p.wire.messages import Declaration, Declared, Standing
from fsn.runtime.identity import Identity
from fsn.runtime.supervise import Bell

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
FILE = FileId(UUID(int=2))
NODES = [NodeId(UUID(int=number)) for number in (11, 12, 13, 14)]


def replica(chunk: int, number: int) -> ReplicaId:
    """The id of a replica."""
    return ReplicaId(UUID(int=1000 + 10 * chunk + number))


def peer_of(node: NodeId) -> PeerId:
    """The peer id of a node."""
    return PeerId(f"peer-{node}")


@attrs.define(eq=False)
class Stage:
    """What a test needs. `now` is the time."""

    db: Pool
    declarations: Declarations
    draining: Draining
    second: Draining
    """Of another coordinator over the same database."""
    now: datetime = BEGAN

    def later(self, **span: float) -> None:
        """Time goes by."""
        self.now += timedelta(**span)

    async def declare(self, node: NodeId, standing: Standing | str, seconds: int = 0, reason: str = "") -> Declared:
        """As the node would."""
        answer = await self.declarations.declare(peer_of(node), Declaration(standing, seconds, reason))
        assert isinstance(answer, Declared)
        return answer

    async def standing(self, node: NodeId) -> NodeStanding:
        """As the catalogue has it."""
        found = await standing_of(self.db, peer_of(node))
        assert found is not None
        return found

    async def work(self, draining: Draining | None = None) -> None:
        """Steps until nothing is due."""
        while await (draining or self.draining).step() is None:
            pass

    async def move(self, chunk: int, number: int) -> None:
        """As repair does once there are enough others: the row goes, the bytes are to be deleted."""
        async with self.db.transaction() as connection:
            await remove_replicas(connection, [replica(chunk, number)], self.now)

    async def forget(self, node: NodeId) -> None:
        """As the node does when it has deleted what it was asked to."""
        await self.db.execute("delete from replica_deletions where node_id = %s", [node])

    async def record(self, node: NodeId) -> list[tuple[str, str]]:
        """Its states with their reasons, oldest first."""
        return [(each.end, each.reason) for each in reversed(await transitions_of(self.db, node, None, 100))]

    async def queue(self) -> list[tuple[int, str]]:
        """Chunks that wait for repair, with the reason."""
        return [
            (int(i), str(r)) for i, r in await self.db.fetch_all("select chunk_index, reason from repairs order by 1")
        ]

    async def scans(self) -> list[tuple[NodeId, str]]:
        """Nodes that repair is to look at."""
        rows = await self.db.fetch_all("select node_id, reason from repair_scans where finished_at is null order by 1")
        return [(NodeId(node), str(reason)) for node, reason in rows]


@asynccontextmanager
async def open_stage_with(pool: Pool, chunks: int = 2) -> AsyncIterator[Stage]:
    """Four nodes that are online, and a ready file of so many chunks with three replicas each, on the first three."""
    await _fill(pool, chunks)
    memory, identity = MemoryNetwork(), Identity.generate()
    async with memory.open_transport(identity.peer) as transport, open_requester(transport) as requester:
        membership = Membership(
            pool,
            transport,
            requester,
            clock=lambda: stage.now,
            chance=Random(1),
            config=MembershipConfig(),
            placement=PlacementConfig(),
        )
        bells = Bell(), Bell(), Bell(), Bell()
        draining = Draining(pool, lambda: stage.now, PeerId("c1"), *bells)
        stage = Stage(
            pool,
            Declarations(pool, membership, lambda: stage.now, PeerId("c1"), bells[0], bells[2]),
            draining,
            attrs.evolve(draining, by=PeerId("c2")),
        )
        yield stage


async def _fill(db: Pool, chunks: int) -> None:
    user = UUID(int=1)
    await db.execute("insert into users values (%s, 'a@b', '', %s)", [user, BEGAN])
    await db.execute("insert into master_keys values ('k', %s)", [BEGAN])
    for node in NODES:
        await db.execute(
            """insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, capacity_bytes, status,
                                  chunk_count, used_bytes, status_since)
               values (%s, %s, %s, 'n', %s, %s, %s, 1, 'online', %s, %s, %s)""",
            [node, peer_of(node), node.bytes * 2, node.bytes, BEGAN, BEGAN, chunks, chunks * 100, BEGAN],
        )
    await db.execute(
        """insert into files (id, user_id, name, size_bytes, chunk_bytes, pieces, status, master_key_id, wrapped_key, wrap_secret,
                              created_at) values (%s, %s, 'f', %s, 1, 3, 'ready', 'k', 'w', 's', %s)""",
        [FILE, user, chunks, BEGAN],
    )
    for chunk in range(chunks):
        await add_chunk(db, chunk)


async def add_chunk(db: Pool, chunk: int) -> None:
    """One chunk more, with a replica on each of the first three nodes."""
    await db.execute("insert into chunks values (%s, %s, %s, 1, '')", [FILE, chunk, UUID(int=chunk)])
    for number, node in enumerate(NODES[:3]):
        await db.execute(
            """insert into replicas (id, file_id, chunk_index, number, node_id, root, sealed_bytes, slot, stored_at)
               values (%s, %s, %s, %s, %s, %s, 100, 0, %s)""",
            [replica(chunk, number), FILE, chunk, number, node, bytes(32), BEGAN],
        )
