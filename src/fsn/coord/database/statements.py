"""Nodes' statements in the catalogue: the days that are due, their inputs, and the one transaction in which they are posted.

A node has two accounts: its own, and `<node>/held` for what is held back.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, LiteralString

import attrs

from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.economics import FIRST_HASH, DayInputs, Line, Statement, daily_statement
from fsn.core.ids import NodeId, PeerId

__all__ = [
    "NodeMoney",
    "SignedStatement",
    "days_due",
    "last_hashes",
    "last_statement",
    "list_statements",
    "money_of",
    "post_statements",
    "return_held",
    "today_so_far",
]

EPOCH: Final = date(1970, 1, 1)
_FREE: Final = ""
_HELD: Final = "/held"
"""What the name of an account has behind the node's id."""
_STATEMENT: Final[
    LiteralString
] = """node_id, day, age_days, byte_seconds, present_seconds, counted_seconds, asked, missed, failed, rounds,
    unproved, tariff, reward, earned, held, previous, hash, coordinator, signature"""


@attrs.frozen
class SignedStatement:
    """A statement with its place in the node's chain. `signature` (64 bytes, Ed25519) is `coordinator`'s of `hash`."""

    statement: Statement
    previous: bytes
    hash: bytes
    coordinator: PeerId
    signature: bytes

    @property
    def day(self) -> date:
        """The day (UTC) that it pays."""
        return EPOCH + timedelta(days=self.statement.inputs.day)


@attrs.frozen
class NodeMoney:
    """In micro-credits: all that was earned, what may be paid out, payouts under way, what is held back."""

    earned: int = 0
    balance: int = 0
    pending: int = 0
    held: int = 0


# --- statements


async def days_due(db: Pool, limit: int) -> list[DayInputs]:
    """The inputs of up to `limit` days that are over and have no statement yet, the oldest day first, one day of each node.

    A day is over when its uptime has been folded away (after two more days) and its rounds of proofs are judged.
    """
    rows = await db.fetch_all(
        """with due as (
               select distinct on (d.node_id) d.node_id, d.day, d.present_seconds, d.counted_seconds from (
                   select * from node_days where not stated order by day, node_id limit %(limit)s) d
               order by d.node_id, d.day),
           edges as (select day, day::timestamp at time zone 'UTC' as begins, (day + 1)::timestamp at time zone 'UTC' as ends
                     from (select distinct day from due) x),
           rounds as (
               select e.day, count(r.round) as rounds, count(r.suspicion) as unproved,
                      bool_and(r.round is null or r.judged_at is not null) as judged
               from edges e left join proof_rounds r on r.begins_at >= e.begins and r.begins_at < e.ends group by e.day)
           select d.node_id, d.day, greatest(d.day - (n.registered_at at time zone 'UTC')::date, 0), coalesce(a.byte_seconds, 0),
                  d.present_seconds, d.counted_seconds, coalesce(p.asked, 0), coalesce(p.missed, 0), coalesce(p.failed, 0),
                  r.rounds, r.unproved, t.version, t.node_reward
           from due d join nodes n on n.id = d.node_id join edges e on e.day = d.day join rounds r on r.day = d.day
               cross join lateral (select version, node_reward from tariffs where valid_from <= e.begins order by valid_from desc limit 1) t
               left join agreed_bytes a on a.node_id = d.node_id and a.day = d.day
               left join lateral (
                   select sum(s.asked) as asked, sum(s.missed + s.errors) as missed, sum(s.failed) as failed
                   from proof_sums s join proof_rounds o on o.round = s.round and o.suspicion is null
                   where s.node_id = d.node_id and o.begins_at >= e.begins and o.begins_at < e.ends) p on true
           where r.judged""",
        {"limit": limit},
    )
    return [_inputs(row) for row in rows]


