"""Nodes that die in the middle of work: killed, without power, frozen."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from scenarios.netlab.daemons import StorageNode
from scenarios.netlab.lab import Lab
from scenarios.netlab.network import Network

pytestmark = [pytest.mark.netns, pytest.mark.slow]

SIZE_BYTES = 40_000_000
REPLICAS = 3


async def test_a_node_is_killed_in_the_middle_of_an_upload(lab: Lab) -> None:
    """kill -9: the upload goes on with another node, and what the node had acknowledged is there when it starts again."""

    async def kill(node: StorageNode) -> None:
        await node.host.kill()

    await _fails_while_storing(lab, kill)


async def test_a_node_loses_its_power_in_the_middle_of_an_upload(lab: Lab) -> None:
    """The same without a word: the coordinator has to find out by itself, and does not wait until it has."""

    async def power_off(node: StorageNode) -> None:
        await node.host.power_off()

    await _fails_while_storing(lab, power_off)


async def test_a_node_is_frozen(lab: Lab) -> None:
    """Its kernel goes on acknowledging, but it is given up all the same; thawed, it is back."""
    network = Network(lab)
    _, node = network.add_home("attic", "port_restricted")
    await network.start()
    node.host.pause()
    noticed = await network.wait_online(0, within_seconds=60.0)
    node.host.resume()
    back = await network.wait_online(1)
    print(f"noticed after {noticed:.1f} s, back {back:.1f} s later")
    assert noticed <= 15.0


async def _fails_while_storing(lab: Lab, fail: Callable[[StorageNode], Awaitable[None]]) -> None:
    network = Network(lab)
    network.add_home("attic", "port_restricted")
    network.add_home("cellar", "symmetric")
    for name in ("rack-1", "rack-2"):
        network.add_node(name)
    await network.start()
    upload = await network.user.start_put(SIZE_BYTES, replicas=REPLICAS)
    victim = await _first_to_store(network)
    await fail(victim)
    stored = await upload.stored()
    await network.user.check(stored)
    acknowledged = len(victim.replicas())
    await victim.host.heal()
    await victim.start()
    await network.wait_online(len(network.nodes))
    status = await victim.status()
    assert status is not None
    print(f"{victim.name} had {acknowledged} replicas, and says so: {status['chunk_count']}")
    assert status["recovery"]["lost"] == 0
    await network.user.check(stored)


async def _first_to_store(network: Network) -> StorageNode:
    """Wait until some node has a few chunks."""
    with trio.fail_after(60):
        while True:
            for node in network.nodes:
                if len(node.replicas()) >= 5:
                    return node
            await trio.sleep(0.02)
