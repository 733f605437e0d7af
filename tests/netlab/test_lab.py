"""The lab itself: links, cuts and partitions do what they say, and nothing is left when it is gone."""

import os
import socket
import time
from contextlib import suppress

import pytest
import trio

from scenarios.netlab.hosts import Host
from scenarios.netlab.lab import Lab, open_lab
from scenarios.netlab.links import Link
from tests.netlab.sockets import SILENCE_SECONDS, listener, reaches, received, udp_socket

pytestmark = pytest.mark.netns

PACKETS = 60


async def test_a_cut_is_silent_and_heals(lab: Lab) -> None:
    """Nothing gets through, nobody is told; afterwards all is as before."""
    one, other = lab.host("one"), lab.host("other")
    await lab.up()
    with await listener(other):
        await one.cut()
        assert not await reaches(one, other.address, within_seconds=SILENCE_SECONDS)
        await one.heal()
        assert await reaches(one, other.address)


async def test_a_cut_of_one_protocol(lab: Lab) -> None:
    """Without TCP, UDP goes on."""
    one, other = lab.host("one"), lab.host("other")
    await lab.up()
    with await listener(other), await udp_socket(one, 4001) as ours, await udp_socket(other, 4001) as theirs:
        await one.cut("meta l4proto tcp")
        assert not await reaches(one, other.address, within_seconds=SILENCE_SECONDS)
        ours.sendto(b"hello", theirs.getsockname())
        assert await trio.to_thread.run_sync(received, theirs, 5.0) == ours.getsockname()


async def test_a_partition_lies_between_the_groups_named(lab: Lab) -> None:
    """Within a group and with who is in none, all is well; mended, everywhere."""
    hosts = [lab.host(f"host-{number}") for number in range(4)]
    await lab.up()
    with await listener(hosts[1]), await listener(hosts[2]), await listener(hosts[3]):
        await lab.partition(hosts[:2], hosts[2:3])
        assert not await reaches(hosts[0], hosts[2].address, within_seconds=SILENCE_SECONDS)
        assert await reaches(hosts[0], hosts[1].address)
        assert await reaches(hosts[2], hosts[3].address)
        await lab.mend()
        assert await reaches(hosts[0], hosts[2].address)


async def test_a_partition_cannot_run_through_a_home(lab: Lab) -> None:
    """Groups that share a router are refused."""
    router = lab.router("router", "linux")
    hosts = [lab.host(f"host-{number}", behind=router) for number in range(2)]
    await lab.up()
    with pytest.raises(ValueError, match="one router"):
        await lab.partition(hosts[:1], hosts[1:])


async def test_delay(lab: Lab) -> None:
    """A connection takes a round trip at least, and less after the link was changed."""
    one, other = lab.host("one", Link(delay_seconds=0.1)), lab.host("other")
    await lab.up()
    with await listener(other):
        began = time.monotonic()
        assert await reaches(one, other.address)
        assert time.monotonic() - began >= 0.2
        await lab.change_link(one, delay_seconds=0.3)
        began = time.monotonic()
        assert await reaches(one, other.address)
        assert time.monotonic() - began >= 0.6


async def test_loss_comes_from_the_seed() -> None:
    """The same packets are lost with the same seed, others with another one."""
    first, again, other = [await _arrived(seed) for seed in (7, 7, 8)]
    assert first == again
    assert first != other
    assert 0 < len(first) < PACKETS


async def _arrived(seed: int) -> list[bytes]:
    async with open_lab(seed) as lab:
        sender, receiver = lab.host("sender", Link(delay_seconds=0.001)), lab.host("receiver")
        await lab.up()
        with await udp_socket(sender, 4001) as ours, await udp_socket(receiver, 4001) as theirs:
            theirs.settimeout(0.5)
            # neighbours know each other from here on: packets that wait for that are sent in any order
            await trio.to_thread.run_sync(_send_until_it_arrives, ours, theirs, b"begin")
            await lab.change_link(sender, loss=0.3)
            return await trio.to_thread.run_sync(_send_all, ours, theirs)


def _send_all(ours: socket.socket, theirs: socket.socket) -> list[bytes]:
    """What arrives of all packets: they keep their order, so that nothing comes after a last one, sent until it arrives."""
    for number in range(PACKETS):
        ours.sendto(bytes([number]), theirs.getsockname())
    return [packet for packet in _send_until_it_arrives(ours, theirs, b"end") if len(packet) == 1]


def _send_until_it_arrives(ours: socket.socket, theirs: socket.socket, wanted: bytes) -> list[bytes]:
    """All that has come until then."""
    arrived: list[bytes] = []
    while wanted not in arrived:
        ours.sendto(wanted, theirs.getsockname())
        with suppress(TimeoutError):
            arrived.append(theirs.recv(10))
    return arrived


async def test_nothing_is_left_after_an_exception() -> None:
    """Processes, also those that changed their session, files and namespaces are gone, and the exception comes out as it was."""
    before = _open_namespaces()
    with pytest.raises(KeyError, match="mishap"):
        async with open_lab() as lab:
            host = lab.host("host", Link(delay_seconds=0.001))
            await lab.up()
            await _start_two(host)
            folder, pids = lab.folder, host.namespace.pids()
            raise KeyError("mishap")
    assert len(pids) >= 2
    assert not _running(pids)
    assert not folder.exists()
    assert _open_namespaces() == before


async def _start_two(host: Host) -> None:
    """One process, and one of its own session that nobody waits for."""
    await host.spawn("sleeper", "sh", "-c", "setsid sleep 1000 & exec sleep 1000")
    with trio.fail_after(20):
        while len(host.namespace.pids()) < 2:  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.01)


def _running(pids: list[int]) -> list[int]:
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def _open_namespaces() -> int:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum(os.path.exists(link) and os.readlink(link).startswith("net:") for link in links)
