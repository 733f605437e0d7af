"""Rounds of proofs, played by hand over real services."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from secrets import token_bytes
from typing import LiteralString

import attrs

from fsn.coord.auditing.asking import Asking
from fsn.coord.auditing.rounds import Auditing
from fsn.coord.config import AuditConfig
from fsn.coord.database.pool import Pool
from fsn.core.ids import PeerId
from fsn.core.proofs import network_id
from fsn.p2p.client import Requester
from fsn.runtime.supervise import Rest
from tests.coord.network import SECRETS, Hand, Member, Network

__all__ = ["CHUNKS", "ROUND", "START", "Stage"]

ROUND = timedelta(hours=4)
START = datetime.fromtimestamp(124_000 * ROUND.total_seconds(), UTC)
CHUNKS = 8


@attrs.define(eq=False)
class Stage:
    """A network with four nodes, a file with a replica of each of its chunks on each node, and a worker that the test steps."""

    network: Network
    db: Pool
    clock: Hand
    requester: Requester
    settled: bool = True
    worker: Auditing = attrs.field(init=False)

    def another_worker(self, **settings: object) -> Auditing:
        """As another coordinator over the same database would have it."""
        services, config = self.network.services, AuditConfig(**{"timeout_seconds": 0.3, **settings})  # type: ignore[arg-type]
        asking = Asking(services.membership, self.requester, network_id(services.network), token_bytes, config)
        return Auditing(
            self.db, services.membership, asking, PeerId("another"), self.clock, config, SECRETS.token_key,
            lambda: self.settled, services.metrics,
        )  # fmt: skip

    async def put(self) -> None:
        """Upload the file."""
        user = await self.network.user()

        async def body() -> AsyncIterator[bytes]:
            yield bytes(CHUNKS * 262_144)

        await self.network.services.uploads.store_stream(user.user.id, "f", CHUNKS * 262_144, 4, body())

    async def work(self) -> None:
        """Until nothing is due."""
        while not isinstance(await self.worker.step(), Rest):
            pass

    async def whole_round(self) -> None:
        """All parts of the round, and beyond its end, when it is judged; what is to be asked again is so in the next."""
        begin = datetime.fromtimestamp(self.clock.now.timestamp() // ROUND.total_seconds() * ROUND.total_seconds(), UTC)
        for minutes in (1, 239, 240.5):
            self.clock.now = begin + timedelta(minutes=minutes)
            await self.work()

    async def tries(self) -> None:
        """Until the last repeated challenge has had its fourth try."""
        for minutes in (3, 6, 12):
            self.clock.now += timedelta(minutes=minutes)
            await self.work()

    async def rows(self, sql: LiteralString, *values: object) -> list[tuple[object, ...]]:
        """Look into the catalogue."""
        return list(await self.db.fetch_all(sql, list(values)))

    async def sums(self, member: Member) -> tuple[object, ...]:
        """Asked, passed, failed, missed, errors, offline: of all rounds."""
        (row,) = await self.rows(
            """select coalesce(sum(asked), 0)::int, coalesce(sum(passed), 0)::int, coalesce(sum(failed), 0)::int,
                      coalesce(sum(missed), 0)::int, coalesce(sum(errors), 0)::int, coalesce(sum(offline), 0)::int
               from proof_sums where node_id = %s""",
            member.node,
        )
        return row

    async def lost(self) -> dict[object, object]:
        """Why replicas are lost, by node."""
        return dict(await self.rows("select node_id, min(lost_reason) from replicas where state = 'lost' group by 1"))  # type: ignore[arg-type]
