"""Nodes leave and are away, as a whole network sees it: the real services, in virtual time."""

from collections.abc import Iterable

import pytest

from fsn.node.services import NodeServices
from fsn.sim import Network
from fsn.sim.clock import VirtualClock
from fsn.sim.nodes import SimNode
from fsn.sim.users import SimFile
from tests.sim.conftest import OpenNetwork

CONTENT = bytes(range(256)) * 5000
"""Five chunks."""
LAZY = {"heartbeat_seconds": 30, "shortest_rest_seconds": 15}


def services(node: SimNode) -> NodeServices:
    assert node.services is not None
    return node.services


def replicas(nodes: Iterable[SimNode]) -> int:
    return sum(len(node.replicas()) for node in nodes)


async def status(net: Network, node: SimNode) -> tuple[str, str]:
    """In the catalogue, with its reason."""
    row = await net.coordinator.services.db.fetch_one(
        "select status::text, status_reason from nodes where id = %s", [node.id]
    )
    assert row is not None
    return str(row[0]), str(row[1])


async def until_left(net: Network, node: SimNode, hours: float = 6) -> None:
    """Let time pass until the node knows that it has left."""
    for _ in range(int(hours * 60)):
        if services(node).declaring.standing.kind == "left":
            return
        await net.advance(minutes=1)
    raise AssertionError(f"has not left: {services(node).declaring.answer}, {await status(net, node)}")


async def check_whole(net: Network, file: SimFile, copies: int = 3) -> None:
    """The file can be read, and each of its chunks has so many replicas on nodes that stay."""
    assert await net.user.get(file) == CONTENT
    rows = await net.coordinator.services.db.fetch_all(
        """select r.chunk_index, count(*) filter (where n.status = 'online') from replicas r join nodes n on n.id = r.node_id
           where r.state = 'live' group by 1 order by 1"""
    )
    assert rows == [(index, copies) for index in range(5)]


def a_holder(net: Network) -> SimNode:
    """A node that has all chunks."""
    return max(net.nodes, key=lambda node: len(node.replicas()))


async def test_copies_first_deletion_after_then_it_has_left(
    open_network: OpenNetwork, virtual_clock: VirtualClock
) -> None:
    """A drained node ends empty and as left; at no moment does a chunk have fewer than three replicas on the disks."""
    async with open_network(nodes=5, seed=3) as net:
        file = await net.user.put(CONTENT)
        node = a_holder(net)
        held = len(node.replicas())
        await services(node).declaring.drain(None)
        while services(node).declaring.standing.kind != "left":
            assert replicas(net.nodes) >= 15
            await net.advance(seconds=1)
        assert held
        assert node.replicas() == []
        await check_whole(net, file)
        assert await status(net, node) == ("left", "drained: everything is elsewhere")
        await net.advance(minutes=10)
        assert replicas(net.nodes) == 15


async def test_it_goes_on_whoever_is_started_again(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """Node and coordinator are killed and stopped in the middle of it, again and again."""
    async with open_network(nodes=6, seed=4) as net:
        file = await net.user.put(CONTENT)
        node = a_holder(net)
        await services(node).declaring.drain(48)
        for seconds in (0.1, 3, 5):
            await net.advance(seconds=seconds)
            await net.coordinator.kill()
            await net.advance(seconds=seconds)
            await net.coordinator.start()
            await net.advance(seconds=seconds)
            if services(node).declaring.standing.kind != "left":
                await node.kill()
                await node.start()
        await until_left(net, node)
        assert node.replicas() == []
        await check_whole(net, file)


@pytest.mark.slow
async def test_a_cancelled_drain_leaves_no_trace(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """The node counts again; what was copied too often is trimmed."""
    async with open_network(nodes=5, seed=5) as net:
        file = await net.user.put(CONTENT)
        node = a_holder(net)
        await services(node).declaring.drain(None)
        await net.advance(seconds=0.5)
        await services(node).declaring.cancel_drain()
        await net.advance(minutes=30)
        assert (await status(net, node))[0] == "online"
        await check_whole(net, file)
        assert replicas(net.nodes) == 15


@pytest.mark.slow
async def test_a_network_of_which_all_but_two_leave(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """The drains wait and say why; nothing is deleted; new nodes let them go on."""
    async with open_network(nodes=5, seed=6, **LAZY) as net:
        file = await net.user.put(CONTENT)
        leaving = net.nodes[2:]
        for node in leaving:
            await services(node).declaring.drain(None)
        await net.advance(minutes=10)
        waiting = [node for node in leaving if services(node).declaring.standing.kind == "draining"]
        assert waiting
        assert replicas(net.nodes) >= 15
        answers = [services(node).declaring.answer for node in waiting]
        assert all(answer and answer.replicas_left and answer.reason.startswith("waits: ") for answer in answers), (
            answers
        )
        assert await net.user.get(file) == CONTENT
        await net.add_node()
        for node in leaving:
            await until_left(net, node, hours=2)
        await check_whole(net, file)


@pytest.mark.slow
async def test_at_its_deadline_a_node_has_left(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """Though the copies cannot be made; the other replicas are what they will be made from."""
    async with open_network(nodes=3, seed=8, **LAZY) as net:
        file = await net.user.put(CONTENT)
        node = net.nodes[0]
        await services(node).declaring.drain(0.25)
        await net.advance(minutes=14)
        assert (await status(net, node))[0] == "draining"
        await until_left(net, node, hours=0.5)
        assert await status(net, node) == ("left", "left at its deadline; 5 replicas were not copied")
        await node.stop()
        await net.add_node()
        await net.advance(minutes=45)  # repair has met too few nodes some times, and pauses
        await check_whole(net, file)


@pytest.mark.slow
async def test_the_last_copy_is_waited_for(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """A node with the only replica of a chunk stays draining beyond its deadline, until there is another one."""
    async with open_network(nodes=3, seed=9, **LAZY) as net:
        file = await net.user.put(CONTENT)
        node, *others = net.nodes
        for other in others:
            await other.stop()
        await services(node).declaring.drain(0.1)
        await net.advance(minutes=20)
        answer = services(node).declaring.answer
        assert answer is not None
        assert (answer.state, answer.replicas_only_here) == ("draining", 5)
        for other in others:
            await other.start()
        await until_left(net, node)
        assert await net.user.get(file) == CONTENT


async def test_a_node_that_lies_harms_nothing(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """It throws its chunks away as soon as it has declared that it leaves: they are copied from the others."""
    async with open_network(nodes=5, seed=10) as net:
        file = await net.user.put(CONTENT)
        node = a_holder(net)
        await services(node).declaring.drain(None)
        node.drop_chunks(1.0)
        await until_left(net, node)
        await check_whole(net, file)


async def test_a_node_that_stops_says_goodbye(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """The coordinator counts it as away at once, also where the end of a connection is noticed late."""
    async with open_network(nodes=4, seed=13) as net:
        node = net.nodes[0]
        await node.stop()
        assert node.id not in {member.node for member in net.coordinator.services.membership.online()}
