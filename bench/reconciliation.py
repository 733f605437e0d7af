"""Comparing a node with the catalogue: time of both sides, bytes on the wire, and what PostgreSQL reads for it."""

import time
from collections.abc import Iterator
from hashlib import md5, sha256
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import attrs
import psycopg
import trio

from bench.catalogue import open_metered, open_server
from bench.catalogue_rows import NOW, named
from fsn.coord.upkeep.comparing import Comparison
from fsn.core.ids import NodeId, PeerId, ReplicaId
from fsn.core.reconciliation import Difference
from fsn.node.chunkstore.base import StoredChunk
from fsn.node.chunkstore.disk import DiskStore
from fsn.node.chunkstore.index import INDEX_NAME, Index
from fsn.node.handlers import ChunkHandlers
from fsn.p2p.wire.codec import decode, encode
from fsn.p2p.wire.framing import FrameDecoder
from fsn.p2p.wire.messages import Message, Reconcile, Response

__all__ = ["main"]

NODE: Final = NodeId(named("n", 0))
OTHER: Final = NodeId(named("n", 1))
PEER: Final = PeerId("node")
SIZE: Final = 262_160
BATCH: Final = 10_000
WANTED_SECONDS: Final = 2.0
WANTED_BYTES: Final = 3_000_000


@attrs.define(eq=False)
class Line:
    """A requester whose network is a pair of frames: counts their bytes, and the node's seconds."""

    handlers: ChunkHandlers
    sent_bytes: int = 0
    node_seconds: float = 0.0

    async def request(self, peer: PeerId, message: Reconcile, *, within_seconds: float) -> Response:
        """Through both codecs, as on a stream."""
        asked = self._pass(message)
        assert isinstance(asked, Reconcile)
        began = time.perf_counter()
        answer = await self.handlers.reconcile(peer, asked)
        self.node_seconds += time.perf_counter() - began
        return self._pass(answer)  # type: ignore[return-value] # what was an answer is one

    def _pass(self, message: Message) -> Message:
        frame = encode(1, message)
        self.sent_bytes += len(frame)
        (content,) = FrameDecoder().feed(frame)
        return decode(bytes(content)).message


def _rows(count: int) -> Iterator[StoredChunk]:
    """As `_fill_catalogue` has them."""
    for number in range(count):
        raw = md5(f"r{number}".encode(), usedforsecurity=False).digest()
        yield StoredChunk(ReplicaId(UUID(bytes=raw)), sha256(raw).digest(), SIZE, 0)


def _fill_index(path: Path, count: int) -> Index:
    index, batch = Index(path), []
    for chunk in _rows(count):
        batch.append(chunk)
        if len(batch) == BATCH:
            index.add(batch)
            batch = []
    index.add(batch)
    return index


def _fill_catalogue(dsn: str, count: int) -> None:
    """The node's replicas, and as many of another node among them."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("set session_replication_role = replica")
        connection.execute(
            """insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, capacity_bytes)
               select i, i::text, sha256(i::text::bytea), 'n', sha256(i::text::bytea), %(now)s, %(now)s, 1
               from unnest(%(nodes)s::uuid[]) i""",
            {"now": NOW, "nodes": [NODE, OTHER]},
        )
        connection.execute(
            """insert into replicas (id, file_id, chunk_index, number, node_id, root, sealed_bytes, slot, stored_at)
               select r.id, %(node)s, i, 0, r.node, sha256(uuid_send(r.id)), %(size)s, 0, %(now)s from generate_series(0, %(last)s) i
               cross join lateral (values (md5('r' || i)::uuid, %(node)s::uuid), (md5('o' || i)::uuid, %(other)s::uuid)) r (id, node)""",
            {"node": NODE, "other": OTHER, "size": SIZE, "now": NOW, "last": count - 1},
        )
        connection.execute("vacuum analyze")


async def _compare(dsn: str, store: DiskStore, title: str, *, is_explained: bool = False) -> None:
    async with open_metered(dsn, is_explained=is_explained) as (pool, meter):
        await pool.fetch_all("select 1")
        for _ in range(1 if is_explained else 3):
            meter.plans.clear()
            line, found = Line(ChunkHandlers(store, is_draining=lambda: False)), [0, 0, 0]

            async def judge(difference: Difference, found: list[int] = found) -> None:
                for place, some in enumerate((difference.garbage, difference.lost, difference.damaged)):
                    found[place] += len(some)

            began, cpu = time.perf_counter(), time.process_time()
            agreed = await Comparison(pool, line, NODE, PEER).run(judge)  # type: ignore[arg-type] # asks alike
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            print(
                f"{title:34} {seconds:7.3f} s  (CPU {cpu:.3f}, node {line.node_seconds:.3f})  {line.sent_bytes:>10,} bytes"
                f"  agreed {agreed.count:,}  garbage, lost, damaged {found}"
            )
        for milliseconds, plan in meter.plans:
            print(f"    {milliseconds:8.1f} ms  {_scan(plan)}")


def _scan(plan: dict[str, Any]) -> str:
    names = []
    while True:
        names.append(f"{plan['Node Type']} {plan.get('Index Name', '')}".strip())
        if not plan.get("Plans"):
            pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            return f"{' < '.join(names)}: {pages} pages, heap fetches {plan.get('Heap Fetches', '-')}"
        plan = plan["Plans"][-1]


def main(count: int) -> None:
    """Print what a comparison of `count` replicas costs, and whether that is what we want."""
    with open_server() as (folder, dsn):
        began = time.perf_counter()
        _fill_catalogue(dsn, count)
        index = _fill_index(folder / INDEX_NAME, count)
        print(f"{count:,} replicas on the node, as many on another; filled in {time.perf_counter() - began:.0f} s")
        store = DiskStore(None, None, index, None, None, None, None, None)  # type: ignore[arg-type] # only the index is asked
        trio.run(lambda: _compare(dsn, store, "equal"))
        trio.run(lambda: _compare(dsn, store, "equal, explained", is_explained=True))
        gone = [chunk for number, chunk in enumerate(_rows(count)) if number % (count // 100) == 0]
        index.remove([chunk.replica for chunk in gone])
        strays = [attrs.evolve(chunk, replica=ReplicaId(UUID(int=chunk.replica.int ^ 1))) for chunk in gone]
        index.add(strays)
        trio.run(lambda: _compare(dsn, store, f"{len(gone)} lost, {len(strays)} garbage"))
        trio.run(lambda: _compare(dsn, store, "the same, explained", is_explained=True))
        print(f"wanted for 1,000,000 equal ones: below {WANTED_SECONDS:g} s and {WANTED_BYTES:,} bytes")
        index.close()
