"""A whole round of proofs in the catalogue: time, PostgreSQL's processor time and write-ahead log; and proofs verified a second."""

import os
import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import attrs
import psycopg
import trio

from bench.catalogue import open_metered, open_server
from bench.catalogue_rows import NOW, named
from fsn.coord.auditing.asking import Asked
from fsn.coord.auditing.rounds import Auditing
from fsn.coord.config import AuditConfig
from fsn.coord.database.pool import Pool
from fsn.coord.database.proof_writing import AskedReplica
from fsn.coord.metrics import CoordinatorMetrics
from fsn.core.audit import PARTS
from fsn.core.ids import NodeId, PeerId, ReplicaId
from fsn.core.merkle import merkle_root
from fsn.core.proofs import SEED_BYTES, Challenge, Verdict, prove, verify
from fsn.runtime.supervise import Rest

__all__ = ["main"]

NODES: Final = 100
FILES_SHARE: Final = 10
"""Replicas of a file."""
SIZE: Final = 262_160
WANTED_SECONDS: Final = 20.0
WANTED_WAL_BYTES: Final = 50_000_000
WANTED_PROOFS: Final = 2_000
PROOFS: Final = 4_000
SHAPE: Final = """
    insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, capacity_bytes)
        select i, i::text, sha256(i::text::bytea), 'n', sha256(i::text::bytea), %(now)s, %(now)s, 1 from unnest(%(nodes)s::uuid[]) i;
    insert into files (id, user_id, name, size_bytes, chunk_bytes, pieces, status, master_key_id, wrapped_key, wrap_secret, created_at,
                       ready_at)
        select md5('f' || i)::uuid, md5('u0')::uuid, 'f' || i, 1, 262144, 1, 'ready', 'k', '', '', %(now)s, %(now)s
        from generate_series(0, %(count)s / %(share)s) i;
    insert into replicas (id, file_id, chunk_index, number, node_id, root, sealed_bytes, slot, stored_at)
        select md5('r' || i)::uuid, md5('f' || i / %(share)s)::uuid, 0, i %% %(share)s, (%(nodes)s::uuid[])[1 + i %% %(many)s],
               sha256(i::text::bytea), %(size)s, (random() * 16383)::int, %(now)s
        from generate_series(0, %(count)s - 1) i;
"""


@attrs.define
class Hand:
    """A clock that is put forward by hand."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


class Everybody:
    """As `Membership`: of no node anything is known that would keep it from being asked."""

    def member(self, node: NodeId) -> None:
        """Nothing is known."""

    def online(self) -> list[Any]:
        """Nobody has anything to be asked again."""
        return []


class Honest:
    """As `Asking`: every node gives every proof, at once."""

    def __init__(self) -> None:
        self._challenge = Challenge(UUID(int=0), NodeId(UUID(int=0)), UUID(int=0), ReplicaId(UUID(int=0)), bytes(32))
        self.asked = 0

    def new_challenge(self, replica: AskedReplica) -> Challenge:
        """Always the same: it goes nowhere."""
        return self._challenge

    async def ask(self, replica: AskedReplica, challenge: Challenge) -> Asked:
        """Passed."""
        self.asked += 1
        return Asked(challenge, replica, "passed")


def _fill(dsn: str, count: int) -> None:
    values = {
        "now": NOW, "nodes": [named("n", number) for number in range(NODES)], "many": NODES, "share": FILES_SHARE,
        "count": count, "size": SIZE,
    }  # fmt: skip
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("set session_replication_role = replica")
        for statement in SHAPE.split(";")[:-1]:
            connection.execute(statement, values)
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")


async def _position(pool: Pool) -> int:
    row = await pool.fetch_one("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
    assert row is not None
    return int(row[0])


async def _backend(pool: Pool) -> int:
    row = await pool.fetch_one("select pg_backend_pid()")
    assert row is not None
    return int(row[0])


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _play(dsn: str, title: str, begin: datetime) -> None:
    async with open_metered(dsn, is_explained=False) as (pool, _):
        clock, honest, config = Hand(begin), Honest(), AuditConfig()
        everybody: Any = Everybody()
        asking: Any = honest
        worker = Auditing(
            pool, everybody, asking, PeerId("bench"), clock, config, bytes(32), lambda: True, CoordinatorMetrics()
        )
        process, position = await _backend(pool), await _position(pool)
        began, ours, theirs = time.perf_counter(), time.process_time(), _processor_seconds(process)
        # A minute after the end it is judged; what is done by then of the round after is one part.
        for minute in range(PARTS + 1):
            clock.now = begin + timedelta(minutes=minute, seconds=30)
            while not isinstance(await worker.step(), Rest):
                pass
        seconds, ours = time.perf_counter() - began, time.process_time() - ours
        theirs, wal = _processor_seconds(process) - theirs, await _position(pool) - position
        good = theirs <= WANTED_SECONDS and wal <= WANTED_WAL_BYTES
        print(
            f"{title:28} {honest.asked:>9,} challenges  {seconds:6.1f} s  (CPU: PostgreSQL {theirs:.1f} s, coordinator {ours:.1f} s)"
            f"  WAL {wal / 1e6:.2f} MB  {'as wanted' if good else 'NOT as wanted'}"
        )


async def _agree(dsn: str, count: int) -> None:
    async with open_metered(dsn, is_explained=False) as (pool, _):
        await pool.execute(
            """insert into reconciliations (node_id, due_at, agreed_count) select id, %s, %s from nodes
               on conflict (node_id) do update set agreed_count = excluded.agreed_count""",
            [NOW, count],
        )


def _verify_many() -> None:
    data = secrets.token_bytes(SIZE)
    root = merkle_root(data)
    answers = []
    for _ in range(PROOFS // 10):
        challenge = Challenge(
            UUID(int=1), NodeId(UUID(int=2)), UUID(int=3), ReplicaId(UUID(int=4)), secrets.token_bytes(SEED_BYTES)
        )
        answers.append((challenge, prove(challenge, data)))
    began = time.process_time()
    for _ in range(10):
        for challenge, proof in answers:
            assert verify(challenge, proof, root=root, size_bytes=SIZE) is Verdict.PASSED
    rate = PROOFS / (time.process_time() - began)
    print(f"verified: {rate:,.0f} proofs/s on one core  {'as wanted' if rate >= WANTED_PROOFS else 'NOT as wanted'}")


def main(count: int) -> None:
    """Print what a round over `count` replicas on 100 nodes costs, all asked for and sampled, and how fast proofs are verified."""
    _verify_many()
    with open_server() as (_, dsn):
        began = time.perf_counter()
        _fill(dsn, count)
        print(f"{count:,} replicas on {NODES} nodes; filled in {time.perf_counter() - began:.0f} s")
        round_seconds = AuditConfig().round.total_seconds()
        begin = datetime.fromtimestamp((NOW.timestamp() // round_seconds + 2) * round_seconds, UTC)
        trio.run(_play, dsn, "all replicas", begin)
        trio.run(_agree, dsn, count // NODES)
        trio.run(_play, dsn, "sampled, as nodes are large", begin + 2 * AuditConfig().round)
