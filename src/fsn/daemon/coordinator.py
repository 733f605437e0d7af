"""A whole coordinator: database, libp2p, workers and HTTP, for the length of a block or of a process."""

import functools
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import structlog
import trio

from fsn.coord.config import (
    AccountsConfig,
    AuditConfig,
    CreditsConfig,
    DownloadConfig,
    MembershipConfig,
    PaymentsConfig,
    PlacementConfig,
    ReconciliationConfig,
    RepairConfig,
    UploadConfig,
)
from fsn.coord.database.drivers import DRIVERS, NATIVE
from fsn.coord.database.embedded import open_embedded_postgres
from fsn.coord.database.migrate import migrate
from fsn.coord.database.pool import PoolConfig, check_dsn, open_pool
from fsn.coord.services import InDht, Services, ServicesConfig, load_secrets, open_services
from fsn.core.ids import PeerId
from fsn.p2p.announcing import announced_addresses, published_addresses, quic_port_of, tcp_port_of
from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.runtime.clock import Clock, system_clock
from fsn.runtime.data_folder import forget_ports, locked_folder, published_ports
from fsn.runtime.garbage import settle_garbage_collector
from fsn.runtime.groups import sole_error
from fsn.runtime.identity import Identity, load_or_create_identity
from fsn.runtime.interfaces import interface_addresses
from fsn.runtime.logs import LogConfig
from fsn.runtime.stages import open_signals, open_stage
from fsn.web.app import coordinator_app
from fsn.web.config import HttpConfig, LimitsConfig
from fsn.web.server import serve_http

__all__ = ["Coordinator", "CoordinatorConfig", "DatabaseConfig", "open_coordinator", "open_database", "run_coordinator"]

log = structlog.get_logger()

FOLDER_MODE = 0o711
"""The embedded server of a coordinator that runs as root is another user, and must get through; secrets have a 0700 folder below."""
OpenTransport = Callable[[Identity, P2pConfig], AbstractAsyncContextManager[Transport]]


def _is_dsn(_: object, __: object, value: str) -> None:
    check_dsn(value)


@attrs.frozen
class DatabaseConfig:
    """Which PostgreSQL keeps the catalogue."""

    dsn: str | None = attrs.field(default=None, repr=False, validator=attrs.validators.optional(_is_dsn))
    """A connection URL of PostgreSQL 14 or newer, e.g. `postgresql://fsn@db.example.org/fsn`; not given: an embedded server in the
    data folder. Keep the password out of it: `PGPASSWORD` or a passfile."""
    pool: PoolConfig = PoolConfig()
    driver: str = attrs.field(default=NATIVE, validator=attrs.validators.in_(DRIVERS))
    """native, or trio-asyncio (of the package's extra of that name): four times the CPU, for versions of psycopg that native was not
    made for."""
    embedded_run_as: str | None = None
    """When started as root, the system user that the embedded server runs as (default: fsnpg, made on first use)."""
    embedded_bindir: str | None = None
    """Where initdb and postgres are; not given: those of the embedded-postgres package, else the system's."""


@attrs.frozen
class CoordinatorConfig:
    """All settings of a coordinator."""

    data_dir: Path
    """Everything of this coordinator lies below: keys, the embedded database, ports.json."""
    http: HttpConfig = HttpConfig()
    limits: LimitsConfig = LimitsConfig()
    p2p: P2pConfig = P2pConfig()
    database: DatabaseConfig = DatabaseConfig()
    accounts: AccountsConfig = AccountsConfig()
    credits: CreditsConfig = CreditsConfig()
    payments: PaymentsConfig = PaymentsConfig()
    membership: MembershipConfig = MembershipConfig()
    placement: PlacementConfig = PlacementConfig()
    upload: UploadConfig = UploadConfig()
    download: DownloadConfig = DownloadConfig()
    reconciliation: ReconciliationConfig = ReconciliationConfig()
    audit: AuditConfig = AuditConfig()
    repair: RepairConfig = RepairConfig()
    log: LogConfig = LogConfig()

    @property
    def services(self) -> ServicesConfig:
        """The part that the services take."""
        return ServicesConfig(
            accounts=self.accounts, credits=self.credits, payments=self.payments, membership=self.membership, placement=self.placement,
            upload=self.upload, download=self.download, repair=self.repair, reconciliation=self.reconciliation,
            audit=self.audit,
        )  # fmt: skip


