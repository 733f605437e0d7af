"""A policy tried out: is it worth it to wait for silent nodes for an hour in place of a day? Nights tell.

A third of the nodes are switched off each night. With a grace of an hour their chunks are rebuilt every evening and trimmed every morning;
with a day's, only those of which a single replica is left awake. Both keep all files: the difference is traffic.
"""

from typing import Any, Final

import attrs

import fsn
from fsn.coord.config import RepairConfig
from fsn.sim import default_config
from fsn.sim.invariants import Invariants
from scenarios.telling import play, tell_at_the_command_line

NIGHTS: Final = 3
HEARTBEAT_SECONDS: Final = 900.0


def network(grace_hours: float) -> dict[str, Any]:
    """Nine nodes under a policy of our own."""
    policy = attrs.evolve(default_config(HEARTBEAT_SECONDS, 300.0), repair=RepairConfig(grace_hours=grace_hours))
    return {"nodes": 9, "heartbeat_seconds": HEARTBEAT_SECONDS, "shortest_rest_seconds": 300.0, "config": policy}


async def tell(net: fsn.Network, invariants: Invariants) -> None:
    """Three nights; every file is read in the middle of each."""
    files = [await net.user.put(net.rng.randbytes(50_000)) for _ in range(10)]
    sleepers = net.nodes[:3]
    for _ in range(NIGHTS):
        for node in sleepers:
            await node.stop()
        await net.advance(hours=8)
        for chunk in await invariants.chunks():
            if chunk.readable:
                await net.user.get(next(file for file in files if file.id == chunk.file.id))
        for node in sleepers:
            await node.start()
        await net.advance(hours=16)
    assert not invariants.lost


def copies(grace_hours: float, seed: int, dsn: str | None = None) -> int:
    """How many replicas three nights made anew."""
    made = 0

    def count(event: Any) -> None:
        nonlocal made
        if event.what == "repairs_recorded":
            made += int(dict(event.facts)["made"])

    play(tell, seed=seed, listener=count, dsn=dsn, **network(grace_hours))
    return made


if __name__ == "__main__":
    tell_at_the_command_line(tell, **network(grace_hours=1.0))
