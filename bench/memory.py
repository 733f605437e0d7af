"""What the coordinator's memory rises to: for an upload of 2 GB, and for 50 downloads at once whose clients are slow."""

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from urllib.parse import urlsplit

from bench.network import BenchNetwork
from bench.processes import forget_peak, peak_rss_bytes

__all__ = ["measure_memory"]

LARGE_BYTES = 2_000_000_000
PIECE_BYTES = 1_000_000
SLOW_BYTES = 100_000_000
SLOW_CLIENTS = 50
SLOW_SECONDS = 10.0
SLOW_READ_BYTES = 64 << 10
"""Read by each client ten times a second."""
SMALL_BUFFER_BYTES = 64 << 10
"""The clients' receive buffers: what the kernel holds for them must not pass for our doing."""


def measure_memory(network: BenchNetwork) -> dict[str, int]:
    """The coordinator's highest resident size in each case, bytes."""
    coordinator = network.coordinator.pid
    peaks = {}
    forget_peak(coordinator)
    _upload(network, LARGE_BYTES)
    peaks["upload of 2 GB"] = peak_rss_bytes(coordinator)
    file = _upload(network, SLOW_BYTES)
    forget_peak(coordinator)
    _slow_downloads(network, file)
    peaks[f"{SLOW_CLIENTS} downloads at 640 kB/s, each of 100 MB"] = peak_rss_bytes(coordinator)
    return peaks


def _upload(network: BenchNetwork, size_bytes: int) -> str:
    piece = secrets.token_bytes(PIECE_BYTES)

    def body() -> Iterator[bytes]:
        for _ in range(size_bytes // PIECE_BYTES):
            yield piece

    connection = _connection(network)
    headers = {**network.headers, "Content-Length": str(size_bytes)}
    connection.request("PUT", "/api/v1/files?filename=large", body=body(), headers=headers, encode_chunked=False)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 201:
        raise RuntimeError(f"upload failed: {answer.status} {text[:500]!r}")
    connection.close()
    return text.split(b'"id":"')[1][:36].decode()


def _slow_downloads(network: BenchNetwork, file: str) -> None:
    address = urlsplit(network.url)
    request = (
        f"GET /api/v1/files/{file}/download HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {network.token}\r\n\r\n"
    )
    with ExitStack() as stack:
        clients = []
        for _ in range(SLOW_CLIENTS):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
            client.settimeout(60)
            client.connect((address.hostname or "", address.port or 80))
            client.sendall(request.encode())
            clients.append(client)
        end = time.monotonic() + SLOW_SECONDS
        while time.monotonic() < end:
            for client in clients:
                if not client.recv(SLOW_READ_BYTES):
                    raise RuntimeError("a download ended early")
            time.sleep(0.1)


def _connection(network: BenchNetwork) -> HTTPConnection:
    address = urlsplit(network.url)
    return HTTPConnection(address.hostname or "", address.port or 80, timeout=300)