@attrs.frozen(eq=False)
class Coordinator:
    """A running coordinator, as a library user sees it."""

    _services: Services
    http_host: str
    http_port: int
    """The TCP port of the HTTP API, in force."""

    @property
    def url(self) -> str:
        """The HTTP API's address."""
        host = self.http_host if self.http_host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - a comparison
        return f"http://[{host}]:{self.http_port}" if ":" in host else f"http://{host}:{self.http_port}"

    @property
    def peer(self) -> PeerId:
        """Its libp2p peer id."""
        return self._services.transport.peer

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddresses it listens on."""
        return tuple(self._services.transport.addresses)

    @property
    def p2p_port(self) -> int | None:
        """The TCP port that nodes connect to; None with a transport that has no ports."""
        return tcp_port_of(self._services.transport.addresses)

    @property
    def quic_port(self) -> int | None:
        """The UDP port that nodes connect to by QUIC; None without QUIC."""
        return quic_port_of(self._services.transport.addresses)

    @property
    def nodes_online(self) -> int:
        """How many storage nodes are there now."""
        return self._services.membership.counts["online"]


@asynccontextmanager
async def open_coordinator(
    config: CoordinatorConfig,
    *,
    environment: Mapping[str, str] | None = None,
    open_transport: OpenTransport = open_libp2p_transport,
    clock: Clock = system_clock,
) -> AsyncIterator[Coordinator]:
    """A coordinator that runs as long as the block. On entering everything listens and `ports.json` says where.

    `environment` (default: the process's) may hold FSN_MASTER_KEY and FSN_TOKEN_KEY. Raises Conflict (another process uses the
    folder), ConfigError, Unavailable (the database cannot be reached). On leaving: doors close and requests in flight may end, then
    workers finish their step, then libp2p, then the database.
    """
    given = os.environ if environment is None else environment
    with sole_error(), locked_folder(config.data_dir, mode=FOLDER_MODE):
        forget_ports(config.data_dir)  # of one that was killed: programs wait for the file to appear
        keys = load_secrets(config.data_dir / "secrets", given)  # makes the folder
        identity = load_or_create_identity(config.data_dir / "secrets" / "p2p.key")
        async with (
            open_database(config) as dsn,
            open_pool(dsn, config.database.pool, driver=config.database.driver) as pool,
        ):
            await trio.to_thread.run_sync(migrate, dsn)
            async with open_transport(identity, config.p2p) as transport:

                def addresses(host: str = "") -> tuple[str, ...]:
                    return config.p2p.announce or announced_addresses(transport.addresses, host)

                def published() -> tuple[str, ...]:
                    return config.p2p.announce or published_addresses(transport.addresses, interface_addresses())

                in_dht = InDht(identity, config.p2p.network, published)
                async with (
                    open_services(
                        pool, transport, keys, config.services, announced=addresses, in_dht=in_dht, clock=clock
                    ) as services,
                    _open_doors(services, config, addresses) as coordinator,
                ):
                    with published_ports(config.data_dir, _ports(coordinator)):
                        log.info("coordinator_started", url=coordinator.url, peer=coordinator.peer)
                        yield coordinator
                    log.info("coordinator_stopping")


async def run_coordinator(
    config: CoordinatorConfig, *, announce: Callable[[Coordinator], None] = lambda _: None
) -> None:
    """Run until SIGTERM or SIGINT; a second signal ends at once. `announce` is called when everything listens."""
    async with open_signals() as stopping, open_coordinator(config) as coordinator:
        announce(coordinator)
        settle_garbage_collector()
        await stopping.wait()


@asynccontextmanager
async def open_database(config: CoordinatorConfig) -> AsyncIterator[str]:
    """The DSN of the configured database, or of an embedded server that runs as long as the block."""
    database = config.database
    if database.dsn is not None:
        yield database.dsn
        return
    folder = config.data_dir / "postgres"
    async with open_embedded_postgres(folder, bindir=database.embedded_bindir, run_as=database.embedded_run_as) as dsn:
        yield dsn


@asynccontextmanager
async def _open_doors(
    services: Services, config: CoordinatorConfig, addresses: Callable[[str], tuple[str, ...]]
) -> AsyncIterator[Coordinator]:
    app, stopping = coordinator_app(services, config.http, addresses, config.limits), trio.Event()
    async with open_stage("doors", grace_seconds=config.http.graceful_timeout_seconds + 1) as nursery:
        port = await nursery.start(functools.partial(serve_http, app, config.http, shutdown=stopping))
        try:
            yield Coordinator(services, config.http.host, port)
        finally:
            stopping.set()


def _ports(coordinator: Coordinator) -> dict[str, int | None]:
    return {"http": coordinator.http_port, "p2p_tcp": coordinator.p2p_port, "p2p_quic": coordinator.quic_port}
