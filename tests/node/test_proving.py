"""What a node answers to challenges, how many at a time, and what it remembers of them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import attrs
import pytest
import trio
import trio.testing

from fsn.core.errors import Corrupt, NotFound
from fsn.core.ids import NodeId, PeerId, ReplicaId
from fsn.core.merkle import merkle_root
from fsn.core.proofs import Challenge, Verdict, network_id, verify
from fsn.node.chunkstore.base import ChunkStore, Ended
from fsn.node.chunkstore.disk import open_disk_store
from fsn.node.chunkstore.memory import MemoryStore
from fsn.node.proving import AT_ONCE, Proving
from fsn.p2p.wire.messages import HeldProof, ProveHeld
from fsn.runtime.supervise import Rest

NETWORK, NODE, PEER = network_id("main"), NodeId(uuid4()), PeerId("coordinator")
DATA = bytes(range(256)) * 41
REPLICA = ReplicaId(UUID(int=7))
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", "disk"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChunkStore]:
    """Both kinds, with one chunk."""
    if request.param == "memory":
        memory = MemoryStore(capacity_bytes=1 << 30)
        await memory.store(REPLICA, merkle_root(DATA), DATA)
        yield memory
    else:
        async with open_disk_store(tmp_path, capacity_bytes=1 << 30, reserve_bytes=0) as disk:
            await disk.store(REPLICA, merkle_root(DATA), DATA)
            yield disk


def proving_over(store: ChunkStore) -> Proving:
    """A node's, at a fixed time."""
    return Proving(store, NETWORK, NODE, lambda: NOW)


def asked(replica: ReplicaId = REPLICA, difficulty: int = 4) -> ProveHeld:
    """A challenge with a seed of its own."""
    return ProveHeld(uuid4(), replica, uuid4().bytes * 2, difficulty)


async def prove(proving: Proving, message: ProveHeld) -> HeldProof:
    """The node's answer."""
    answer = await proving.prove_held(PEER, message)
    assert isinstance(answer, HeldProof)
    return answer


def judged(message: ProveHeld, answer: HeldProof, *, node: NodeId = NODE) -> Verdict:
    """As a coordinator does it, which knows root and size."""
    challenge = Challenge(NETWORK, node, message.challenge_id, message.replica, message.seed, message.difficulty)
    return verify(challenge, answer.proof, root=merkle_root(DATA), size_bytes=len(DATA))


@pytest.mark.parametrize("difficulty", [1, 4, 64])
async def test_an_answer_proves_that_the_replica_is_here(store: ChunkStore, difficulty: int) -> None:
    """It carries the challenge's id, and serves no other node."""
    message = asked(difficulty=difficulty)
    answer = await prove(proving_over(store), message)
    assert answer.challenge_id == message.challenge_id
    assert answer.duration_ms >= 0
    assert judged(message, answer) is Verdict.PASSED
    assert judged(message, answer, node=NodeId(uuid4())) is Verdict.BAD


async def test_what_is_not_here_is_said_to_be_gone(store: ChunkStore) -> None:
    """The coordinator is told by the error's kind."""
    with pytest.raises(NotFound, match="not stored here"):
        await proving_over(store).prove_held(PEER, asked(ReplicaId(uuid4())))


async def test_how_a_challenge_ended_is_in_the_list_once_it_was_written(store: ChunkStore) -> None:
    """A step of the worker writes it; of a replica that is not here nothing is kept."""
    proving = proving_over(store)
    await prove(proving, asked())
    with pytest.raises(NotFound):
        await proving.prove_held(PEER, asked(ReplicaId(uuid4())))
    assert [chunk.challenged for chunk in await store.list()] == [None]
    assert isinstance(await proving.step(), Rest)
    assert [chunk.challenged for chunk in await store.list()] == [Ended(int(NOW.timestamp()), "answered")]


async def test_a_chunk_cut_short_is_gone_and_the_record_survives_a_restart(tmp_path: Path) -> None:
    """The list of a node that does not run tells it, too."""
    async with open_disk_store(tmp_path, capacity_bytes=1 << 30, reserve_bytes=0) as disk:
        await disk.store(REPLICA, merkle_root(DATA), DATA)
        (file,) = (path for path in (tmp_path / "chunks").rglob("*") if path.is_file())
        file.write_bytes(DATA[:-1])
        proving = proving_over(disk)
        with pytest.raises(Corrupt):
            await proving.prove_held(PEER, asked())
        await proving.step()
        file.write_bytes(DATA)
    async with open_disk_store(tmp_path, capacity_bytes=1 << 30, reserve_bytes=0) as again:
        assert [chunk.challenged for chunk in await again.list()] == [Ended(int(NOW.timestamp()), "gone")]


@attrs.define(eq=False)
class Counting(MemoryStore):
    """Counts who reads at the same time."""

    reading: int = 0
    most: int = 0

    def __init__(self) -> None:
        super().__init__(capacity_bytes=1 << 30)
        self.reading = self.most = 0

    async def retrieve(self, replica: ReplicaId, offset: int = 0, length: int = 0) -> tuple[bytes, int]:
        """As `MemoryStore` does it, when everybody has had a turn."""
        self.reading += 1
        self.most = max(self.most, self.reading)
        await trio.testing.wait_all_tasks_blocked()
        self.reading -= 1
        return await super().retrieve(replica, offset, length)


async def test_a_few_are_read_at_a_time_however_many_are_asked() -> None:
    """The rest wait, in order, and none is lost."""
    store = Counting()
    await store.store(REPLICA, merkle_root(DATA), DATA)
    proving, answers = proving_over(store), []

    async def ask() -> None:
        answers.append(await prove(proving, asked()))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert len(answers) == 20
    assert store.most == AT_ONCE
