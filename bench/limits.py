"""What this machine can do at best, measured in the same run as what we reach."""

import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fsn.core.chunking import CHUNK_BYTES
from fsn.core.merkle import merkle_root

__all__ = ["Limit", "measure_limits"]

CHUNKS = 400
"""About 100 MB."""


@attrs.frozen
class Limit:
    """Seconds and CPU seconds for 100 MB; `uploads` and `downloads` say how often a byte of a file goes through it with three replicas."""

    name: str
    seconds: float
    cpu_seconds: float
    uploads: int
    downloads: int


def measure_limits(repeats: int = 3) -> list[Limit]:
    """Plain sockets, AES-256-GCM, Merkle roots and synced files, each for 400 chunks of 256 KiB; medians."""
    chunk = secrets.token_bytes(CHUNK_BYTES)
    cipher = AESGCM(secrets.token_bytes(32))
    return [
        _timed("plain trio sockets, both ends", 4, 2, repeats, lambda: trio.run(_through_sockets, chunk)),
        _timed("AES-256-GCM", 3, 1, repeats, lambda: [cipher.encrypt(bytes(12), chunk, b"") for _ in range(CHUNKS)]),
        _timed("Merkle roots (BLAKE3)", 6, 0, repeats, lambda: [merkle_root(chunk) for _ in range(CHUNKS)]),
        _timed("files, one fsync each", 3, 0, repeats, lambda: _synced_files(chunk)),
    ]


def _timed(name: str, uploads: int, downloads: int, repeats: int, work: Callable[[], object]) -> Limit:
    figures = []
    for _ in range(repeats):
        began, cpu = time.perf_counter(), time.process_time()
        work()
        figures.append((time.perf_counter() - began, time.process_time() - cpu))
    seconds, cpu_seconds = (statistics.median(column) for column in zip(*figures, strict=True))
    return Limit(name, seconds, cpu_seconds, uploads, downloads)


async def _through_sockets(chunk: bytes) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        done = trio.Event()

        async def sink(stream: trio.SocketStream) -> None:
            while await stream.receive_some(1 << 18):
                pass
            done.set()

        nursery.start_soon(trio.serve_listeners, sink, listeners)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for _ in range(CHUNKS):
                await stream.send_all(chunk)
        await done.wait()
        nursery.cancel_scope.cancel()


def _synced_files(chunk: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("FSN_BENCH_DIR", "/var/tmp")) as folder:
        for number in range(CHUNKS):
            with (Path(folder) / str(number)).open("wb") as file:
                file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
