"""What the tests of faults do with a coordinator and its nodes: bad nodes, damage on disks, and counting what is left behind."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import attrs
import httpx
import trio

from fsn.coord.config import CreditsConfig, DownloadConfig, UploadConfig
from fsn.core.chunking import CHUNK_BYTES
from fsn.core.ids import FileId, ReplicaId
from fsn.node.chunkstore.memory import MemoryStore
from tests.coord.network import CONFIG, Member, Network

IMPATIENT = attrs.evolve(
    CONFIG,
    upload=UploadConfig(store_seconds=5, chunk_seconds=20),
    download=DownloadConfig(retrieve_seconds=5),
    credits=CreditsConfig(welcome_grant="100", price_per_gb_month="1000"),
)
"""Storing costs something here: what is charged twice, or for nothing, is seen."""

Damage = Callable[[dict[ReplicaId, bytes]], dict[ReplicaId, bytes | None]]
"""From what lies on a node to what lies there afterwards; None for a file that is gone."""


class Forgetful(MemoryStore):
    """A liar: acknowledges chunks, counts them, and keeps none."""

    async def store(self, replica: ReplicaId, root: bytes, data: bytes | memoryview) -> None:
        await super().store(replica, root, data)
        self._chunks.pop(replica)


class Slow(MemoryStore):
    """Answers in the end. `pause_seconds` may be changed; infinity is a process that was stopped."""

    pause_seconds = 0.0

    async def store(self, replica: ReplicaId, root: bytes, data: bytes | memoryview) -> None:
        await trio.sleep(self.pause_seconds)
        await super().store(replica, root, data)

    async def retrieve(self, replica: ReplicaId, offset: int = 0, length: int = 0) -> tuple[bytes, int]:
        await trio.sleep(self.pause_seconds)
        return await super().retrieve(replica, offset, length)


def flipped(data: bytes) -> bytes:
    """One bit of it is another."""
    at = secrets.randbelow(len(data))
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def damage(node: Member, replicas: Sequence[ReplicaId], change: Callable[[bytes], bytes | None]) -> None:
    """Change what lies on a node's disk, behind the back of its index; None: the file is gone."""
    stored = node.store._chunks
    for replica in replicas:
        if replica in stored:
            chunk, data = stored.pop(replica)
            if (changed := change(data)) is not None:
                stored[replica] = (chunk, changed)


async def replicas_of(network: Network, file: FileId, first: int, last: int) -> list[ReplicaId]:
    """The replicas of some chunks of a file, as the catalogue has them."""
    sql = "select id from replicas where file_id = %s and chunk_index between %s and %s"
    return [ReplicaId(row[0]) for row in await network.services.db.fetch_all(sql, [file, first, last])]


async def put(user: httpx.AsyncClient, data: bytes) -> FileId:
    """One streamed upload."""
    response = await user.put("/api/v1/files", params={"filename": "f"}, content=data)
    assert response.status_code == 201, response.text
    return FileId(response.json()["id"])


async def get(user: httpx.AsyncClient, file: FileId) -> tuple[int, bytes, bool]:
    """A download: status, the bytes that came, and whether the body ended cleanly."""
    received = b""
    async with user.stream("GET", f"/api/v1/files/{file}/download") as response:
        with suppress(httpx.RemoteProtocolError):
            async for piece in response.aiter_bytes():
                received += piece
            return response.status_code, received, True
    return response.status_code, received, False


def content(chunks: float) -> bytes:
    """Random bytes for so many chunks."""
    return secrets.token_bytes(int(chunks * CHUNK_BYTES))


LASTING = ("channel ", "_until_broken", "run_handler")
"""Tasks of the streams between coordinator and nodes: one stream for each node and kind of request, opened when it is first needed."""


def tasks() -> list[str]:
    """The tasks of this trio run, by name, but for those of streams that last."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return sorted(task.name for task in _below(root) if not any(name in task.name for name in LASTING))


def _below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield child
            yield from _below(child)


def bytes_in_flight(network: Network) -> int:
    """What all windows of a coordinator hold: plaintext of uploads, requests to nodes."""
    services = network.services
    requester = services.membership._requester
    uploads: int = services.uploads._writer.window.taken_bytes
    return uploads + sum(channel.window.taken_bytes for channel in requester._channels.values())


async def wait_stored_is_recorded(network: Network) -> None:
    """Until the nodes hold what the catalogue counts on, and nothing else; the test's deadline bounds it."""
    while await everything_stored(network) != await everything_recorded(network):  # noqa: ASYNC110 - the nodes have no event for it
        await trio.sleep(0.02)


async def everything_stored(network: Network) -> set[ReplicaId]:
    """What lies on the nodes."""
    return {replica for node in network.nodes for replica in await node.replicas()}


async def everything_recorded(network: Network) -> set[ReplicaId]:
    """What the catalogue counts on."""
    return {ReplicaId(row[0]) for row in await network.services.db.fetch_all("select id from replicas")}
