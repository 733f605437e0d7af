"""Addresses that change: a node's own, and the coordinator's."""

from importlib.util import find_spec

import pytest

from scenarios.netlab.lab import Lab
from scenarios.netlab.network import Network

pytestmark = [pytest.mark.netns, pytest.mark.slow]

SIZE_BYTES = 1_500_000
BACK_SECONDS = 3.0
"""A second to see it, then a dial."""
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


@pytest.mark.skipif(find_spec("fsn.p2p.discovery") is None, reason="waits for the DHT: fsn.p2p.discovery")
async def test_the_coordinator_moves_without_a_word(lab: Lab) -> None:
    """It starts again at another address, which nobody was told: nodes find it through each other, also from behind NAT."""
    network = Network(lab)
    network.add_node("rack")
    network.add_node("shelf")
    _, attic = network.add_home("attic", "port_restricted")
    await lab.up()
    await network.join(last=attic)
    for name in ("rack", "shelf"):
        await network.wait_reach(name, "direct")
    await network.join_node(
        attic
    )  # now, for who cannot be reached can be told of by nobody, and it looks around once in half an hour
    await network.wait_online(3)
    stored = await network.user.put(SIZE_BYTES, replicas=3)
    await network.coordinator.stop()
    await network.move_coordinator()
    await network.coordinator.start()
    back = await network.wait_reconnected(network.nodes)
    print(f"all back after {back:.1f} s")
    await network.user.login()
    await network.user.check(stored)
