"""Half of the network cannot be reached: what is possible goes on, what is not is refused in words, and afterwards all is well."""

import pytest

from scenarios.netlab.daemons import FsnFailed
from scenarios.netlab.lab import Lab
from scenarios.netlab.network import Network

pytestmark = [pytest.mark.netns, pytest.mark.slow]

SIZE_BYTES = 3_000_000


async def test_half_of_the_nodes_are_cut_off(lab: Lab) -> None:
    """Uploads go to the other half, or are refused when that is too few; old files are read; mended, all take part again."""
    network = Network(lab)
    for name, kind in (("attic", "port_restricted"), ("cellar", "symmetric")):
        network.add_home(name, kind)  # type: ignore[arg-type]
    for name in ("rack-1", "rack-2"):
        network.add_node(name)
    await network.start()
    before = await network.user.put(SIZE_BYTES, replicas=3)

    attic, _, rack, _ = network.nodes
    others = [network.coordinator.host, network.user.host, *(node.host for node in network.nodes)]
    away = [attic.host, rack.host]
    await lab.partition([host for host in others if host not in away], away)
    noticed = await network.wait_online(2, within_seconds=60.0)
    print(f"noticed after {noticed:.1f} s")
    during = await network.user.put(SIZE_BYTES, replicas=2)
    with pytest.raises(FsnFailed, match="3 storage nodes are needed") as refused:
        await network.user.put(SIZE_BYTES, replicas=3)
    print(refused.value)
    await network.user.check(before)

    await lab.mend()
    back = await network.wait_online(4)
    print(f"back after {back:.1f} s")
    after = await network.user.put(SIZE_BYTES, replicas=4)
    for stored in (before, during, after):
        await network.user.check(stored)
