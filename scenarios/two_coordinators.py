"""Two coordinators over one database; one is killed in the middle of uploads and repairs, and nothing is lost or done twice."""

from typing import Any, Final

import attrs
import trio

import fsn
from fsn.coord.config import CreditsConfig
from fsn.core.errors import FsnError
from fsn.core.tariff import storage_cost
from fsn.sim.coordinators import SimCoordinator
from fsn.sim.invariants import Invariants
from fsn.sim.network import default_config
from fsn.sim.users import SimFile
from scenarios.telling import tell_at_the_command_line

CONFIG: Final = attrs.evolve(default_config(600.0, 60.0), credits=CreditsConfig(price_per_gb_month="100"))
PRICE: Final = CONFIG.credits.price_micro or 0
NETWORK: Final[dict[str, Any]] = {
    "config": CONFIG,
    "nodes": 6,
    "coordinators": 2,
    "heartbeat_seconds": 600.0,
    "shortest_rest_seconds": 60.0,
}


async def tell(net: fsn.Network, invariants: Invariants) -> None:
    """Files come in through both; a node has gone for good, and while its chunks are rebuilt one coordinator is killed."""
    first, second = net.coordinators
    await net.advance(minutes=30)  # nodes hear of the second coordinator from the first
    files = [await net.user.put(net.rng.randbytes(200_000), via=via) for via in (first, second) for _ in range(4)]
    for file in files:
        await net.user.get(file, via=second)

    await net.nodes[0].kill()
    await net.advance(hours=24)
    with trio.fail_after(7200):
        while not is_repairing(net):
            await net.advance(seconds=1)
    async with trio.open_nursery() as nursery:
        for via in net.coordinators:
            nursery.start_soon(put_some, net, via, files)
        await net.advance(seconds=0.02)
        await first.kill()

    await net.advance(hours=2)  # what it had taken is free again when its leases end
    for file in files:
        await net.user.get(file, via=second)
    await first.start()
    await net.advance(hours=50)  # two rounds of reconciliation: what was stored and never recorded is garbage

    counts = {len(chunk.readable) for chunk in await invariants.chunks()}
    assert counts == {3}, f"3 replicas of each chunk are wanted, not one less or more; found {sorted(counts)}"
    for charge in await invariants.charges():
        cost = storage_cost(charge.size_bytes, charge.pieces, PRICE)
        owed = cost if charge.status == "ready" else 0
        assert charge.paid == owed, f"{owed} micro-credits are owed for {charge}"


def is_repairing(net: fsn.Network) -> bool:
    """Whether the first replica was made anew."""
    return any(event.what == "repairs_recorded" for event in net.timeline.events)


async def put_some(net: fsn.Network, via: SimCoordinator, files: list[SimFile]) -> None:
    """Upload until it fails, as it does when the coordinator is killed; only what was acknowledged is owed."""
    for _ in range(5):
        try:
            files.append(await net.user.put(net.rng.randbytes(100_000), via=via))
        except FsnError:
            return


if __name__ == "__main__":
    tell_at_the_command_line(tell, **NETWORK)
