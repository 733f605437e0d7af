"""Nodes at home: behind routers that translate, each in its own way, without a forwarded port."""

import pytest

from scenarios.netlab.lab import Lab
from scenarios.netlab.nat import NAT_KINDS, Forward, NatKind
from scenarios.netlab.network import Network

pytestmark = pytest.mark.netns

SIZE_BYTES = 1_500_000


async def test_two_nodes_behind_different_nats_store_and_serve(lab: Lab) -> None:
    """A file lies on both nodes and comes back bit for bit, though nobody outside can reach either of them."""
    await _store_and_serve(lab, "port_restricted", "symmetric")


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAT_KINDS)
async def test_every_kind_of_nat_will_do(lab: Lab, kind: NatKind) -> None:
    """Two nodes behind routers of one kind, in networks with the same addresses."""
    await _store_and_serve(lab, kind, kind)


@pytest.mark.slow
async def test_a_provider_that_translates_too(lab: Lab) -> None:
    """Two homes behind one provider's symmetric NAT, each behind a router of its own."""
    network = Network(lab)
    provider = lab.router("provider", "symmetric", lan="100.64.0")
    for name in ("attic", "cellar"):
        network.add_node(name, behind=lab.router(f"{name}-router", "linux", behind=provider))
    await network.start()
    await _through(network)


@pytest.mark.slow
async def test_a_node_says_truly_how_it_is_reached(lab: Lab) -> None:
    """With an address of its own, or a forwarded port, directly; behind NAT through its own connection; off the net not at all."""
    network = Network(lab)
    network.add_node("rack")
    network.add_home("attic", "port_restricted")
    router = lab.router("cellar-router", "linux")
    forwarded = network.add_node("cellar", behind=router, p2p_port=4001)
    await lab.up()
    await router.forward(Forward("tcp", 4001, forwarded.host.address, 4001))
    await network.join()
    for name, reach in (("rack", "direct"), ("attic", "own_connection"), ("cellar", "direct")):
        await network.wait_reach(name, reach)
    await forwarded.host.cut()
    await network.wait_reach("cellar", "none")


async def _store_and_serve(lab: Lab, first: NatKind, second: NatKind) -> None:
    network = Network(lab)
    network.add_home("attic", first)
    network.add_home("cellar", second)
    await network.start()
    await _through(network)


async def _through(network: Network) -> None:
    stored = await network.user.put(SIZE_BYTES, replicas=len(network.nodes))
    chunks = [len(node.replicas()) for node in network.nodes]
    assert chunks == [6] * len(network.nodes), "every chunk on every node"
    await network.user.check(stored)
