"""The coordinator without its doors: every service built and wired, workers running, in one block."""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random, SystemRandom

import attrs
import trio

from fsn.coord.accounts import Accounts
from fsn.coord.admission import Admission
from fsn.coord.auditing.asking import Asking
from fsn.coord.auditing.rounds import Auditing
from fsn.coord.charging import Charging
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
from fsn.coord.database.master_keys import check_master_keys
from fsn.coord.database.pool import Pool
from fsn.coord.declaring import Declarations
from fsn.coord.deleting import Deleting, Expiring
from fsn.coord.dialing_back import DialingBack
from fsn.coord.discovering import PUBLISH_SECONDS, DhtPublishing, coordinator_discovery
from fsn.coord.download import Downloads
from fsn.coord.fetching import Fetcher
from fsn.coord.files import Files
from fsn.coord.handlers import NodeHandlers
from fsn.coord.keyring import Keyring
from fsn.coord.liveness.sightings import SightingRecording
from fsn.coord.liveness.uptime import UptimeFolding, Uptimes
from fsn.coord.liveness.watching import Watching
from fsn.coord.losses import LossReports
from fsn.coord.membership import Membership
from fsn.coord.metrics import CoordinatorMetrics
from fsn.coord.paying import Paying
from fsn.coord.payments.buying import Buying
from fsn.coord.payments.opening import open_provider
from fsn.coord.pricing import Pricing
from fsn.coord.recording import Recorder
from fsn.coord.registration import Registrar
from fsn.coord.replication import Replicator
from fsn.coord.secrets import MasterKeys, load_key, load_master_keys
from fsn.coord.sessions import Sessions
from fsn.coord.telling import Telling
from fsn.coord.upkeep.draining import Draining
from fsn.coord.upkeep.losses import LossReporting
from fsn.coord.upkeep.reconciling import Reconciling
from fsn.coord.upkeep.repair import Repair, build_repair
from fsn.coord.upload import ChunkWriter, StreamedUploads
from fsn.core.proofs import network_id
from fsn.p2p.client import open_requester
from fsn.p2p.config import P2pConfig
from fsn.p2p.discovery.service import Discovery
from fsn.p2p.server import RequestHandler, serve_requests
from fsn.p2p.transport.base import Transport
from fsn.p2p.wire.messages import Contact, Declaration, DialBack, Heartbeat, ReportLosses, Request
from fsn.runtime.clock import Clock, system_clock
from fsn.runtime.identity import Identity
from fsn.runtime.stages import open_stage
from fsn.runtime.supervise import Bell, Worker, supervise
from fsn.runtime.window import Window

__all__ = ["InDht", "Secrets", "Services", "ServicesConfig", "load_secrets", "open_services"]

WORKERS_GRACE_SECONDS = 30.0


@attrs.frozen
class ServicesConfig:
    """The settings of everything between the doors and the database."""

    accounts: AccountsConfig = AccountsConfig()
    credits: CreditsConfig = CreditsConfig()
    payments: PaymentsConfig = PaymentsConfig()
    membership: MembershipConfig = MembershipConfig()
    placement: PlacementConfig = PlacementConfig()
    upload: UploadConfig = UploadConfig()
    download: DownloadConfig = DownloadConfig()
    reconciliation: ReconciliationConfig = ReconciliationConfig()
    repair: RepairConfig = RepairConfig()
    audit: AuditConfig = AuditConfig()


@attrs.frozen
class Secrets:
    """What must be the same in all coordinators of one database."""

    masters: MasterKeys
    token_key: bytes = attrs.field(repr=False)


@attrs.frozen
class InDht:
    """What a coordinator needs to take part in the DHT of its network: its key, the network's name, and where it can be found."""

    identity: Identity
    network: str
    addresses: Callable[[], tuple[str, ...]]
    publish_seconds: float = PUBLISH_SECONDS
    """From one publication of its record to the next."""


