"""What a megabyte costs over TCP and over QUIC: two transports of ours in this process, 256 KiB at a time on one stream."""

import statistics
import time
from collections.abc import Sequence

import attrs
import trio

from fsn.core.chunking import CHUNK_BYTES
from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.addresses import QUIC, TCP, parse_address
from fsn.p2p.transport.base import Stream, Transport
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.runtime.identity import Identity

__all__ = ["main"]

SINK = "/bench/sink/1"
CHUNKS = {TCP: 400, QUIC: 60}
"""100 MB, and 16: QUIC would take a minute."""


@attrs.frozen
class Run:
    """One transfer: seconds and CPU seconds of both ends together."""

    seconds: float
    cpu_seconds: float
    megabytes: float


def main(repeats: int) -> None:
    """Print medians."""
    print("one stream, 256 KiB at a time, both ends in one process on loopback")
    for carrier in (TCP, QUIC):
        runs = [trio.run(_transfer, carrier) for _ in range(repeats)]
        rate = statistics.median(run.megabytes / run.seconds for run in runs)
        cost = statistics.median(run.cpu_seconds / run.megabytes for run in runs)
        print(f"  {carrier:8} {rate:7.1f} MB/s {cost * 1000:8.2f} ms of CPU per MB (both ends)")


async def _transfer(carrier: str) -> Run:
    config = P2pConfig(listen_host="127.0.0.1", tcp_port=0)
    async with (
        open_libp2p_transport(Identity.generate(), config) as a,
        open_libp2p_transport(Identity.generate(), config) as b,
    ):
        b.serve(SINK, _sink)
        await a.connect(b.peer, _addresses(b, carrier))
        stream = await a.open_stream(b.peer, SINK)
        await _send(stream, 8)  # windows open, caches warm
        began, cpu = time.perf_counter(), time.process_time()
        await _send(stream, CHUNKS[carrier])
        return Run(time.perf_counter() - began, time.process_time() - cpu, CHUNKS[carrier] * CHUNK_BYTES / 1e6)


def _addresses(transport: Transport, carrier: str) -> Sequence[str]:
    return [address for address in transport.addresses if parse_address(address).transport == carrier]


async def _send(stream: Stream, chunks: int) -> None:
    """That many chunks, each of them answered by a byte once it is there: nothing is left in a buffer."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_answers, stream, chunks)
        for _ in range(chunks):
            await stream.send_all(bytes(CHUNK_BYTES))


async def _answers(stream: Stream, wanted: int) -> None:
    while wanted > 0:
        wanted -= len(await stream.receive_some())


async def _sink(stream: Stream) -> None:
    got = 0
    while data := await stream.receive_some():
        before, got = got // CHUNK_BYTES, got + len(data)
        if chunks := got // CHUNK_BYTES - before:
            await stream.send_all(bytes(chunks))
