"""Uploads and downloads over a coordinator and five nodes with three sealed replicas, beside the limits of the same run."""

import secrets
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import attrs

from bench.limits import Limit, measure_limits
from bench.memory import measure_memory
from bench.network import BenchNetwork, open_network
from bench.processes import rss_bytes

__all__ = ["main"]

LARGE_BYTES = 100_000_000
SMALL_BYTES = 10_000
SMALL_FILES = 200
MEMORY_MIB = 150
"""How far above idle the coordinator's memory may go, whatever is asked of it."""
PARTS = ("coordinator", "nodes", "postgres")


@attrs.define
class Case:
    """One thing that is measured, and what we want of it."""

    name: str
    work: Callable[[], object]
    target_seconds: float | None = None
    target_cpu: float | None = None
    seconds: list[float] = attrs.field(factory=list)
    cpu: list[dict[str, float]] = attrs.field(factory=list)


class User:
    """Talks HTTP to the coordinator over kept connections, one for each thread."""

    def __init__(self, network: BenchNetwork) -> None:
        self._network = network
        self._address = urlsplit(network.url)
        self.connection = HTTPConnection(self._address.hostname or "", self._address.port or 80, timeout=120)

    def put(self, name: str, data: bytes) -> str:
        """Upload; the file's id."""
        self.connection.request("PUT", f"/api/v1/files?filename={name}", body=data, headers=self._network.headers)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 201:
            raise RuntimeError(f"upload failed: {answer.status} {body[:500]!r}")
        return body.split(b'"id":"')[1][:36].decode()

    def get(self, file: str) -> tuple[int, float]:
        """Download; bytes and seconds to the first of them."""
        began = time.perf_counter()
        self.connection.request("GET", f"/api/v1/files/{file}/download", headers=self._network.headers)
        answer = self.connection.getresponse()
        received = len(answer.read(1))
        first = time.perf_counter() - began
        buffer = bytearray(1 << 18)
        while count := answer.readinto(buffer):
            received += count
        if answer.status != 200:
            raise RuntimeError(f"download failed: {answer.status}")
        return received, first


def main(repeats: int = 5) -> None:
    """Print one table."""
    with open_network() as network:
        idle = rss_bytes(network.coordinator.pid)
        cases, first_bytes = _cases(network)
        for case in cases:
            case.work()  # not counted: connections, caches and folders are made
        first_bytes.clear()
        for _ in range(repeats):
            for case in cases:
                _measure(case, network)
        memory = measure_memory(network)
    limits = measure_limits()
    _print(cases, limits)
    first = statistics.median(first_bytes) * 1000
    print(f"{'first byte of 100 MB down':<34} {first:4.0f} ms        target 50 ms, ratio {first / 50:.2f}")
    print(f"\ncoordinator's memory, MiB (idle: {idle >> 20})      peak above idle   target   ratio")
    for name, peak in memory.items():
        above = (peak - idle) / (1 << 20)
        print(f"{name:<44} {above:15.0f} {MEMORY_MIB:8d} {above / MEMORY_MIB:7.2f}")
    print("\nlimits of this machine, 100 MB each      s   CPU s   times in an upload, a download")
    for limit in limits:
        print(f"{limit.name:<34} {limit.seconds:7.2f} {limit.cpu_seconds:7.2f}   {limit.uploads} {limit.downloads:17d}")


def _cases(network: BenchNetwork) -> tuple[list[Case], list[float]]:
    user, large = User(network), secrets.token_bytes(LARGE_BYTES)
    small = [secrets.token_bytes(SMALL_BYTES) for _ in range(SMALL_FILES)]
    files: dict[str, list[str]] = {"large": [], "small": []}
    first_bytes: list[float] = []
    pool = ThreadPoolExecutor(8)
    users = [User(network) for _ in range(8)]

    def up_large() -> None:
        files["large"].append(user.put("large", large))

    def down_large() -> None:
        received, first = user.get(files["large"][-1])
        assert received == LARGE_BYTES
        first_bytes.append(first)

    def up_small() -> None:
        files["small"] = [user.put("small", data) for data in small]

    def down_small() -> None:
        for file in files["small"]:
            user.get(file)

    def share(lane: int, work: Callable[[User, int], object]) -> None:
        for number in range(lane, SMALL_FILES, 8):
            work(users[lane], number)

    def up_eight() -> None:
        list(pool.map(lambda lane: share(lane, lambda user, n: user.put("small", small[n])), range(8)))

    def down_eight() -> None:
        list(pool.map(lambda lane: share(lane, lambda user, n: user.get(files["small"][n])), range(8)))

    def up_large_eight() -> None:
        part = large[: LARGE_BYTES // 8]
        list(pool.map(lambda lane: users[lane].put("part", part), range(8)))

    cases = [
        Case("100 MB up", up_large, 2.5, 3.0),
        Case("100 MB down", down_large, 0.8),
        Case("8 x 12.5 MB up at once", up_large_eight),
        Case("200 x 10 KB up, one by one", up_small, 2.5),
        Case("200 x 10 KB down, one by one", down_small),
        Case("200 x 10 KB up, eight at a time", up_eight, 1.2),
        Case("200 x 10 KB down, eight at a time", down_eight),
    ]
    return cases, first_bytes


def _measure(case: Case, network: BenchNetwork) -> None:
    before, began = network.cpu(), time.perf_counter()
    case.work()
    case.seconds.append(time.perf_counter() - began)
    after = network.cpu()
    case.cpu.append({part: after[part] - before[part] for part in PARTS})


def _print(cases: list[Case], limits: list[Limit]) -> None:
    floors = {
        "100 MB up": sum(limit.cpu_seconds * limit.uploads for limit in limits),
        "100 MB down": sum(limit.cpu_seconds * limit.downloads for limit in limits),
    }
    print(
        f"{'':<34} {'s':>6} {'(min)':>7} {'target':>7} {'ratio':>6} | {'CPU s':>6} {'target':>7} {'ratio':>6}", end=""
    )
    print(f" {'limit':>6} {'ratio':>6} | coord  nodes  postgres")
    for case in cases:
        seconds = statistics.median(case.seconds)
        parts = {part: statistics.median(cpu[part] for cpu in case.cpu) for part in PARTS}
        total = statistics.median(sum(cpu.values()) for cpu in case.cpu)
        print(
            f"{case.name:<34} {seconds:6.2f} ({min(case.seconds):5.2f}) {_beside(seconds, case.target_seconds)} |"
            f" {total:6.2f} {_beside(total, case.target_cpu)} {_beside(total, floors.get(case.name), width=6)} | "
            + "  ".join(f"{parts[part]:5.2f}" for part in PARTS)
        )


def _beside(found: float, wanted: float | None, width: int = 7) -> str:
    return f"{wanted:{width}.2f} {found / wanted:6.2f}" if wanted else " " * (width + 7)
