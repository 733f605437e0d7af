"""Silence: packets vanish and nobody is told. How soon is it noticed, and how soon is all well again?"""

import pytest
import trio

from scenarios.netlab.daemons import StorageNode
from scenarios.netlab.lab import Lab
from scenarios.netlab.nat import NatKind
from scenarios.netlab.network import Network

pytestmark = pytest.mark.netns

NOTICED_SECONDS = 12.0
"""The figure to reach for both sides."""
REDIALLED_SECONDS = 2.0
"""The figure to reach after healing."""
WORK_SECONDS = 1.0
"""For handshakes, a heartbeat and our own asking, on a machine that does other things, too."""


async def test_a_silent_cut_is_noticed_and_healed(lab: Lab) -> None:
    """Both sides notice within 12 s; healed then, the node is back within 2 s."""
    await _cut_and_heal(lab, "port_restricted", seconds=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linux", "symmetric"])
async def test_thirty_seconds_of_silence(lab: Lab, kind: NatKind) -> None:
    """The same, while dials have failed for a while."""
    await _cut_and_heal(lab, kind, seconds=30.0)


async def _cut_and_heal(lab: Lab, kind: NatKind, *, seconds: float) -> None:
    """Cut until both have noticed, and for `seconds` at least."""
    network = Network(lab)
    _, node = network.add_home("attic", kind)
    await network.start()
    began = trio.current_time()
    await node.host.cut()
    noticed = await _both_notice(network, node)
    await trio.sleep_until(began + seconds)
    await node.host.heal()
    back = await network.wait_connected(node)
    await network.wait_online(1)
    figures = f"noticed by node and coordinator after {noticed[0]:.1f} and {noticed[1]:.1f} s, back after {back:.1f} s"
    print(figures)
    assert max(noticed) <= NOTICED_SECONDS, figures
    assert back <= REDIALLED_SECONDS + WORK_SECONDS, figures


async def _both_notice(network: Network, node: StorageNode) -> tuple[float, float]:
    """The seconds after which the node and the coordinator know."""
    seconds = {}

    async def ask_node() -> None:
        seconds["node"] = await network.wait_lost(node, within_seconds=60.0)

    async def ask_coordinator() -> None:
        seconds["coordinator"] = await network.wait_online(0, within_seconds=60.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_node)
        nursery.start_soon(ask_coordinator)
    return seconds["node"], seconds["coordinator"]
