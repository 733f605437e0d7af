"""A network with one file on it, and a repair of its own whose steps and clock a test moves by hand."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import Random

import attrs
import trio

from fsn.coord.catalog import StoredFile
from fsn.coord.config import RepairConfig
from fsn.coord.database.pool import Pool
from fsn.coord.upkeep.repair import Repair, build_repair
from fsn.core.chunking import CHUNK_BYTES
from fsn.core.ids import NodeId, PeerId, ReplicaId, UserId
from fsn.runtime.clock import system_clock
from fsn.runtime.supervise import Bell
from tests.coord.network import CONFIG, Member, Network, open_network, wait_until

BY_HAND = RepairConfig(tick_seconds=100_000)
"""The coordinator's own workers look once and rest; a test's repair works by hand."""
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@attrs.define
class Stage:
    """The file has three chunks, each on three of the nodes."""

    pool: Pool
    network: Network
    user: UserId
    file: StoredFile
    data: bytes
    ahead: timedelta = timedelta()
    """How far the clock of repairs is ahead."""

    def clock(self) -> datetime:
        """The time of day as repairs have it."""
        return system_clock() + self.ahead

    def repair(self, by: str = "repairer", config: RepairConfig = BY_HAND, pool: Pool | None = None) -> Repair:
        """A coordinator's repair, not running."""
        services = self.network.services
        return build_repair(
            pool or self.pool,
            services.membership,
            services.fetcher,
            services.repair.repairing.replicator,
            services.downloads.keyring,
            services.recorder,
            by=PeerId(by),
            clock=self.clock,
            chance=Random(3),
            config=attrs.evolve(config, tick_seconds=0.001),
            metrics=services.metrics,
            scans_due=Bell(),
            repairs_due=Bell(),
            deletions_due=Bell(),
            is_busy=lambda: False,
        )

    async def turn(self, repair: Repair) -> None:
        """One tick: look at silences, scan, repair until nothing is due."""
        await repair.watching.step()
        while await repair.scanning.step() is None:
            pass
        while await repair.repairing.step() is None:
            pass

    def member(self, node: NodeId) -> Member:
        """The node with this id."""
        return next(member for member in self.network.nodes if member.node == node)

    async def holders(self, index: int = 0) -> list[Member]:
        """The nodes with a live replica of a chunk, as the catalogue says."""
        sql = "select node_id from replicas where file_id = %s and chunk_index = %s and state = 'live' order by number"
        return [self.member(NodeId(row[0])) for row in await self.pool.fetch_all(sql, [self.file.id, index])]

    async def others(self, index: int = 0) -> list[Member]:
        """The nodes without one."""
        holders = await self.holders(index)
        return [member for member in self.network.nodes if member not in holders]

    async def kill(self, member: Member, silent_seconds: float) -> None:
        """End a node; it has been silent for so long, and the coordinator was there all the time."""
        member.kill()
        await self.wait_gone(member)
        await self.silence(member, silent_seconds)

    async def wait_gone(self, member: Member) -> None:
        """Until the coordinator has noticed."""
        await wait_until(lambda: member.node not in {m.node for m in self.network.services.membership.online()})

    async def silence(self, member: Member, seconds: float) -> None:
        """What the catalogue says of a node that is silent for so long."""
        await self.pool.execute(
            "insert into coordinator_watches values ('watcher', %s, %s) on conflict do nothing",
            [self.clock() - timedelta(days=40), self.clock() + timedelta(days=40)],
        )
        await self.pool.execute(
            "update nodes set status = 'offline', absent_since = %s where id = %s",
            [self.clock() - timedelta(seconds=seconds), member.node],
        )

    async def restart(self, member: Member) -> None:
        """The node is back, with what it had."""
        await self.network.start(member)
        await self.pool.execute("update nodes set status = 'online', absent_since = null where id = %s", [member.node])

    async def read(self) -> bytes:
        """The file as a download gives it."""
        async with self.network.services.downloads.open_range(self.file, 0, len(self.data)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def replicas(self, index: int) -> list[tuple[ReplicaId, NodeId]]:
        """Live replicas of a chunk in the catalogue."""
        sql = "select id, node_id from replicas where file_id = %s and chunk_index = %s and state = 'live'"
        return [(ReplicaId(r), NodeId(n)) for r, n in await self.pool.fetch_all(sql, [self.file.id, index])]

    async def check_whole(self, copies: int = 3) -> None:
        """Each chunk has so many replicas on nodes that are there, each on a node of its own with its bytes; the file reads; and what else
        lies on nodes is queued for deletion."""
        there = {member.node for member in self.network.services.membership.online()}
        known: set[ReplicaId] = set()
        for index in range(self.file.chunk_count):
            replicas = await self.replicas(index)
            known |= {replica for replica, _ in replicas}
            living = [(replica, node) for replica, node in replicas if node in there]
            assert len(living) == copies, f"chunk {index}: {living}"
            assert len({node for _, node in living}) == copies
            for replica, node in living:
                assert replica in await self.member(node).replicas()
        assert await self.read() == self.data
        with trio.fail_after(10):
            while await self.garbage(known):  # noqa: ASYNC110 - the recorder's task writes it down
                await trio.sleep(0.01)

    async def garbage(self, known: set[ReplicaId]) -> set[ReplicaId]:
        """What lies on nodes, is not `known`, and is not queued for deletion."""
        queued = {row[0] for row in await self.pool.fetch_all("select replica_id from replica_deletions")}
        lying = {replica for member in self.network.nodes for replica in await member.replicas()}
        return lying - known - queued

    async def queued(self) -> int:
        """Chunks that wait for repair."""
        row = await self.pool.fetch_one("select count(*) from repairs")
        return int(row[0]) if row else 0


@asynccontextmanager
async def open_stage(
    pool: Pool, *, nodes: int = 5, config: RepairConfig = BY_HAND, replicas: int = 3
) -> AsyncIterator[Stage]:
    """Nodes, a user, and a file of three chunks."""
    async with open_network(pool, attrs.evolve(CONFIG, repair=config), nodes=nodes) as network:
        user = (await network.user()).user.id
        data = secrets.token_bytes(2 * CHUNK_BYTES + 1000)

        async def body() -> AsyncIterator[bytes]:
            yield data

        file = await network.services.uploads.store_stream(user, "f", len(data), replicas, body())
        await pool.execute("update nodes set status = 'online', absent_since = null")
        yield Stage(pool, network, user, file, data)


async def eventually(is_so: Callable[[], bool]) -> None:
    """Give other tasks time until it is so."""
    with trio.fail_after(20):
        await wait_until(is_so)
