"""Networks that let only some protocols through: TCP where UDP is blocked, QUIC where TCP is."""

from collections.abc import Awaitable, Callable

import pytest

from scenarios.netlab.daemons import StorageNode
from scenarios.netlab.lab import Lab
from scenarios.netlab.nat import NatKind
from scenarios.netlab.network import Network

pytestmark = [pytest.mark.netns, pytest.mark.slow]

SIZE_BYTES = 1_500_000
NO_UDP = ("meta l4proto udp",)
NO_TCP_TO_PEERS = ("tcp dport 4001", "tcp sport 4001")
"""The coordinator's HTTP port stays open: a node could not register without it."""
NOTICED_SECONDS = 12.0
"""The figure to reach, as over TCP."""
BACK_SECONDS = 2.0
"""The figure to reach: TCP, which is blocked, has half a second's head start, and a dial's first packet is sent anew each second."""
WORK_SECONDS = 1.0
"""For handshakes and our own asking, on a machine that does other things, too."""


@pytest.mark.parametrize(("blocked", "transport"), [(NO_UDP, "tcp"), (NO_TCP_TO_PEERS, "quic-v1")], ids=["udp", "tcp"])
async def test_one_protocol_is_blocked(lab: Lab, blocked: tuple[str, ...], transport: str) -> None:
    """From the beginning: the other one carries everything, from behind NAT as well."""
    network = Network(lab)
    _, node = network.add_home("attic", "port_restricted")
    await lab.up()
    await node.host.cut(*blocked)
    await network.join()
    assert await _transport_of(node) == transport
    await network.user.check(await network.user.put(SIZE_BYTES, replicas=1))
    assert node.connections == 1


async def test_tcp_is_blocked_in_the_middle(lab: Lab) -> None:
    """The node notices and goes over to QUIC."""
    network = Network(lab)
    _, node = network.add_home("attic", "linux")
    await network.start()
    assert await _transport_of(node) == "tcp"
    await node.host.cut(*NO_TCP_TO_PEERS)
    back = await network.wait_reconnected([node])
    print(f"over QUIC after {back:.1f} s")
    await network.wait_until("QUIC", _is_over(node, "quic-v1"), within_seconds=30.0)
    await network.user.check(await network.user.put(SIZE_BYTES, replicas=1))


@pytest.mark.parametrize("kind", ["linux", "symmetric"])
async def test_silence_over_quic(lab: Lab, kind: NatKind) -> None:
    """A cut of everything is noticed as over TCP, and healed as soon."""
    network = Network(lab)
    _, node = network.add_home("attic", kind)
    await lab.up()
    await node.host.cut(*NO_TCP_TO_PEERS)
    await network.join()
    await node.host.cut()
    noticed = await network.wait_noticed(node)
    await node.host.cut(*NO_TCP_TO_PEERS)
    back = await network.wait_reconnected([node])
    figures = f"noticed by node and coordinator after {noticed[0]:.1f} and {noticed[1]:.1f} s, back after {back:.1f} s"
    print(figures)
    assert max(noticed) <= NOTICED_SECONDS, figures
    assert back <= BACK_SECONDS + WORK_SECONDS, figures


async def _transport_of(node: StorageNode) -> str | None:
    status = await node.status()
    return None if status is None else status["coordinators"][0]["transport"]


def _is_over(node: StorageNode, transport: str) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return await _transport_of(node) == transport

    return is_so
