"""Silence: packets vanish and nobody is told. How soon is it noticed, and how soon is all well again?"""

import pytest
import trio

from scenarios.netlab.lab import Lab
from scenarios.netlab.links import Link
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
@pytest.mark.parametrize(("kind", "seconds"), [("linux", 19.5), ("full_cone", 23.0), ("symmetric", 30.0)])
async def test_seconds_of_silence(lab: Lab, kind: NatKind, seconds: float) -> None:
    """The same, when dials have failed for a while and one is under way: it does not wait for the kernel's next try."""
    await _cut_and_heal(lab, kind, seconds=seconds)


@pytest.mark.slow
async def test_a_slow_link_is_not_taken_for_a_cut(lab: Lab) -> None:
    """A node whose way up is full for half a minute stays connected all the time: what counts is that anything is heard."""
    network = Network(lab)
    node = network.add_node("attic", link=Link(delay_seconds=0.05))
    await network.start()
    stored = await network.user.put(1_500_000, replicas=1)
    await lab.change_link(node.host, rate_bits=1e6, queue_seconds=3.0)
    began = trio.current_time()
    await network.user.check(stored)
    print(f"read in {trio.current_time() - began:.1f} s")
    assert node.log_count("coordinator_lost") == 0, network.evidence()


async def _cut_and_heal(lab: Lab, kind: NatKind, *, seconds: float) -> None:
    """Cut until both have noticed, and for `seconds` at least."""
    network = Network(lab)
    _, node = network.add_home("attic", kind)
    await network.start()
    began = trio.current_time()
    await node.host.cut()
    noticed = await network.wait_noticed(node)
    await trio.sleep_until(began + seconds)
    await node.host.heal()
    back = await network.wait_connected(node)
    await network.wait_online(1)
    figures = f"noticed by node and coordinator after {noticed[0]:.1f} and {noticed[1]:.1f} s, back after {back:.1f} s"
    print(figures)
    assert max(noticed) <= NOTICED_SECONDS, figures
    assert back <= REDIALLED_SECONDS + WORK_SECONDS, figures
