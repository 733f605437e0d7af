"""How fast chunks are repaired beside how fast they came in: the same network of processes, one after the other, in one run."""

import secrets
import time
from collections.abc import Mapping
from typing import Final

import httpx

from bench.chunk_path import LARGE_BYTES, User
from bench.network import BenchNetwork, open_network
from fsn.core.chunking import CHUNK_BYTES

__all__ = ["measure_speed"]

TARGET: Final = 0.6
NODES: Final = 5
REPLICAS: Final = 3
SOON: Final[Mapping[str, str]] = {
    "FSN_REPAIR__GRACE_HOURS": "0.0005",
    "FSN_REPAIR__SHORT_GRACE_MINUTES": "0.02",
    "FSN_REPAIR__TICK_SECONDS": "0.5",
}
"""A dead node is waited for two seconds, not a day."""
WAIT_SECONDS: Final = 600.0


def measure_speed(files: int = 3) -> None:
    """Upload so many files of 100 MB, kill one node of five, and print chunks a second of both."""
    with open_network(NODES, settings=SOON) as network:
        user = User(network)
        user.put("warm", secrets.token_bytes(LARGE_BYTES // 10))
        began = time.perf_counter()
        names = [user.put("large", secrets.token_bytes(LARGE_BYTES)) for _ in range(files)]
        upload = files * LARGE_BYTES / CHUNK_BYTES / (time.perf_counter() - began)
        network.nodes[0].kill()
        repair, count = _repair_rate(network)
        health = [
            httpx.get(f"{network.url}/api/v1/files/{name}", headers=network.headers).json()["health"] for name in names
        ]
    print(
        f"\n{files} x 100 MB up in {REPLICAS} replicas: {upload:.0f} chunks/s. One of {NODES} nodes dead, {count} chunks repaired:"
        f" {repair:.0f} chunks/s. Ratio {repair / upload:.2f}, target {TARGET}"
    )
    print(f"chunks below the wanted number afterwards: {sum(each['chunks_below'] for each in health)}")


def _repair_rate(network: BenchNetwork) -> tuple[float, int]:
    """Chunks a second from the first repair to the last, and how many."""
    deadline = time.monotonic() + WAIT_SECONDS
    first: tuple[float, float] | None = None
    while time.monotonic() < deadline:
        (done, waiting), now = _figures(network), time.perf_counter()
        if done and first is None:
            first = now, done
        if first is not None and not waiting:
            return (done - first[1]) / (now - first[0]), int(done)
        time.sleep(0.1)
    raise TimeoutError(f"the chunks of a dead node were not repaired within {WAIT_SECONDS:g} s")


def _figures(network: BenchNetwork) -> tuple[float, float]:
    """Chunks repaired so far, and those that wait."""
    lines = httpx.get(f"{network.url}/metrics").text.splitlines()
    done = sum(float(line.split()[-1]) for line in lines if line.startswith('fsn_chunk_repairs_total{outcome="ok"'))
    waiting = sum(float(line.split()[-1]) for line in lines if line.startswith("fsn_repairs_waiting{"))
    return done, waiting
