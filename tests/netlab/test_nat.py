"""Every kind of NAT does to packets what its name says: asked from outside, packet by packet, in the manner of RFC 5780."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import attrs
import pytest
import trio

from scenarios.netlab.hosts import Host
from scenarios.netlab.lab import Lab
from scenarios.netlab.nat import Forward, NatKind
from scenarios.netlab.routers import Memory, Router
from tests.netlab.sockets import PATIENCE_SECONDS, SILENCE_SECONDS, listener, reaches, received, udp_socket

pytestmark = pytest.mark.netns

INSIDE_PORT = 4001
Endpoint = tuple[str, int]


@attrs.frozen
class Sockets:
    """One inside, and three outside: one server with two ports, another server."""

    inside: socket.socket
    server: socket.socket
    other_port: socket.socket
    other_server: socket.socket

    def seen_by(self, outside: socket.socket) -> Endpoint:
        """As whom an outside socket sees the inside one, when that sends to it."""
        for _ in range(3):
            self.inside.sendto(b"hello", outside.getsockname())
            if (seen := received(outside, PATIENCE_SECONDS)) is not None:
                return seen
        raise AssertionError(f"nothing from inside reaches {outside.getsockname()}")

    def lets_in(self, outside: socket.socket, to: Endpoint) -> bool:
        """Whether a packet of an outside socket gets in."""
        outside.sendto(b"knock", to)
        return bool(received(self.inside, SILENCE_SECONDS) == outside.getsockname())


@contextmanager
def closing(*sockets: socket.socket) -> Iterator[None]:
    """Close them when the block is left."""
    with ExitStack() as stack:
        for each in sockets:
            stack.enter_context(each)
        yield


@pytest.mark.parametrize(
    ("kind", "one_mapping", "keeps_port", "same_address", "anybody"),
    [
        ("full_cone", True, False, True, True),
        ("restricted", True, False, True, False),
        ("port_restricted", True, False, False, False),
        ("symmetric", False, False, False, False),
        ("linux", True, True, False, False),
    ],
)
async def test_mapping_and_filtering(
    lab: Lab, kind: NatKind, one_mapping: bool, keeps_port: bool, same_address: bool, anybody: bool
) -> None:
    """One outside port for all, or one for each; who was sent to may answer, and who else is as the kind says."""
    servers = lab.host("server-1"), lab.host("server-2")
    inside = lab.host("inside", behind=lab.router("router", kind))
    await lab.up()
    sockets = Sockets(
        await udp_socket(inside, INSIDE_PORT),
        await udp_socket(servers[0], 3478),
        await udp_socket(servers[0], 3479),
        await udp_socket(servers[1], 3478),
    )
    with closing(*attrs.astuple(sockets, recurse=False)):
        await trio.to_thread.run_sync(_ask, sockets, one_mapping, keeps_port, same_address, anybody)


def _ask(sockets: Sockets, one_mapping: bool, keeps_port: bool, same_address: bool, anybody: bool) -> None:
    seen = sockets.seen_by(sockets.server)
    assert sockets.lets_in(sockets.server, seen)
    assert sockets.lets_in(sockets.other_port, seen) == same_address
    assert sockets.lets_in(sockets.other_server, seen) == anybody
    others = {sockets.seen_by(sockets.other_port), sockets.seen_by(sockets.other_server)}
    assert (others == {seen}) == one_mapping
    assert (seen[1] == INSIDE_PORT) == keeps_port


async def test_a_router_is_silent_until_a_port_is_forwarded(lab: Lab) -> None:
    """Uninvited connections get no answer at all; through a forwarded port they come in."""
    outside, router, inside = _home(lab)
    await lab.up()
    with await listener(inside):
        assert not await reaches(outside, router.address, within_seconds=SILENCE_SECONDS)
        await router.forward(Forward("tcp", 9000, inside.address, 9000))
        assert await reaches(outside, router.address)


async def test_a_reboot_forgets_flows(lab: Lab) -> None:
    """A connection is known before, and unknown after."""
    outside, router, inside = _home(lab)
    await lab.up()
    with await listener(outside):
        assert await reaches(inside, outside.address)
        (flow,) = await router.flows()
        assert flow.protocol == socket.IPPROTO_TCP
        assert (flow.source[0], flow.target) == (inside.address, (outside.address, 9000))
        assert flow.outside[0] == router.address
        await router.reboot()
        assert await router.flows() == []


async def test_a_short_memory(lab: Lab) -> None:
    """After a second without packets an answer comes too late."""
    outside, router, inside = _home(lab, Memory(udp=1, udp_stream=1))
    await lab.up()
    ours, theirs = await udp_socket(inside, INSIDE_PORT), await udp_socket(outside, 3478)
    with closing(ours, theirs):
        sockets = Sockets(ours, theirs, theirs, theirs)
        seen = await trio.to_thread.run_sync(sockets.seen_by, theirs)
        with trio.fail_after(PATIENCE_SECONDS * 4):
            while await router.flows():  # noqa: ASYNC110 - the kernel tells nobody
                await trio.sleep(0.1)
        assert not await trio.to_thread.run_sync(sockets.lets_in, theirs, seen)


async def test_a_new_outside_address(lab: Lab) -> None:
    """Packets carry it from then on."""
    outside, router, inside = _home(lab)
    await lab.up()
    ours, theirs = await udp_socket(inside, INSIDE_PORT), await udp_socket(outside, 3478)
    with closing(ours, theirs):
        sockets = Sockets(ours, theirs, theirs, theirs)
        before, _ = await trio.to_thread.run_sync(sockets.seen_by, theirs)
        address = router.address.rpartition(".")[0] + ".77"
        await router.new_address(address)
        after, _ = await trio.to_thread.run_sync(sockets.seen_by, theirs)
        assert after == address
        assert before != address


def _home(lab: Lab, memory: Memory | None = None) -> tuple[Host, Router, Host]:
    """A host outside, a Linux router, a host behind it."""
    router = lab.router("router", "linux", memory=memory)
    return lab.host("outside"), router, lab.host("inside", behind=router)
