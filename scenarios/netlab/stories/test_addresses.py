"""Addresses that change: a node's own, and the coordinator's."""

import pytest

from scenarios.netlab.lab import Lab
from scenarios.netlab.network import Network

pytestmark = [pytest.mark.netns, pytest.mark.slow]

SIZE_BYTES = 1_500_000
BACK_SECONDS = 3.0
"""A second to see it, then a dial."""
MET_SECONDS = 180.0
"""A node looks around at its start and a minute later; by then it is known who can be reached."""
WORK_SECONDS = 3.0
"""For handshakes and our own asking, on a machine that does other things, too."""


async def test_a_node_gets_another_address(lab: Lab) -> None:
    """As from a new lease at home: the node sees it, gives up the dead connection at once, and makes another one."""
    network = Network(lab)
    _, node = network.add_home("attic", "linux")
    await network.start()
    stored = await network.user.put(SIZE_BYTES, replicas=1)
    await node.host.readdress("192.168.1.77")
    back = await network.wait_reconnected([node])
    print(f"back after {back:.1f} s")
    assert back <= BACK_SECONDS + WORK_SECONDS
    await network.user.check(stored)


async def test_the_coordinator_moves_and_its_name_with_it(lab: Lab) -> None:
    """Nodes that registered at a name find it at the new address, and files are read through it."""
    network = Network(lab, name="coordinator")
    network.add_home("attic", "port_restricted")
    network.add_node("rack")
    await network.start()
    stored = await network.user.put(SIZE_BYTES, replicas=2)
    await network.move_coordinator()
    back = await network.wait_reconnected(network.nodes)
    print(f"all back after {back:.1f} s")
    await network.user.check(stored)


async def test_the_coordinator_moves_without_a_word(lab: Lab) -> None:
    """It starts again at another address, which nobody was told: nodes that can be reached find it through the DHT."""
    network = Network(lab)
    network.add_node("rack")
    network.add_node("shelf")
    await network.start()
    stored = await network.user.put(SIZE_BYTES, replicas=2)
    await _move_without_a_word(network)
    back = await network.wait_reconnected(network.nodes)
    print(f"all back after {back:.1f} s")
    await network.user.login()
    await network.user.check(stored)


async def test_a_young_node_behind_nat_finds_the_coordinator_too(lab: Lab) -> None:
    """Through its neighbours, whom it met a minute after its start: nobody can tell it, for nobody can reach it."""
    network = Network(lab)
    network.add_node("rack")
    _, attic = network.add_home("attic", "port_restricted")
    await network.start()
    await network.wait_until("attic has met rack", attic.has_met_nodes, within_seconds=MET_SECONDS)
    await _move_without_a_word(network)
    await network.wait_reconnected([attic], within_seconds=120.0)


async def _move_without_a_word(network: Network) -> None:
    """As soon as the nodes with addresses of their own know that they can be reached: before, the coordinator could tell nobody."""
    for node in network.nodes:
        if node.name in ("rack", "shelf"):
            await network.wait_reach(node.name, "direct")
    await network.coordinator.stop()
    await network.move_coordinator()
    await network.coordinator.start()
