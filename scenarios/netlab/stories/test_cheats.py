"""Nodes that cheat, as real processes: rounds of proofs find them, and nobody else."""

from typing import Any

import pytest
import trio

from scenarios.netlab.daemons import StorageNode
from scenarios.netlab.lab import Lab
from scenarios.netlab.network import Network

pytestmark = [pytest.mark.netns, pytest.mark.slow]

ROUND_SECONDS = 36.0
SETTINGS = """
[audit]
round_hours = 0.01
[membership]
settle_seconds = 3.0
[placement]
chunks_per_set = 1
[repair]
tick_seconds = 1.0
"""
FILES, FILE_BYTES, REPLICAS = 4, 2_500_000, 3
CHUNKS = FILES * 10
HONEST = 6


async def test_cheats_are_caught_and_nobody_else(lab: Lab) -> None:
    """One kept nothing but hashes and makes its leaves up; of one the owner deleted all files behind its back: both are out after three
    rounds, what they had is rebuilt, and every file is there. A node that fetches from afar shows it, and is left alone."""
    network = Network(lab, settings=SETTINGS)
    honest = [network.add_node(f"rack-{number}") for number in range(HONEST)]
    hashes = network.add_node("hashes", cheats="keeps_hashes")
    emptied = network.add_node("emptied")
    afar = network.add_node("afar", cheats="proxies")
    await network.start()
    stored = [await network.user.put(FILE_BYTES, replicas=REPLICAS) for _ in range(FILES)]
    assert len(hashes.replicas()) >= 3, "placement gave it too little to judge it by"
    assert await trio.to_thread.run_sync(emptied.delete_files) >= 3

    async def are_out() -> bool:
        return {await network.coordinator.status_of(each) for each in (hashes, emptied)} == {"disqualified"}

    seconds = await network.wait_until("both cheats disqualified", are_out, within_seconds=6 * ROUND_SECONDS)
    print(f"disqualified after {seconds:.0f} s in rounds of {ROUND_SECONDS:g} s")
    await _check_caught(network, hashes, "bad")
    await _check_caught(network, emptied, "gone")

    async def is_rebuilt() -> bool:
        await trio.lowlevel.checkpoint()
        return sum(len(each.replicas()) for each in (*honest, afar)) >= REPLICAS * CHUNKS

    print(f"rebuilt {await network.wait_until('all rebuilt', is_rebuilt, within_seconds=120):.0f} s later")
    for each in (*honest, afar):
        found = await _proofs(network, each)
        assert found["reputation"]["passed"] > 0
        assert (found["failures"], found["events"]) == ([], []), network.evidence()
    assert await _quickest(network, afar) >= 100
    assert min([await _quickest(network, each) for each in honest]) < 100
    for file in stored:
        await network.user.check(file)


async def _check_caught(network: Network, node: StorageNode, outcome: str) -> None:
    found = await _proofs(network, node)
    assert {each["outcome"] for each in found["failures"]} == {outcome}
    assert found["events"][0]["kind"] == "disqualified"
    rounds = len([each for each in found["rounds"] if each["failed"]])
    print(f"{node.name}: {len(found['failures'])} failures with evidence, in {rounds} rounds")


async def _proofs(network: Network, node: StorageNode) -> dict[str, Any]:
    found = await network.coordinator.proofs_of(node)
    assert found is not None
    return found


async def _quickest(network: Network, node: StorageNode) -> int:
    rounds = (await _proofs(network, node))["rounds"]
    return min(int(each["quickest_ms"]) for each in rounds if each["quickest_ms"] is not None)
