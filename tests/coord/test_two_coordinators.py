"""Two coordinators over one database: nodes find both, uploads go through either, one is killed in the middle."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import attrs
import trio

from fsn.coord.config import MembershipConfig
from fsn.coord.database.node_states import transitions_since
from fsn.coord.database.pool import Pool
from fsn.coord.services import Services, open_services
from fsn.core.chunking import CHUNK_BYTES
from fsn.core.errors import FsnError
from fsn.runtime.identity import Identity
from tests.coord.network import CONFIG, SECRETS, Network, open_network, wait_until
from tests.coord.test_transfers import pieces

WATCHFUL = attrs.evolve(CONFIG, membership=MembershipConfig(suspect_seconds=5, checkpoint_seconds=1, settle_seconds=1))


@asynccontextmanager
async def open_second(db: Pool, network: Network) -> AsyncIterator[tuple[Services, trio.CancelScope]]:
    """Another coordinator of the network, and what kills it."""
    identity, scope = Identity.generate(), trio.CancelScope()
    ready: list[Services] = []

    async def run() -> None:
        with scope:
            async with network.memory.open_transport(identity.peer) as transport:
                addresses = tuple(transport.addresses)
                async with open_services(
                    db, transport, SECRETS, WATCHFUL, announced=lambda: addresses, chance=Random(8)
                ) as services:
                    ready.append(services)
                    await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_until(lambda: bool(ready))
        yield ready[0], scope
        scope.cancel()


async def all_online(services: Services, network: Network) -> None:
    """Until the coordinator hears every node."""
    await wait_until(lambda: len(services.membership.online()) == len(network.nodes))


async def test_nodes_find_both_and_files_outlive_either(pool: Pool) -> None:
    """What one named connects nodes to the other; one is killed amid uploads, and what it acknowledged is read through the other, whose
    view
    of the nodes nothing disturbs."""
    async with open_network(pool, WATCHFUL, nodes=4) as network, open_second(pool, network) as (two, killed):
        one = network.services
        await all_online(two, network)
        user = (await network.user()).user
        data = Random(5).randbytes(3 * CHUNK_BYTES + 5)
        file = await two.uploads.store_stream(user.id, "f", len(data), 3, pieces(data))
        endless = trio.Event()

        async def never_ending() -> AsyncIterator[bytes]:
            yield bytes(5 * CHUNK_BYTES)
            endless.set()
            await trio.sleep_forever()

        request = trio.CancelScope()

        async def upload() -> None:
            with request, suppress(FsnError):
                await two.uploads.store_stream(user.id, "g", 50 * CHUNK_BYTES, 3, never_ending())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await endless.wait()
            network.memory.kill(two.transport.peer)
            killed.cancel()
            request.cancel()
        again = await one.uploads.store_stream(user.id, "h", len(data), 3, pieces(data))
        for stored in (file, again):
            async with one.downloads.open_range(stored, 0, len(data)) as body:
                assert b"".join([piece async for piece in body]) == data
        await wait_until(lambda: one.contacts()[1:] == ())
        assert {record.status for record in await one.registrar.nodes(None, 10)} == {"online"}
        assert all(one.membership.status(record) == "online" for record in await one.registrar.nodes(None, 10))
        entries = await transitions_since(pool, 0, 100)
        assert [entry.end for entry in entries].count("offline") == 0
