"""A wire in user space between two ends of veth pairs: delay, jitter, loss and rate, from a seed.

For kernels without sch_netem, whose chances could not be repeated either. AF_PACKET with PACKET_VNET_HDR, so that offloaded segments
of 64 KiB pass in one piece. A program of its own, without anything of ours, that the lab starts in its wire namespace; it reads one
JSON command a line from its input and answers each, until the input ends.
"""

import heapq
import json
import os
import random
import select
import socket
import sys
import time
from typing import Any

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING, PACKET_QDISC_BYPASS = 263, 15, 23, 20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
ETH_P_ALL = 3
BUFFER_BYTES = 16 << 20
VNET_HEADER_BYTES = 10
ETHER_TYPE = slice(VNET_HEADER_BYTES + 12, VNET_HEADER_BYTES + 14)
IPV4 = b"\x08\x00"
BURST = 64
"""Packets taken from one socket before others get their turn."""


class Direction:
    """One way of one wire."""

    def __init__(self, source: socket.socket, target: socket.socket, seed: str) -> None:
        self.source, self.target = source, target
        self.random = random.Random(seed)
        self.free_at = self.last_due = 0.0
        self.seen = self.dropped = 0
        self.set_link({})

    def set_link(self, link: dict[str, float]) -> None:
        """Behave so from now on."""
        self.delay, self.jitter = link.get("delay_seconds", 0.0), link.get("jitter_seconds", 0.0)
        self.loss, self.rate = link.get("loss", 0.0), link.get("rate_bits", 0.0)
        self.queue = link.get("queue_seconds", 0.2)

    def due(self, packet: memoryview, now: float) -> float | None:
        """When `packet` leaves the wire; None when it is lost."""
        self.seen += 1
        # only IPv4 is lost, and only it draws a number: a lost ARP packet costs a second, at random
        if self.loss and packet[ETHER_TYPE] == IPV4 and self.random.random() < self.loss:
            self.dropped += 1
            return None
        due = now
        if self.rate:
            start = max(self.free_at, now)
            if start - now > self.queue:
                self.dropped += 1
                return None
            self.free_at = due = start + (len(packet) - VNET_HEADER_BYTES) * 8 / self.rate
        due += self.delay + (self.random.uniform(-self.jitter, self.jitter) if self.jitter else 0.0)
        self.last_due = max(due, self.last_due)  # in order
        return self.last_due

    def send(self, packet: bytes | memoryview) -> None:
        """Out at the other end; a full queue there loses it."""
        try:
            self.target.send(packet)
        except OSError:
            self.dropped += 1


def open_end(device: str) -> socket.socket:
    """A raw socket on one end of the wire."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)  # else we read what we send: a loop
    end.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    for force, ask in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            end.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
        except OSError:  # wants a capability outside of the wrapper, which an ordinary user has not
            end.setsockopt(socket.SOL_SOCKET, ask, BUFFER_BYTES)
    end.bind((device, ETH_P_ALL))
    end.setblocking(False)
    return end


class Wires:
    """All wires of a lab, in one loop."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._by_fd: dict[int, Direction] = {}
        self._wires: dict[str, tuple[Direction, Direction]] = {}
        self._due: list[tuple[float, int, Direction, bytes]] = []
        self._serial = 0
        self._buffer = memoryview(bytearray(70000))

    def run(self) -> None:
        """Until the input ends: then the lab is gone."""
        stdin, commands = sys.stdin.fileno(), b""
        os.set_blocking(stdin, False)
        self._poll.register(stdin, select.EPOLLIN)
        while True:
            for fd, _ in self._poll.poll(self._patience()):
                if fd != stdin:
                    self._read(self._by_fd[fd])
                    continue
                data = os.read(stdin, 65536)
                if not data:
                    return
                *lines, commands = (commands + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
            self._deliver()

    def _patience(self) -> float:
        if not self._due:
            return -1
        wait = self._due[0][0] - time.monotonic()
        return wait - 0.001 if wait > 0.0012 else 0  # epoll counts milliseconds: the last one is spun

    def _read(self, way: Direction) -> None:
        now = time.monotonic()
        for _ in range(BURST):
            try:
                size = way.source.recv_into(self._buffer)
            except OSError:  # nothing more, or the device went down
                return
            packet = self._buffer[:size]
            due = way.due(packet, now)
            if due is not None and due <= now:
                way.send(packet)
            elif due is not None:
                self._serial += 1
                heapq.heappush(self._due, (due, self._serial, way, bytes(packet)))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, way, packet = heapq.heappop(self._due)
            way.send(packet)

    def _obey(self, command: dict[str, Any]) -> None:
        if command["do"] == "add":
            self._add(command["name"], command["inner"], command["outer"], command["seed"])
        for way in self._wires[command["name"]]:
            way.set_link(command["link"])
        print(json.dumps({"done": command["name"]}), flush=True)

    def _add(self, name: str, inner: str, outer: str, seed: int) -> None:
        lower, upper = open_end(inner), open_end(outer)
        ways = Direction(lower, upper, f"{seed}/{name}/up"), Direction(upper, lower, f"{seed}/{name}/down")
        for way in ways:
            self._by_fd[way.source.fileno()] = way
            self._poll.register(way.source.fileno(), select.EPOLLIN)
        self._wires[name] = ways


if __name__ == "__main__":
    Wires().run()
