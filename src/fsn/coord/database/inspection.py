"""The whole catalogue at a glance, for simulations and tests that compare it with what is really there: no statement for a large one."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from fsn.coord.database.pool import Pool
from fsn.core.ids import FileId, NodeId, ReplicaId
from fsn.core.tariff import PREPAID_DAYS

__all__ = [
    "Charge",
    "CountedReplica",
    "LedgerState",
    "NodeVerdict",
    "charges",
    "counted_replicas",
    "daily_charges",
    "ledger_state",
    "node_statuses",
    "node_verdicts",
    "other_replicas",
]


@attrs.frozen
class CountedReplica:
    """A replica of a ready file that the catalogue counts as live."""

    replica: ReplicaId
    file: FileId
    index: int
    node: NodeId
    wanted: int
    """So many replicas its chunk should have."""


@attrs.frozen
class LedgerState:
    """What all entries add up to, and how many accounts have a balance, or a sum of what is spent in a month, that their entries do not
    explain."""

    total: int
    unexplained: int


@attrs.frozen
class Charge:
    """A file, and what its user has paid for it, in micro-credits."""

    file: FileId
    status: str
    size_bytes: int
    pieces: int
    paid: int
    """When it was complete, as the ledger says."""
    in_all: int
    """So far, as its row says."""
    days: int
    """So many were charged one by one, after those paid for in advance."""
    paid_until: datetime | None


@attrs.frozen
class NodeVerdict:
    """What a node's proofs have come to; in numbers of challenges of judged rounds."""

    node: NodeId
    status: str
    suspended: bool
    passed: int
    failed: int
    missed: int
    refused: int
    quickest_ms: int | None
    """The quickest answer of all that passed."""


async def node_verdicts(db: Pool) -> Sequence[NodeVerdict]:
    """Of every node."""
    return await db.fetch_all(
        """select n.id as node, n.status::text as status, n.suspended_at is not null as suspended, coalesce(r.passed, 0) as passed,
                  coalesce(r.failed, 0) as failed, coalesce(r.missed, 0) as missed, coalesce(r.errors, 0) as refused,
                  (select min(quickest_ms) from proof_sums s where s.node_id = n.id) as quickest_ms
           from nodes n left join node_reputations r on r.node_id = n.id""",
        row=NodeVerdict,
    )


async def charges(db: Pool) -> Sequence[Charge]:
    """Of every file that ever was."""
    return await db.fetch_all(
        """select f.id as file, f.status::text as status, coalesce(f.size_bytes, 0) as size_bytes, f.pieces,
                  coalesce((select -sum(e.amount) from ledger_tx t join ledger_entry e on e.tx = t.id
                            join ledger_account a on a.id = e.account and a.kind = 'user' and a.owner = f.user_id::text
                            where t.ref in ('reserve:' || f.id, 'release:' || f.id, 'storage:' || f.id)), 0)::bigint as paid,
                  f.paid_micro as in_all, f.paid_until,
                  coalesce(extract(epoch from f.paid_until - f.ready_at) / 86400 - %s, 0)::int as days
           from files f order by f.id""",
        [PREPAID_DAYS],
        row=Charge,
    )


async def daily_charges(db: Pool) -> int:
    """What all users have paid day by day, in micro-credits, as the ledger says."""
    row = await db.fetch_one(
        """select coalesce(-sum(e.amount), 0)::bigint from ledger_tx t join ledger_entry e on e.tx = t.id
               join ledger_account a on a.id = e.account and a.kind = 'user' where t.kind = 'storage_day'"""
    )
    assert row is not None
    return int(row[0])


async def counted_replicas(db: Pool) -> Sequence[CountedReplica]:
    """All of them, chunk by chunk."""
    return await db.fetch_all(
        """select r.id as replica, r.file_id as file, r.chunk_index as index, r.node_id as node, f.pieces as wanted
           from replicas r join files f on f.id = r.file_id
           where r.state = 'live' and f.status = 'ready' order by r.file_id, r.chunk_index, r.number, r.id""",
        row=CountedReplica,
    )


async def other_replicas(db: Pool, replica: ReplicaId) -> dict[ReplicaId, NodeId]:
    """The other live replicas of its chunk, and who holds them."""
    rows = await db.fetch_all(
        """select o.id, o.node_id from replicas r join replicas o using (file_id, chunk_index)
           where r.id = %s and o.id <> r.id and o.state = 'live' order by o.number, o.id""",
        [replica],
    )
    return {ReplicaId(other): NodeId(node) for other, node in rows}


async def node_statuses(db: Pool) -> dict[NodeId, str]:
    """How each node stands."""
    rows = await db.fetch_all("select id, status::text from nodes order by id")
    return {NodeId(node): status for node, status in rows}


async def ledger_state(db: Pool) -> LedgerState:
    """Double entry keeps both at 0."""
    row = await db.fetch_one(
        """select coalesce((select sum(amount) from ledger_entry), 0)::bigint,
                  (select count(*) from ledger_account a where kind <> 'system' and (balance <>
                      coalesce((select sum(amount) from ledger_entry e where e.account = a.id), 0)
                      or kind = 'user' and spent <> coalesce((
                          select -sum(e.amount) from ledger_entry e join ledger_tx t on t.id = e.tx
                          where e.account = a.id and t.kind in ('reserve', 'release', 'storage', 'storage_day')
                              and date_trunc('month', t.at at time zone 'UTC')::date = a.spent_month), 0)))"""
    )
    assert row is not None
    return LedgerState(*row)
