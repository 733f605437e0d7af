"""A coordinator that dies in the middle of a repair: at whichever step, nothing is lost, and nothing is made twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import attrs
import pytest
import trio

from fsn.coord.database.base import Connection
from fsn.coord.database.driver import TrioConnection
from fsn.coord.database.pool import Pool, PoolConfig
from fsn.coord.database.repairs import report_lost
from fsn.core.ids import PeerId
from fsn.node.handlers import ChunkHandlers
from fsn.p2p.server import serve_requests
from fsn.p2p.wire.messages import Request, Response
from tests.coord.network import Member
from tests.coord.upkeep.stage import Stage, open_stage

MOST_STEPS = 300


@attrs.define
class Death:
    """Cancels `scope` at its k-th step: a message to or from PostgreSQL that is waited for, a request that reaches a node, its answer."""

    at: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    steps: int = 0

    def step(self) -> None:
        """One more."""
        self.steps += 1
        if self.steps == self.at:
            self.scope.cancel()


class DyingConnection(TrioConnection):
    """Each message to the server is a step."""

    death: Death

    async def wait(self, *args: Any, **kwargs: Any) -> Any:
        """psycopg comes here for each command."""
        self.death.step()
        return await super().wait(*args, **kwargs)


@asynccontextmanager
async def open_dying_pool(dsn: str, death: Death) -> AsyncIterator[Pool]:
    """Two connections to the database."""

    async def connect(conninfo: str, /, *, autocommit: bool, prepare_threshold: int | None) -> Connection:
        connection = await DyingConnection.connect(conninfo, autocommit=autocommit, prepare_threshold=prepare_threshold)
        connection.death = death
        return connection

    pool = Pool(dsn, PoolConfig(size=2), connect)
    try:
        yield pool
    finally:
        pool.close()


def watch(stage: Stage, member: Member, death: Death) -> None:
    """Each request that reaches the node is a step, and each answer."""
    handlers = ChunkHandlers(member.store, is_draining=lambda: False).by_request()

    def stepping(handler: Any) -> Any:
        async def handle(peer: PeerId, message: Request) -> Response:
            death.step()
            answer: Response = await handler(peer, message)
            death.step()
            return answer

        return handle

    transport = stage.network.memory.transport(member.identity.peer)
    served = {request: stepping(handler) for request, handler in handlers.items()}
    serve_requests(transport, served, may_ask=lambda _: True)


async def die_at(stage: Stage, dsn: str, step: int) -> int:
    """Lose a replica of each chunk, repair with a coordinator that dies at that step, then with another; the steps that it took."""
    lost = [(await stage.replicas(index))[0][0] for index in range(3)]
    await report_lost(stage.pool, lost, reason="scrub", at=stage.clock())
    death = Death(step)
    for member in stage.network.nodes:
        watch(stage, member, death)
    async with open_dying_pool(dsn, death) as pool:
        dying = stage.repair("dying", pool=pool)
        with death.scope:
            await stage.turn(dying)
    stage.ahead += timedelta(minutes=5)  # its leases end
    await stage.turn(stage.repair("heir"))
    assert await stage.queued() == 0
    await stage.check_whole()
    assert await stage.pool.fetch_one("select count(*) from replicas") == (9,)
    return death.steps


async def walk(pool: Pool, dsn: str, stride: int) -> None:
    """Die at every `stride`-th step."""
    async with open_stage(pool) as stage:
        step = 1
        while await die_at(stage, dsn, step) >= step:
            step += stride
            assert step < MOST_STEPS
        assert step > stride


async def test_some_deaths(pool: Pool, database_dsn: str) -> None:
    """Every seventh step."""
    await walk(pool, database_dsn, 7)


@pytest.mark.slow
async def test_all_deaths(pool: Pool, database_dsn: str) -> None:
    """Every step."""
    await walk(pool, database_dsn, 1)
