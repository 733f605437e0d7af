"""Proofs: what making and checking one costs, and how long eight nodes take to answer."""

import json
import logging
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Final
from uuid import UUID, uuid4

import attrs
import structlog
import trio

from fsn.core.ids import NodeId, PeerId, ReplicaId
from fsn.core.merkle import merkle_root
from fsn.core.proofs import Challenge, Verdict, network_id, prove, verify
from fsn.node.chunkstore.disk import open_disk_store
from fsn.node.proving import Proving
from fsn.p2p.client import Requester, open_requester
from fsn.p2p.config import P2pConfig
from fsn.p2p.server import serve_requests
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.p2p.wire.messages import HeldProof, ProveHeld
from fsn.runtime.clock import system_clock
from fsn.runtime.identity import Identity

__all__ = ["main", "serve"]

SEALED_BYTES: Final = 262_160
NETWORK: Final = network_id("bench")
NODES: Final = 8
CHUNKS: Final = 64
IN_FLIGHT: Final = 4
ASKED: Final = 200


def main(repeats: int) -> None:
    """Print both."""
    _core(repeats)
    for in_flight in (IN_FLIGHT, 1):
        trio.run(_answers, in_flight)


def _core(repeats: int) -> None:
    data = secrets.token_bytes(SEALED_BYTES)
    root, node, replica = merkle_root(data), NodeId(uuid4()), ReplicaId(uuid4())
    challenges = [Challenge(NETWORK, node, uuid4(), replica, secrets.token_bytes(32)) for _ in range(500)]
    proving, checking = [], []
    for _ in range(repeats):
        cpu = time.process_time()
        answers = [prove(challenge, data) for challenge in challenges]
        proving.append(len(challenges) / (time.process_time() - cpu))
        cpu = time.process_time()
        for challenge, answer in zip(challenges, answers, strict=True):
            assert verify(challenge, answer, root=root, size_bytes=len(data)) is Verdict.PASSED
        checking.append(len(challenges) / (time.process_time() - cpu))
    print(f"proofs made a CPU second      {statistics.median(proving):8.0f}   of a sealed chunk of 256 KiB")
    print(f"proofs checked a CPU second   {statistics.median(checking):8.0f}   wanted: 2,000")


async def _answers(in_flight: int) -> None:
    """Eight nodes with disks, each a process of its own, over TCP; so many challenges in flight at each: four are the most that the
    coordinator has, and keep two processors busy, so that what is measured is how long they wait for each other."""
    asker, times = Identity.generate(), list[float]()
    with tempfile.TemporaryDirectory(prefix="fsn-bench-") as folder:
        async with (
            open_libp2p_transport(asker, P2pConfig(tcp_port=0, listen_host="127.0.0.1")) as transport,
            open_requester(transport) as requester,
            trio.open_nursery() as nursery,
        ):
            nodes = [await nursery.start(_node, Path(folder) / str(number), asker.peer) for number in range(NODES)]
            for node in nodes:
                await transport.connect(node.peer, node.addresses)
            async with trio.open_nursery() as asking:
                for node in nodes:
                    for _ in range(in_flight):
                        asking.start_soon(_ask, requester, node, ASKED // in_flight, times)
            nursery.cancel_scope.cancel()
    times.sort()
    p50, p99 = (1000 * times[int(len(times) * share)] for share in (0.5, 0.99))
    print(
        f"answered over TCP, {in_flight} at once  {p50:8.1f} ms median, {p99:.1f} ms p99 of {len(times)}; wanted: p99 below 100 ms"
    )


@attrs.frozen
class _Node:
    """A node to be asked, and what it holds."""

    peer: PeerId
    addresses: list[str]
    held: list[ReplicaId]


async def _node(folder: Path, asker: PeerId, task_status: trio.TaskStatus[_Node]) -> None:
    """A process that is a node, until cancelled."""
    code = f"import trio; from bench.proofs import serve; trio.run(serve, {str(folder)!r}, {asker!r})"
    serving = partial(trio.run_process, [sys.executable, "-c", code], stdout=subprocess.PIPE)
    async with trio.open_nursery() as nursery:
        process = await nursery.start(serving)
        said = json.loads(await _line(process.stdout))
        held = [ReplicaId(UUID(each)) for each in said["held"]]
        task_status.started(_Node(PeerId(said["peer"]), said["addresses"], held))


async def _line(stream: trio.abc.ReceiveStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = await stream.receive_some()
        assert piece, "the node ended"
        line += piece
    return line


async def serve(folder: str, asker: str) -> None:
    """The node's process: says in a line of JSON how it is reached and what it holds; `asker` may ask."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    await trio.Path(folder).mkdir()
    identity, held = Identity.generate(), [ReplicaId(uuid4()) for _ in range(CHUNKS)]
    async with (
        open_disk_store(Path(folder), capacity_bytes=1 << 30, reserve_bytes=0) as store,
        open_libp2p_transport(identity, P2pConfig(tcp_port=0, listen_host="127.0.0.1")) as transport,
    ):
        for replica in held:
            data = secrets.token_bytes(SEALED_BYTES)
            await store.store(replica, merkle_root(data), data)
        proving = Proving(store, NETWORK, NodeId(uuid4()), system_clock)
        serve_requests(transport, {ProveHeld: proving.prove_held}, may_ask=lambda peer: peer == asker)
        known = {"peer": identity.peer, "addresses": list(transport.addresses), "held": [str(each) for each in held]}
        print(json.dumps(known), flush=True)
        await trio.sleep_forever()


async def _ask(requester: Requester, node: _Node, count: int, times: list[float]) -> None:
    rng = Random()
    for _ in range(count):
        message = ProveHeld(uuid4(), rng.choice(node.held), secrets.token_bytes(32), 4)
        began = time.perf_counter()
        answer = await requester.request(node.peer, message, within_seconds=2)
        times.append(time.perf_counter() - began)
        assert isinstance(answer, HeldProof)
