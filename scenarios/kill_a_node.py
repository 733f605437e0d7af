"""A node is killed: its files are read from the others at once, and have three replicas again once it was waited for long enough."""

from typing import Any, Final

import fsn
from fsn.sim.invariants import Invariants
from scenarios.telling import tell_at_the_command_line

NETWORK: Final[dict[str, Any]] = {"nodes": 6, "heartbeat_seconds": 600.0, "shortest_rest_seconds": 60.0}


async def tell(net: fsn.Network, invariants: Invariants) -> None:
    """Five files, one node killed and never seen again; a day and two hours pass."""
    files = [await net.user.put(net.rng.randbytes(300_000)) for _ in range(5)]
    victim = net.nodes[0]
    await victim.kill()

    for file in files:
        await net.user.get(file)  # two replicas are left: nobody need wait
    await net.advance(hours=12)
    assert not rebuilt(net), "a node that may come back is waited for, a day by default"

    await net.advance(hours=14)
    for chunk in await invariants.chunks():
        assert len(chunk.readable) == 3, f"3 replicas of chunk {chunk.index} are wanted, found {len(chunk.readable)}"
        assert victim not in chunk.readable
    assert rebuilt(net)


def rebuilt(net: fsn.Network) -> bool:
    """Whether a replica was made anew."""
    return any(event.what == "repairs_recorded" for event in net.timeline.events)


if __name__ == "__main__":
    tell_at_the_command_line(tell, **NETWORK)
