"""A coordinator's services with nodes around it, in this process: real database, real handlers, memory transport and stores."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from random import Random

import attrs
import trio

from fsn.coord.accounts import Account
from fsn.coord.config import AccountsConfig, CreditsConfig, MembershipConfig, UploadConfig
from fsn.coord.database.pool import Pool
from fsn.coord.registration import SIGNED_PREFIX, NodeApplication
from fsn.coord.secrets import MasterKeys
from fsn.coord.services import Secrets, Services, ServicesConfig, open_services
from fsn.core.ids import NodeId, ReplicaId
from fsn.core.keys import master_key_id
from fsn.core.proofs import network_id
from fsn.node.chunkstore.memory import MemoryStore
from fsn.node.declaring import Declaring
from fsn.node.handlers import ChunkHandlers
from fsn.node.proving import Proving
from fsn.node.reporting import Reporting
from fsn.node.standing import StandingFile
from fsn.p2p.client import Requester, open_requester
from fsn.p2p.server import serve_requests
from fsn.p2p.transport.memory import MemoryNetwork
from fsn.p2p.wire.messages import Contact, Heartbeat, ProveHeld
from fsn.runtime.clock import Clock, system_clock
from fsn.runtime.identity import Identity

MASTER_KEY = bytes(range(32))
SECRETS = Secrets(MasterKeys(master_key_id(MASTER_KEY), {master_key_id(MASTER_KEY): MASTER_KEY}), b"t" * 32)
CONFIG = ServicesConfig(
    accounts=AccountsConfig(bcrypt_cost=4),
    credits=CreditsConfig(welcome_grant="100", price_per_gb_month="0"),
    membership=MembershipConfig(suspect_seconds=5),
    upload=UploadConfig(store_seconds=1, chunk_seconds=4),
)


@attrs.define
class Hand:
    """A clock that is put forward by hand."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@attrs.define(eq=False)
class Member:
    """A storage node in this process."""

    identity: Identity
    store: MemoryStore
    network: MemoryNetwork
    node: NodeId | None = None
    folder: Path | None = None
    """Where its standing is kept; without, it declares nothing."""
    make_proving: Callable[..., Proving] = Proving
    """A cheat has another."""
    declaring: Declaring | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def kill(self) -> None:
        """As kill -9 would: connections break, nothing is answered any more."""
        self.network.kill(self.identity.peer)
        self.scope.cancel()

    @property
    def standing(self) -> Declaring:
        """What it means to do, and its commands."""
        assert self.declaring is not None, "made without a folder"
        return self.declaring

    async def replicas(self) -> list[ReplicaId]:
        """What lies here."""
        return [chunk.replica for chunk in await self.store.list(limit=10_000)]


class Network:
    """One coordinator and its nodes."""

    def __init__(
        self, services: Services, memory: MemoryNetwork, nursery: trio.Nursery, clock: Clock = system_clock
    ) -> None:
        self.clock = clock
        self.services = services
        self.memory = memory
        self.nodes: list[Member] = []
        self._nursery = nursery

    async def add_node(
        self,
        *,
        capacity_bytes: int = 1 << 30,
        identity: Identity | None = None,
        store: MemoryStore | None = None,
        folder: Path | None = None,
        make_proving: Callable[..., Proving] = Proving,
    ) -> Member:
        """Register and start a node; return when the coordinator has heard of it."""
        store = store or MemoryStore(capacity_bytes=capacity_bytes)
        member = Member(identity or Identity.generate(), store, self.memory, folder=folder, make_proving=make_proving)
        member.node = await self.register(member.identity)
        self.nodes.append(member)
        await self.start(member)
        return member

    async def register(self, identity: Identity) -> NodeId:
        """As `fsn node init` does it, less HTTP."""
        registrar = self.services.registrar
        nonce = registrar.challenge(identity.public_key).nonce
        signature = identity.sign(SIGNED_PREFIX + nonce + identity.public_key)
        application = NodeApplication(identity.public_key, "n", 1 << 30, None, None, nonce, signature)
        return (await registrar.register(application)).node

    async def start(self, member: Member) -> None:
        """Start a node (again), and wait until it is online."""
        member.scope = trio.CancelScope()
        self._nursery.start_soon(self._run, member)
        await self.wait_online(member)

    async def wait_online(self, member: Member) -> None:
        """Until the coordinator counts it."""
        await wait_until(lambda: member.identity.peer in {m.peer for m in self.services.membership.online()})

    async def _run(self, member: Member) -> None:
        with member.scope:
            async with (
                self.memory.open_transport(member.identity.peer) as transport,
                open_requester(transport) as requester,
            ):

                def describe() -> Heartbeat:
                    totals = member.store.totals()
                    return Heartbeat(
                        totals.count,
                        totals.size_bytes,
                        member.store.free_bytes(),
                        "test",
                        draining=not takes_chunks(member),
                    )

                reporting = Reporting(transport, requester, describe=describe, rng=Random(1), heartbeat_seconds=0.5)
                coordinator = self.services.transport
                reporting.add(Contact(coordinator.peer, tuple(coordinator.addresses)))
                async with trio.open_nursery() as nursery:
                    if member.folder is not None:
                        member.declaring = self._declaring(member, member.folder, requester, reporting)
                        nursery.start_soon(member.declaring.run)
                    handlers = ChunkHandlers(member.store, is_draining=lambda: not takes_chunks(member))
                    assert member.node is not None
                    proving = member.make_proving(
                        member.store, network_id(self.services.network), member.node, self.clock
                    )
                    answering = {**handlers.by_request(), ProveHeld: proving.prove_held}
                    serve_requests(transport, answering, may_ask=reporting.knows)
                    await reporting.run()

    def _declaring(self, member: Member, folder: Path, requester: Requester, reporting: Reporting) -> Declaring:
        folder.mkdir(exist_ok=True)
        declaring = Declaring(
            requester,
            lambda: reporting.links,
            StandingFile(folder),
            clock=self.clock,
            totals=member.store.totals,
            progress_seconds=0.2,
        )
        reporting.on_connected = declaring.wake
        return declaring

    async def user(self, email: str = "ann@example.com") -> Account:
        """A new user."""
        return await self.services.accounts.register(email, "secret1")


def takes_chunks(member: Member) -> bool:
    """As its operator wants it."""
    return member.declaring is None or member.declaring.standing.takes_chunks


async def wait_until(is_so: Callable[[], bool]) -> None:
    """Look every few milliseconds; the test's deadline bounds it."""
    while not is_so():  # noqa: ASYNC110 - what is waited for happens in code that knows no tests
        await trio.sleep(0.01)


@asynccontextmanager
async def open_network(
    db: Pool,
    config: ServicesConfig,
    nodes: int,
    *,
    clock: Clock = system_clock,
    identity: Identity | None = None,
) -> AsyncIterator[Network]:
    """A coordinator over `db` with `nodes` nodes."""
    memory, identity = MemoryNetwork(), identity or Identity.generate()
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(memory.open_transport(identity.peer))
        services = await stack.enter_async_context(
            open_services(
                db,
                transport,
                SECRETS,
                config,
                announced=lambda: tuple(transport.addresses),
                clock=clock,
                chance=Random(7),
            )
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        network = Network(services, memory, nursery, clock)
        for _ in range(nodes):
            await network.add_node()
        yield network
        nursery.cancel_scope.cancel()
