"""Uploads and downloads over a coordinator and five nodes with three sealed replicas, beside the limits of the same run."""

import secrets
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import attrs

from bench.limits import measure_limits
from bench.network import BenchNetwork, open_network
from bench.processes import peak_rss_bytes, rss_bytes

__all__ = ["main"]

LARGE_BYTES = 100_000_000
SMALL_BYTES = 10_000
SMALL_FILES = 200
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
        for _ in range(repeats):
            for case in cases:
                _measure(case, network)
        peak = peak_rss_bytes(network.coordinator.pid)
        _print(cases)
        print(f"first byte of a 100 MB download: median {statistics.median(first_bytes) * 1000:.0f} ms (target 50)")
        print(f"coordinator's memory: idle {idle >> 20} MiB, peak {peak >> 20} MiB (target: below 150 MB more)")
    print("\nlimits, 100 MB each              s   CPU s")
    for limit in measure_limits():
        print(f"{limit.name:<30} {limit.seconds:5.2f}  {limit.cpu_seconds:5.2f}")


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


def _print(cases: list[Case]) -> None:
    print(
        f"{'':<34} {'s':>6} {'(min)':>7} {'target':>7} {'ratio':>6} | {'CPU s':>6} {'target':>7} | coord  nodes  postgres"
    )
    for case in cases:
        seconds = statistics.median(case.seconds)
        parts = {part: statistics.median(cpu[part] for cpu in case.cpu) for part in PARTS}
        total = statistics.median(sum(cpu.values()) for cpu in case.cpu)
        target = f"{case.target_seconds:7.2f} {seconds / case.target_seconds:6.2f}" if case.target_seconds else " " * 14
        wanted = f"{case.target_cpu:7.1f}" if case.target_cpu else " " * 7
        shares = "  ".join(f"{parts[part]:5.2f}" for part in PARTS)
        print(f"{case.name:<34} {seconds:6.2f} ({min(case.seconds):5.2f}) {target} | {total:6.2f} {wanted} | {shares}")
