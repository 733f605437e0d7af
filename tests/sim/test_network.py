"""A simulated network is the real one: files go through, survive deaths, come back; and it is the same again for the same seed."""

import pytest

from fsn.core.errors import TooFewCopies, TooFewNodes, Unavailable
from fsn.sim import Network, simulate
from fsn.sim.clock import VirtualClock
from fsn.sim.timeline import Timeline
from tests.sim.conftest import OpenNetwork

CONTENT = bytes(range(256)) * 3000
"""Three chunks."""


LAZY = {"heartbeat_seconds": 300, "shortest_rest_seconds": 120}
"""What makes hours cheap."""


async def test_a_file_survives_a_node(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """The example of the documentation."""
    async with open_network(nodes=5, seed=7, **LAZY) as net:
        file = await net.user.put(CONTENT)
        await net.nodes[0].kill()
        await net.advance(hours=4)
        assert await net.user.get(file) == CONTENT
        assert 4 * 3600 <= net.now < 4 * 3600 + 60
        assert sum(len(node.replicas()) for node in net.nodes) >= 9


async def test_a_deleted_file_leaves_all_disks(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """Also one that was off when it was deleted."""
    async with open_network(nodes=3, seed=1, **LAZY) as net:
        file = await net.user.put(CONTENT)
        await net.nodes[1].stop()
        await net.user.delete(file)
        await net.advance(minutes=10)
        assert [len(node.replicas()) for node in net.nodes] == [0, 3, 0]
        await net.nodes[1].start()
        await net.advance(minutes=20)
        assert [len(node.replicas()) for node in net.nodes] == [0, 0, 0]


async def test_too_few_nodes_is_an_answer(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """What the services raise comes through."""
    async with open_network(nodes=2) as net:
        with pytest.raises(TooFewNodes):
            await net.user.put(b"x")
        file = await net.user.put(b"x", replicas=2)
        for node in net.nodes:
            await node.kill()
        with pytest.raises(TooFewCopies):
            await net.user.get(file)


async def test_a_coordinator_dies_and_comes_back(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """What it had acknowledged is there; meanwhile there is nobody to ask."""
    async with open_network(nodes=3, seed=2, **LAZY) as net:
        file = await net.user.put(CONTENT)
        await net.coordinator.kill()
        with pytest.raises(Unavailable):
            await net.user.get(file)
        await net.advance(hours=1)
        await net.coordinator.start()
        await net.wait_online()
        assert await net.user.get(file) == CONTENT


async def test_two_coordinators_share_a_database(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """What one acknowledged, the other one knows."""
    async with open_network(nodes=3, coordinators=2, seed=3) as net:
        first, second = net.coordinators
        file = await net.user.put(CONTENT, via=first)
        await net.user.delete(file, via=second)
        await net.advance(minutes=1)
        assert not any(node.replicas() for node in net.nodes)


async def _story(dsn: str, seed: int) -> Timeline:
    async with Network(
        nodes=6, coordinators=2, seed=seed, dsn=dsn, heartbeat_seconds=60, shortest_rest_seconds=30
    ) as net:
        for node in net.nodes:
            node.place.latency_seconds, node.place.jitter_seconds, node.place.loss = 0.02, 0.03, 0.01
        files = [await net.user.put(net.rng.randbytes(300_000)) for _ in range(3)]
        await net.nodes[0].kill()
        await net.nodes[1].power_off()
        net.nodes[2].pause()
        await net.advance(minutes=5)
        net.nodes[2].resume()
        await net.coordinators[0].kill()
        await net.nodes[0].start()
        net.partition([net.nodes[3], net.nodes[4]])
        await net.advance(minutes=5)
        net.mend()
        await net.coordinators[0].start()
        await net.wait_online()
        await net.user.delete(files[0])
        for file in files[1:]:
            await net.user.get(file)
        await net.advance(minutes=10)
        net.timeline.note("end", "chunks", **{node.name: len(node.replicas()) for node in net.nodes})
    return net.timeline


def test_the_same_seed_is_the_same_story(postgres_dsn: str) -> None:
    """Event for event, time for time; and another seed is another one."""
    first, again, other = (simulate(_story, postgres_dsn, seed) for seed in (5, 5, 6))
    assert [str(event) for event in first.events] == [str(event) for event in again.events]
    assert first.digest() == again.digest() != other.digest()
    assert len(first.events) > 50
