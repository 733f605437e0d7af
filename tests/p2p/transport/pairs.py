"""Pairs of transports on loopback for the contract's tests, of any two kinds."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.runtime.identity import Identity
from tests.p2p.transport.contract import Pair

LOOPBACK = P2pConfig(listen_host="127.0.0.1", tcp_port=0, dial_timeout_seconds=2.0)
OpenTransport = Callable[[Identity], AbstractAsyncContextManager[Transport]]


@asynccontextmanager
async def open_ours(identity: Identity) -> AsyncIterator[Transport]:
    """Our transport."""
    async with open_libp2p_transport(identity, LOOPBACK) as transport:
        yield transport


@asynccontextmanager
async def open_ours_on_quic(identity: Identity) -> AsyncIterator[Transport]:
    """Our transport as those see it whom only UDP gets through to."""
    async with open_libp2p_transport(identity, LOOPBACK) as transport:
        transport._addresses = tuple(each for each in transport.addresses if each.endswith("/quic-v1"))  # type: ignore[attr-defined]
        yield transport


@asynccontextmanager
async def open_pair_of(open_a: OpenTransport, open_b: OpenTransport) -> AsyncIterator[Pair]:
    """Two transports of two kinds; killing b cancels the task that it lives in."""
    identity_b = Identity.generate()
    async with open_a(Identity.generate()) as a, trio.open_nursery() as nursery:
        lives: list[Life] = []

        async def start_b() -> Transport:
            lives.append(Life(open_b(identity_b)))
            transport: Transport = await nursery.start(lives[-1].live)
            return transport

        async def kill_b() -> None:
            await lives[-1].end()

        yield Pair(a, await start_b(), kill_b, start_b)
        await kill_b()


@attrs.define(eq=False)
class Life:
    """A transport in a task of its own."""

    opened: AbstractAsyncContextManager[Transport]
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _ended: trio.Event = attrs.field(factory=trio.Event)

    async def live(self, task_status: trio.TaskStatus[Transport] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the transport and keep it until `end`."""
        try:
            with self._scope:
                async with self.opened as transport:
                    task_status.started(transport)
                    await trio.sleep_forever()
        finally:
            self._ended.set()

    async def end(self) -> None:
        """Leave the transport; again is harmless."""
        self._scope.cancel()
        await self._ended.wait()
