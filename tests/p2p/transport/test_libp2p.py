"""The py-libp2p transport keeps the transport contract on loopback, and takes what a daemon must take."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.runtime.identity import Identity
from tests.p2p.transport.contract import OpenPair, Pair, TransportContract

LOOPBACK = P2pConfig(listen_host="127.0.0.1", tcp_port=0, dial_timeout_seconds=2.0)


@asynccontextmanager
async def libp2p_pair() -> AsyncIterator[Pair]:
    """Two transports on loopback; killing b cancels the task that its transport lives in."""
    identity_b = Identity.generate()
    async with open_libp2p_transport(Identity.generate(), LOOPBACK) as a, trio.open_nursery() as nursery:
        lives: list[Life] = []

        async def open_b() -> Transport:
            lives.append(Life(identity_b))
            transport: Transport = await nursery.start(lives[-1].live)
            return transport

        async def kill_b() -> None:
            await lives[-1].end()

        yield Pair(a, await open_b(), kill_b, open_b)
        await kill_b()


@attrs.define(eq=False)
class Life:
    """A transport in a task of its own."""

    identity: Identity
    config: P2pConfig = LOOPBACK
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _ended: trio.Event = attrs.field(factory=trio.Event)

    async def live(self, task_status: trio.TaskStatus[Transport] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the transport and keep it until `end`."""
        with self._scope:
            async with open_libp2p_transport(self.identity, self.config) as transport:
                task_status.started(transport)
                await trio.sleep_forever()
        self._ended.set()

    async def end(self) -> None:
        """Leave the transport; again is harmless."""
        self._scope.cancel()
        await self._ended.wait()


class TestLibp2pTransport(TransportContract):
    """The contract, over TCP, Noise and Yamux."""

    @pytest.fixture
    def open_pair(self) -> OpenPair:
        """Pairs of transports on loopback."""
        return libp2p_pair