@attrs.frozen
class Services:
    """What the doors call."""

    db: Pool
    transport: Transport
    membership: Membership
    accounts: Accounts
    admission: Admission
    sessions: Sessions
    uploads: StreamedUploads
    downloads: Downloads
    files: Files
    registrar: Registrar
    uptimes: Uptimes
    clock: Clock
    contacts: Callable[[], tuple[Contact, ...]]
    metrics: CoordinatorMetrics
    fetcher: Fetcher
    recorder: Recorder
    window: Window
    """Of plaintext in flight in all uploads."""
    repair: Repair
    network: str
    """The network's name, told to nodes that register."""
    discovery: Discovery | None
    """None where it takes no part in a DHT."""
    buying: Buying


def load_secrets(folder: Path, environment: Mapping[str, str]) -> Secrets:
    """From `FSN_MASTER_KEY` and `FSN_TOKEN_KEY` (64 hex digits each) if given, else from files in `folder`, made on first use."""
    return Secrets(
        load_master_keys(folder / "master.key", environment.get("FSN_MASTER_KEY")),
        load_key("the token key", folder / "token.key", environment.get("FSN_TOKEN_KEY")),
    )


@asynccontextmanager
async def open_services(
    db: Pool,
    transport: Transport,
    keys: Secrets,
    config: ServicesConfig,
    *,
    announced: Callable[[], tuple[str, ...]],
    in_dht: InDht | None = None,
    clock: Clock = system_clock,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    chance: Random | None = None,
    shortest_rest_seconds: float = 0.0,
) -> AsyncIterator[Services]:
    """Run the coordinator's services over `db` and `transport` for the length of the block.

    Raises ConfigError when the database needs a master key that `keys` does not have, or a secret of `config` cannot be read. A worker
    that keeps failing ends the block.
    `shortest_rest_seconds`: see `supervise`.
    """
    chance = chance or SystemRandom()
    await check_master_keys(db, keys.masters.keys, keys.masters.current, clock())
    metrics = CoordinatorMetrics()
    async with open_provider(config.payments) as payments, open_requester(transport) as requester:
        membership = Membership(
            db, transport, requester, clock=clock, chance=chance, config=config.membership, placement=config.placement
        )
        # Where workers rest long, a checkpoint comes as seldom, and its absence means something later.
        checkpoint_seconds = max(config.membership.checkpoint_seconds, shortest_rest_seconds)
        watch = attrs.evolve(config.membership, checkpoint_seconds=checkpoint_seconds)
        watching = Watching(db, transport.peer, membership, clock=clock, config=watch, addresses=announced)
        await watching.enter()
        deletions_due, drains_due, scans_due, repairs_due, charges_due = Bell(), Bell(), Bell(), Bell(), Bell()
        recorder = Recorder(db, clock=clock, chance=chance, deletions_due=deletions_due, metrics=metrics)
        keyring = Keyring(keys.masters, random_bytes)
        replicator = Replicator(
            membership,
            requester,
            recorder,
            random_bytes=random_bytes,
            upload=config.upload,
            placement=config.placement,
            metrics=metrics,
        )
        admission = Admission(
            db, membership, keyring, clock, random_bytes, config.upload, Pricing(db, clock, config.credits)
        )
        losses = LossReporting(db, clock=clock, repairs_due=repairs_due, metrics=metrics)
        fetcher = Fetcher(
            membership, requester, chance=chance, config=config.download, metrics=metrics, note_lost=losses.note
        )
        window = Window(config.upload.total_window_bytes)
        writer = ChunkWriter(replicator, recorder, window)
        sessions = Sessions(db, admission, writer, coordinator=transport.peer, deletions_due=deletions_due)

        def contacts() -> tuple[Contact, ...]:
            return (Contact(transport.peer, announced()), *watching.others.living())

        telling = Telling(db, membership, clock)
        declarations = Declarations(db, membership, clock, transport.peer, drains_due, scans_due)
        dialing_back = DialingBack(db, membership, transport, clock)
        handlers: dict[type[Request], RequestHandler] = {
            Heartbeat: NodeHandlers(membership, contacts, telling.proofs, telling.earnings).heartbeat,
            Declaration: declarations.declare,
            ReportLosses: LossReports(db, membership, clock).report_losses,
            DialBack: dialing_back.dial_back,
        }
        serve_requests(transport, handlers, may_ask=lambda _: True)
        downloads = Downloads(db, fetcher, keyring, config.download)
        repair = build_repair(
            db, membership, fetcher, replicator, keyring, recorder,
            by=transport.peer, clock=clock, chance=chance, config=config.repair, metrics=metrics, scans_due=scans_due,
            repairs_due=repairs_due, deletions_due=deletions_due, is_busy=lambda: bool(window.taken_bytes or downloads.fetching),
        )  # fmt: skip
        network = in_dht.network if in_dht is not None else P2pConfig().network
        workers: list[Worker] = [
            SightingRecording(membership, db, transport.peer, stall_seconds=watch.stall_seconds),
            watching,
            UptimeFolding(db, clock),
            Deleting(db, membership, requester, clock, deletions_due),
            Charging(db, clock, config.credits, deletions_due, charges_due),
            Reconciling(
                db, membership, requester, clock, chance, config.reconciliation, transport.peer, deletions_due, metrics
            ),
            Expiring(sessions),
            Draining(db, clock, transport.peer, drains_due, deletions_due, scans_due, repairs_due),
            losses,
            telling,
            *repair.workers,
            Auditing(
                db,
                membership,
                Asking(membership, requester, network_id(network), random_bytes, config.audit),
                transport.peer,
                clock,
                config.audit,
                keys.token_key,
                lambda: watching.is_settled,
                metrics,
            ),
        ]
        discovery: Discovery | None = None
        if in_dht is not None:
            workers.append(Paying(db, in_dht.identity, clock))
            discovery = coordinator_discovery(
                transport,
                in_dht.identity,
                in_dht.network,
                membership=membership,
                contacts=contacts,
                addresses=in_dht.addresses,
                clock=clock,
            )
            dialing_back.note_reached = discovery.learn
            workers.append(DhtPublishing(discovery, db, in_dht.publish_seconds))
        services = Services(
            db=db,
            transport=transport,
            membership=membership,
            accounts=Accounts(
                db, clock=clock, token_key=keys.token_key, random_bytes=random_bytes, config=config.accounts,
                credits=config.credits,
            ),
            admission=admission,
            sessions=sessions,
            uploads=StreamedUploads(admission, writer, sessions),
            downloads=downloads,
            files=Files(db, membership, clock, deletions_due),
            registrar=Registrar(
                db, clock=clock, key=keys.token_key, random_bytes=random_bytes, coordinator=transport.peer
            ),
            uptimes=Uptimes(db, clock),
            clock=clock,
            contacts=contacts,
            metrics=metrics,
            fetcher=fetcher,
            recorder=recorder,
            window=window,
            repair=repair,
            network=network,
            discovery=discovery,
            buying=Buying(db, payments, clock, charges_due),
        )  # fmt: skip
        async with _running(recorder, membership, workers, shortest_rest_seconds):
            yield services
        await watching.leave()


@asynccontextmanager
async def _running(
    recorder: Recorder, membership: Membership, workers: list[Worker], shortest_rest_seconds: float
) -> AsyncIterator[None]:
    """The background tasks: workers are asked to stop and finish their step; the recorder goes last."""
    stopping = trio.Event()
    async with trio.open_nursery() as recording:
        recording.start_soon(recorder.run)
        recording.start_soon(membership.watch_connections)
        async with open_stage("workers", grace_seconds=WORKERS_GRACE_SECONDS) as nursery:
            for worker in workers:
                nursery.start_soon(partial(supervise, worker, stopping, shortest_rest_seconds=shortest_rest_seconds))
            yield
            stopping.set()
        recording.cancel_scope.cancel()
