"""What routers at home do to the connections through them: switched off and on, given another address, forgetful."""

from collections.abc import Awaitable

import pytest
import trio

from scenarios.netlab.lab import Lab
from scenarios.netlab.nat import NAT_KINDS, NatKind
from scenarios.netlab.network import Network
from scenarios.netlab.routers import Memory

pytestmark = [pytest.mark.netns, pytest.mark.slow]

SIZE_BYTES = 1_500_000
BACK_SECONDS = 14.0
"""12 s to notice, 2 s to dial."""
WORK_SECONDS = 3.0
"""For handshakes and our own asking, on a machine that does other things, too."""


@pytest.mark.parametrize("kind", NAT_KINDS)
async def test_a_router_is_switched_off_and_on(lab: Lab, kind: NatKind) -> None:
    """It has forgotten the connection; the node notices and dials again, and serves what it stores."""
    network = Network(lab)
    router, node = network.add_home("attic", kind)
    await network.start()
    stored = await network.user.put(SIZE_BYTES, replicas=1)
    await _back_after(network, router.reboot())
    await network.user.check(stored)
    assert node.log_count("coordinator_lost") == 1


async def test_a_router_gets_another_address(lab: Lab) -> None:
    """The node is back from the new one, and the coordinator knows it as the same."""
    network = Network(lab)
    router, node = network.add_home("attic", "port_restricted")
    await network.start()
    stored = await network.user.put(SIZE_BYTES, replicas=1)
    await _back_after(network, router.new_address(router.address.rpartition(".")[0] + ".77"))
    await network.user.check(stored)
    assert await network.coordinator.status_of(node) == "online"


async def test_a_router_that_forgets_after_seconds(lab: Lab) -> None:
    """Idle connections are kept alive more often than any heartbeat would: nothing is lost in 30 s."""
    network = Network(lab)
    _, node = network.add_home("attic", "symmetric", memory=Memory(udp=6, udp_stream=6, tcp=6))
    await network.start()
    await trio.sleep(30.0)
    assert node.log_count("coordinator_lost") == 0, network.evidence()
    await network.user.check(await network.user.put(SIZE_BYTES, replicas=1))


async def _back_after(network: Network, fault: Awaitable[None]) -> None:
    """After the fault every connection is dead; wait until it is noticed and there is another one."""
    await fault
    back = await network.wait_reconnected(network.nodes)
    print(f"back after {back:.1f} s")
    assert back <= BACK_SECONDS + WORK_SECONDS