async def last_hashes(db: Pool, nodes: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
    """The hash of each node's last statement; of the others that of none."""
    rows = await db.fetch_all(
        """select n.id, s.hash from unnest(%s::uuid[]) as n (id) cross join lateral (
               select hash from node_statements where node_id = n.id order by day desc limit 1) s""",
        [list(nodes)],
    )
    return {**dict.fromkeys(nodes, FIRST_HASH), **{NodeId(node): bytes(found) for node, found in rows}}


async def post_statements(db: Pool, signed: Sequence[SignedStatement], at: datetime) -> set[NodeId]:
    """Write statements (one a node at most) and book them, each once, in one transaction; the nodes whose was new.

    One that is there already, or whose chain has gone on meanwhile (another coordinator was faster), is passed over.
    """
    async with db.transaction() as connection:
        # One poster at a time: they would only do each other's work.
        await connection.execute("select pg_advisory_xact_lock(hashtext('fsn statements'))")
        new = await _insert(connection, signed, at)
        if new:
            await _book(connection, [each for each in signed if each.statement.inputs.node in new], at)
    return new


async def list_statements(db: Pool, node: NodeId, after: date | None, limit: int) -> list[SignedStatement]:
    """Up to `limit` statements of a node, the oldest first, those of days after `after` only."""
    sql = f"select {_STATEMENT} from node_statements where node_id = %s and day > %s order by day limit %s"  # noqa: S608 - a constant
    return [_signed(row) for row in await db.fetch_all(sql, [node, after or date.min, limit])]


async def last_statement(db: Pool, node: NodeId) -> SignedStatement | None:
    """A node's newest; None before its first day was paid."""
    sql = f"select {_STATEMENT} from node_statements where node_id = %s order by day desc limit 1"  # noqa: S608 - a constant
    row = await db.fetch_one(sql, [node])
    return None if row is None else _signed(row)


# --- money


async def money_of(db: Pool, nodes: Sequence[NodeId]) -> Mapping[NodeId, NodeMoney]:
    """Of each node; all zero where nothing was posted yet."""
    rows = await db.fetch_all(
        """select n.id, coalesce(s.earned, 0), coalesce(a.balance, 0), coalesce(p.pending, 0), coalesce(h.balance, 0)
           from unnest(%s::uuid[]) as n (id)
               left join lateral (select earned_total as earned from node_statements where node_id = n.id
                                  order by day desc limit 1) s on true
               left join ledger_account a on a.kind = 'node' and a.owner = n.id::text
               left join ledger_account h on h.kind = 'node' and h.owner = n.id::text || '/held'
               left join lateral (select sum(amount) as pending from payout_requests
                                  where node_id = n.id and status = 'pending') p on true""",
        [list(nodes)],
    )
    return {NodeId(row[0]): NodeMoney(*(int(each) for each in row[1:])) for row in rows}


async def return_held(db: Pool, registered_before: datetime, day: date, at: datetime) -> int:
    """Pay out what is held back from nodes that have left in order or were registered so long ago, and take it from those that are
    disqualified; of how many nodes. Again on the same day is harmless."""
    rows = await db.fetch_all(
        """select h.id, h.balance, n.id, n.status = 'disqualified', a.id
           from ledger_account h join nodes n on n.id = split_part(h.owner, '/', 1)::uuid
               join ledger_account a on a.kind = 'node' and a.owner = n.id::text
           where h.kind = 'node' and h.owner like '%%/held' and h.balance > 0
               and (n.status in ('left', 'disqualified') or n.registered_at < %s)
               and not exists (select from node_days d where d.node_id = n.id and not d.stated)
           limit 1000""",
        [registered_before],
    )
    for held, balance, node, is_taken, account in rows:
        async with db.transaction() as connection:
            cursor = await connection.execute(
                "select id from ledger_account where kind = 'system' and owner = 'rewards'"
            )
            (rewards,) = await cursor.fetchone()
            kind = "held_taken" if is_taken else "held_returned"
            await connection.execute(
                "select ledger_post(%s, %s, %s, %s::bigint[], %s::bigint[])",
                [kind, f"{kind}:{node}:{day}", at, [held, rewards if is_taken else account], [-balance, balance]],
            )
    return len(rows)


async def today_so_far(db: Pool, nodes: Sequence[NodeId], now: datetime) -> Mapping[NodeId, DayInputs]:
    """What today's pay would follow from if it ended now: the bytes of the last agreement, the proofs so far, and full uptime."""
    today = now.astimezone(UTC).date()
    midnight = datetime(today.year, today.month, today.day, tzinfo=UTC)
    seconds = int((now - midnight).total_seconds())
    rows = await db.fetch_all(
        """select n.id, greatest(%(today)s - (n.registered_at at time zone 'UTC')::date, 0), coalesce(r.agreed_bytes, 0),
                  coalesce(p.asked, 0), coalesce(p.missed, 0), coalesce(p.failed, 0), o.rounds, o.unproved, t.version, t.node_reward
           from nodes n left join reconciliations r on r.node_id = n.id
               cross join (select count(*) as rounds, count(suspicion) as unproved from proof_rounds where begins_at >= %(midnight)s) o
               cross join lateral (select version, node_reward from tariffs where valid_from <= %(midnight)s
                                   order by valid_from desc limit 1) t
               left join lateral (
                   select sum(s.asked) as asked, sum(s.missed + s.errors) as missed, sum(s.failed) as failed
                   from proof_rounds o join proof_sums s on s.round = o.round and s.node_id = n.id
                   where o.suspicion is null and o.begins_at >= %(midnight)s) p on true
           where n.id = any (%(nodes)s::uuid[])""",
        {"nodes": list(nodes), "today": today, "midnight": midnight},
    )
    day = (today - EPOCH).days
    return {
        NodeId(row[0]): DayInputs(
            NodeId(row[0]), day, row[1], row[2] * seconds, seconds, seconds, *(int(each) for each in row[3:])
        )
        for row in rows
    }


# --- inside


def _inputs(row: Sequence[object]) -> DayInputs:
    node, day, *numbers = row
    return DayInputs(NodeId(node), (day - EPOCH).days, *(int(each) for each in numbers))  # type: ignore[operator,arg-type,call-overload]


def _signed(row: Sequence[object]) -> SignedStatement:
    """As it is written: who checks it computes it anew."""
    inputs = _inputs(row[:13])
    earned, held, previous, found, coordinator, signature = row[13:]
    lines: tuple[Line, ...] = daily_statement(inputs).lines
    statement = Statement(inputs, lines, earned, held)  # type: ignore[arg-type]
    return SignedStatement(statement, bytes(previous), bytes(found), PeerId(str(coordinator)), bytes(signature))  # type: ignore[call-overload]


async def _insert(connection: Connection, signed: Sequence[SignedStatement], at: datetime) -> set[NodeId]:
    inputs = [each.statement.inputs for each in signed]
    cursor = await connection.execute(
        """with new as (
               insert into node_statements
               select s.node, s.day, s.age_days, s.byte_seconds, s.present, s.counted, s.asked, s.missed, s.failed, s.rounds, s.unproved,
                      s.tariff, s.reward, s.earned, s.held, s.previous, s.hash, s.coordinator, s.signature, %(at)s,
                      coalesce(l.earned_total, 0) + s.earned
               from unnest(%(node)s::uuid[], %(date)s::date[], %(age_days)s::int[], %(byte_seconds)s::numeric[], %(present)s::int[],
                           %(counted)s::int[], %(asked)s::int[], %(missed)s::int[], %(failed)s::int[], %(rounds)s::smallint[],
                           %(unproved)s::smallint[], %(tariff)s::int[], %(reward)s::bigint[], %(earned)s::bigint[], %(held)s::bigint[],
                           %(previous)s::bytea[], %(hash)s::bytea[], %(coordinator)s::text[], %(signature)s::bytea[])
                   as s (node, day, age_days, byte_seconds, present, counted, asked, missed, failed, rounds, unproved, tariff, reward,
                         earned, held, previous, hash, coordinator, signature)
                   left join lateral (select hash, earned_total from node_statements b where b.node_id = s.node
                                      order by day desc limit 1) l on true
               where s.previous = coalesce(l.hash, decode(repeat('00', 32), 'hex'))
               on conflict do nothing returning node_id, day),
           done as (update node_days d set stated = true from new where d.node_id = new.node_id and d.day = new.day)
           select node_id from new""",
        {
            **{
                name: [getattr(each, name) for each in inputs] for name in attrs.fields_dict(DayInputs) if name != "day"
            },
            "date": [each.day for each in signed],
            "earned": [each.statement.earned for each in signed],
            "held": [each.statement.held for each in signed],
            "previous": [each.previous for each in signed],
            "hash": [each.hash for each in signed],
            "coordinator": [each.coordinator for each in signed],
            "signature": [each.signature for each in signed],
            "at": at,
        },
    )
    return {NodeId(row[0]) for row in await cursor.fetchall()}


async def _book(connection: Connection, signed: Sequence[SignedStatement], at: datetime) -> None:
    """As `ledger_post` does it, for all of them in a few statements: the same locks in the same order, the same rows.

    Accounts are joined by their numbers: planned before PostgreSQL has seen ten thousand new accounts, a join by their names would take
    the square of them.
    """
    paying = [each for each in signed if each.statement.earned]
    if not paying:
        return
    amounts = {_FREE: [each.statement.earned - each.statement.held for each in paying]}
    amounts[_HELD] = [each.statement.held for each in paying]
    owners = {part: [f"{each.statement.inputs.node}{part}" for each in paying] for part in amounts}
    wanted = [owner for part in amounts for owner, amount in zip(owners[part], amounts[part], strict=True) if amount]
    await connection.execute(
        "insert into ledger_account (kind, owner) select 'node', unnest(%s::text[]) on conflict do nothing", [wanted]
    )
    cursor = await connection.execute(
        """select owner, id from ledger_account where kind = 'node' and owner = any (%s::text[]) order by id for no key update""",
        [wanted],
    )
    numbers: dict[str, int] = dict(await cursor.fetchall())
    await connection.execute(
        """with s as (select * from unnest(%(refs)s::text[], %(free)s::bigint[], %(held)s::bigint[], %(frees)s::bigint[],
                                           %(helds)s::bigint[]) as s (ref, free, held, free_account, held_account)),
           t as (insert into ledger_tx (kind, ref, at) select 'statement', ref, %(at)s from s returning id, ref),
           e as (
               select t.id as tx, s.free_account as account, s.free as amount from s join t using (ref) where s.free > 0
               union all
               select t.id, s.held_account, s.held from s join t using (ref) where s.held > 0
               union all
               select t.id, a.id, -(s.free + s.held) from s join t using (ref)
                   join ledger_account a on a.kind = 'system' and a.owner = 'rewards'),
           noted as (insert into ledger_entry (tx, account, amount) select tx, account, amount from e)
           update ledger_account l set balance = l.balance + e.amount from e where l.id = e.account and l.kind = 'node'""",
        {
            "refs": [f"statement:{each.statement.inputs.node}:{each.day}" for each in paying],
            "free": amounts[_FREE],
            "held": amounts[_HELD],
            "frees": [numbers.get(owner) for owner in owners[_FREE]],
            "helds": [numbers.get(owner) for owner in owners[_HELD]],
            "at": at,
        },
    )
