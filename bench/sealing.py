"""Where to seal: in the loop or in threads. Sealing is AES-256-GCM and the Merkle root, three replicas of each chunk."""

import functools
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import trio

from fsn.core.chunking import CHUNK_BYTES
from fsn.core.ids import FileId, chunk_id
from fsn.core.keys import FileKey
from fsn.core.sealing import seal

__all__ = ["main"]

CHUNKS = 300
REPLICAS = 3
CHUNKS_AT_ONCE = 8
THREADS = 2


def main(repeats: int) -> None:
    """Print the milliseconds and CPU milliseconds a replica, medians."""
    print(f"{'':<12} ms a replica   CPU ms")
    for name, work in (("in the loop", _inline), ("in threads", _in_threads)):
        seconds, cpu = zip(*(_timed(work) for _ in range(repeats)), strict=True)
        print(f"{name:<12} {statistics.median(seconds):12.3f} {statistics.median(cpu):8.3f}")


def _timed(work: Callable[[Callable[[int], object]], Awaitable[None]]) -> tuple[float, float]:
    key, file, data = FileKey(secrets.token_bytes(32)), FileId(UUID(int=1)), secrets.token_bytes(CHUNK_BYTES)
    began, cpu = time.perf_counter(), time.process_time()
    trio.run(work, lambda index: seal(key, chunk_id(file, index), data, secrets.token_bytes))
    each = 1000 / (CHUNKS * REPLICAS)
    return (time.perf_counter() - began) * each, (time.process_time() - cpu) * each


async def _inline(seal_one: Callable[[int], object]) -> None:
    for index in range(CHUNKS):
        for _ in range(REPLICAS):
            seal_one(index)
        await trio.lowlevel.checkpoint()


async def _in_threads(seal_one: Callable[[int], object]) -> None:
    limiter, room = trio.CapacityLimiter(THREADS), trio.Semaphore(CHUNKS_AT_ONCE)

    async def seal_chunk(index: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(REPLICAS):
                nursery.start_soon(functools.partial(trio.to_thread.run_sync, seal_one, index, limiter=limiter))
        room.release()

    async with trio.open_nursery() as nursery:
        for index in range(CHUNKS):
            await room.acquire()
            nursery.start_soon(seal_chunk, index)
