"""Days become statements: once, in a chain, signed, and booked; what is held back comes back in the end."""

import time
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import attrs
import pytest
import trio

from fsn.coord.catalog import User
from fsn.coord.database.ledger import open_account
from fsn.coord.database.payouts import list_payouts, request_payout
from fsn.coord.database.pool import Pool
from fsn.coord.database.purchases import Purchase, begin, settle
from fsn.coord.database.statements import (
    EPOCH,
    list_statements,
    money_of,
    return_held,
    today_so_far,
)
from fsn.coord.database.tariffs import add_tariff
from fsn.coord.database.users import insert_user
from fsn.coord.paying import Paying
from fsn.core.economics import Line, daily_statement
from fsn.core.errors import Conflict, InsufficientCredits
from fsn.core.ids import NodeId, UserId
from fsn.core.units import MicroCredits
from fsn.node.earnings import Received, first_difference
from fsn.runtime.identity import Identity
from fsn.runtime.supervise import Rest
from tests.coord.database.test_node_states import new_node

DAY = 86_400
FIRST = date(2026, 11, 1)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
IDENTITY = Identity(bytes(range(32)))
GB = 10**9


async def add_day(db: Pool, node: NodeId, number: int = 0, *, size_bytes: int = 90 * GB, present: int = DAY) -> None:
    """A day of a node that is over: its uptime, what it held, six judged rounds without fault."""
    day = FIRST + timedelta(days=number)
    await db.execute("insert into node_days values (%s, %s, %s, %s, null, null)", [node, day, present, DAY])
    await db.execute("insert into agreed_bytes values (%s, %s, %s, %s)", [node, day, size_bytes * DAY, DAY])
    await db.execute(
        """insert into proof_rounds (round, begins_at, judged_at)
           select %(day)s * 6 + n, to_timestamp((%(day)s * 6 + n) * 14400), now() from generate_series(0, 5) n on conflict do nothing""",
        {"day": (day - EPOCH).days},
    )
    await db.execute(
        """insert into proof_sums (round, node_id, asked, passed)
           select %(day)s * 6 + n, %(node)s, 100, 100 from generate_series(0, 5) n""",
        {"day": (day - EPOCH).days, "node": node},
    )


async def old_node(db: Pool) -> NodeId:
    """Registered more than three months before the first day."""
    node = await new_node(db)
    await db.execute("update nodes set registered_at = %s where id = %s", [NOW - timedelta(days=200), node])
    return node


async def pay(db: Pool, identity: Identity = IDENTITY) -> None:
    """All that is due."""
    worker = Paying(db, identity, lambda: NOW)
    while not isinstance(await worker.step(), Rest):
        pass


async def received(db: Pool, node: NodeId) -> list[Received]:
    """The node's statements, as HTTP gives them."""
    return [
        Received(each.statement, each.previous, each.hash, each.coordinator, each.signature)
        for each in await list_statements(db, node, None, 1000)
    ]


async def books(db: Pool) -> tuple[object, ...] | None:
    """The sum of all entries, and how many balances are off theirs."""
    return await db.fetch_one(
        """select coalesce((select sum(amount) from ledger_entry), 0),
                  (select count(*) from ledger_account a where kind <> 'system' and balance <>
                       coalesce((select sum(amount) from ledger_entry e where e.account = a.id), 0))"""
    )


async def test_days_are_paid_once_in_a_chain_that_the_node_can_check(pool: Pool) -> None:
    """90 GB for a day at a credit a GB-month are three credits."""
    node = await old_node(pool)
    for number in range(3):
        await add_day(pool, node, number, present=DAY if number != 1 else DAY * 76 // 100)
    await pay(pool)
    await pay(pool)
    found = await received(pool, node)
    assert [each.statement.earned for each in found] == [3_000_000, 2_400_000, 3_000_000]
    assert first_difference(found, node) is None
    assert (await money_of(pool, [node]))[node] == attrs.evolve(
        (await money_of(pool, [node]))[node], earned=8_400_000, balance=8_400_000
    )
    assert await books(pool) == (0, 0)


async def test_a_day_waits_for_its_rounds_to_be_judged(pool: Pool) -> None:
    """And those after it wait with it: they are one chain."""
    node = await old_node(pool)
    for number in range(2):
        await add_day(pool, node, number)
    await pool.execute("update proof_rounds set judged_at = null where round = (select min(round) from proof_rounds)")
    await pay(pool)
    assert await received(pool, node) == []
    await pool.execute("update proof_rounds set judged_at = now()")
    await pay(pool)
    assert len(await received(pool, node)) == 2


async def test_misses_failures_and_suspicious_rounds_stand_in_the_inputs(pool: Pool) -> None:
    """What was asked in a suspicious round is left out, and its sixth of the day is not paid. Refused is as good as missed."""
    node = await old_node(pool)
    await add_day(pool, node)
    first = "(select min(round) from proof_rounds)"
    await pool.execute(f"update proof_rounds set suspicion = 'half of them' where round = {first}")
    await pool.execute(
        f"update proof_sums set failed = 1, missed = 1, errors = 1, passed = 97 where round = {first} + 1"
    )
    await pay(pool)
    (found,) = await received(pool, node)
    inputs = found.statement.inputs
    assert (inputs.asked, inputs.missed, inputs.failed, inputs.rounds, inputs.unproved) == (500, 2, 1, 6, 1)
    assert found.statement.earned == 3_000_000 * 5 // 6 * (500 - 20 - 100) // 500


async def test_two_coordinators_post_each_statement_once(pool: Pool) -> None:
    """Whoever is first signs it."""
    node = await old_node(pool)
    for number in range(5):
        await add_day(pool, node, number)
    async with trio.open_nursery() as nursery:
        for seed in range(3):
            nursery.start_soon(pay, pool, Identity(bytes([seed]) * 32))
    await pay(pool)
    found = await received(pool, node)
    assert len(found) == 5
    assert first_difference(found, node) is None
    assert (await money_of(pool, [node]))[node].balance == 5 * 3_000_000
    assert await books(pool) == (0, 0)


@pytest.mark.parametrize("what", ["amount", "input", "line", "chain", "signature", "left out"])
async def test_the_first_statement_that_differs_is_named(pool: Pool, what: str) -> None:
    """With what was wanted and what was found."""
    node = await old_node(pool)
    for number in range(3):
        await add_day(pool, node, number)
    await pay(pool)
    found = await received(pool, node)
    bad, statement = found[1], found[1].statement
    told = {
        "amount": (attrs.evolve(bad, statement=attrs.evolve(statement, earned=2_999_999)), "earned is 2999999, computed is 3000000"),
        "input": (
            attrs.evolve(bad, statement=daily_statement(attrs.evolve(statement.inputs, missed=1))),
            "its hash is not that of what it says",
        ),
        "line": (
            attrs.evolve(bad, statement=attrs.evolve(statement, lines=(Line("storage", 1), *statement.lines[1:]))),
            "line 'storage' says 1, computed is 'storage' 3000000",
        ),
        "chain": (attrs.evolve(bad, previous=bytes(32)), "it follows 0000000000000000"),
        "signature": (attrs.evolve(bad, coordinator=Identity(bytes(32)).peer), "the signature is not one of coordinator"),
        "left out": (None, "it follows"),
    }[what]  # fmt: skip
    tampered = [found[0], *([told[0]] if told[0] else []), found[2]]
    wrong = first_difference(tampered, node)
    assert wrong is not None
    assert told[1] in wrong
    assert first_difference(found, NodeId(uuid4())) is not None


async def test_a_quarter_of_a_young_node_s_pay_is_held_back_and_returned(pool: Pool) -> None:
    """When it has left in order, and all its days are paid; a disqualified one loses it."""
    nodes = [await new_node(pool) for _ in range(3)]
    for node in nodes:
        await pool.execute("update nodes set registered_at = %s where id = %s", [FIRST, node])
        await add_day(pool, node)
    await pay(pool)
    money = await money_of(pool, nodes)
    assert {(each.balance, each.held) for each in money.values()} == {(2_250_000, 750_000)}
    await pool.execute("update nodes set status = 'left' where id = %s", [nodes[0]])
    await pool.execute("update nodes set status = 'disqualified' where id = %s", [nodes[1]])
    year_before = NOW - timedelta(days=365)
    for _ in range(2):
        await return_held(pool, year_before, NOW.date(), NOW)
    money = await money_of(pool, nodes)
    found = [(money[node].balance, money[node].held) for node in nodes]
    assert found == [(3_000_000, 0), (2_250_000, 0), (2_250_000, 750_000)]
    await return_held(pool, NOW, NOW.date(), NOW)
    assert (await money_of(pool, nodes))[nodes[2]].balance == 3_000_000
    assert await books(pool) == (0, 0)


async def test_a_payout_is_asked_for_once_and_never_for_more_than_there_is(pool: Pool) -> None:
    """The balance falls at once; the same id again changes nothing."""
    node, request = await old_node(pool), uuid4()
    await add_day(pool, node)
    await pay(pool)
    await users_buy(pool, 10_000_000)
    assert await request_payout(pool, request, node, 1_000_000, "somewhere", NOW)
    assert not await request_payout(pool, request, node, 1_000_000, "somewhere", NOW)
    with pytest.raises(InsufficientCredits, match=r"2\.50 credits is wanted, the balance is 2\.00"):
        await request_payout(pool, uuid4(), node, 2_500_000, "somewhere", NOW)
    money = (await money_of(pool, [node]))[node]
    assert (money.earned, money.balance, money.pending) == (3_000_000, 2_000_000, 1_000_000)
    assert [each.id for each in await list_payouts(pool, node)] == [request]
    for other in (
        (node, 2_000_000, "somewhere"),
        (node, 1_000_000, "elsewhere"),
        (await old_node(pool), 1_000_000, "somewhere"),
    ):
        with pytest.raises(Conflict, match="take a new id") as caught:
            await request_payout(pool, request, *other, NOW)
        assert caught.value.code == "payout_differs"
    assert await books(pool) == (0, 0)


async def test_no_more_is_paid_out_than_users_bought(pool: Pool) -> None:
    """What welcome grants pay for stays in the network, however many ask at once; who is refused keeps the balance."""
    node = await old_node(pool)
    await add_day(pool, node)
    await pay(pool)
    with pytest.raises(
        Conflict, match=r"a payout of 0\.50 credits is wanted; of what users bought 0\.00 are not paid out yet"
    ):
        await request_payout(pool, uuid4(), node, 500_000, "somewhere", NOW)
    await users_buy(pool, 1_200_000)
    refused: list[str] = []

    async def ask() -> None:
        try:
            await request_payout(pool, uuid4(), node, 500_000, "somewhere", NOW)
        except Conflict as error:
            refused.append(error.code)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert refused == ["not_funded"] * 3
    assert (await money_of(pool, [node]))[node].balance == 2_000_000
    assert await books(pool) == (0, 0)


async def users_buy(pool: Pool, amount: int) -> None:
    """Somebody pays for so many micro-credits."""
    user = User(UserId(uuid4()), f"{uuid4()}@example.com", "x", NOW)
    wanted = Purchase(uuid4(), user.id, "mock", str(uuid4()), 1, MicroCredits(amount), NOW)
    async with pool.transaction() as connection:
        await insert_user(connection, user)
        await open_account(connection, "user", user.id)
    await begin(pool, wanted)
    await settle(pool, wanted.id, NOW)


async def test_a_tariff_holds_from_its_day_on(pool: Pool) -> None:
    """Each statement names the one it was reckoned by; none is valid for days gone by another."""
    node = await old_node(pool)
    second = datetime(2026, 11, 2, tzinfo=UTC)
    assert await add_tariff(pool, valid_from=second, node_reward=2_000_000, user_price=None, reason="more")
    assert await add_tariff(pool, valid_from=second, node_reward=1, user_price=None, reason="again") is None
    for number in range(2):
        await add_day(pool, node, number)
    await pay(pool)
    found = [(each.statement.inputs.tariff, each.statement.earned) for each in await received(pool, node)]
    assert found == [(1, 3_000_000), (2, 6_000_000)]


async def test_today_s_estimate_is_by_the_same_function(pool: Pool) -> None:
    """From the last agreement and the seconds since midnight."""
    node = await old_node(pool)
    await pool.execute(
        "insert into reconciliations (node_id, due_at, agreed_bytes) values (%s, now(), %s)", [node, 90 * GB]
    )
    inputs = (await today_so_far(pool, [node], NOW + timedelta(hours=12)))[node]
    assert daily_statement(inputs).earned == 1_500_000


async def test_ten_thousand_nodes_take_moments(pool: Pool) -> None:
    """Statements of all of them are one transaction, also when PostgreSQL plans by what the ledger was before: users' accounts only."""
    await pool.execute(
        "insert into ledger_account (kind, owner) select 'user', gen_random_uuid()::text from generate_series(1, 200)"
    )
    await pool.execute("analyze")
    await pool.execute(
        """insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, capacity_bytes, status_since,
                              absent_since, unfolded_from)
           select gen_random_uuid(), 'peer' || n, sha256(n::text::bytea), 'n', sha256(('k' || n)::bytea), now(), '2026-01-01', 1, now(),
                  now(), current_date from generate_series(1, 10000) n"""
    )
    await pool.execute("insert into node_days select id, %s, 86400, 86400, null, null from nodes", [FIRST])
    await pool.execute("insert into agreed_bytes select id, %s, %s, 86400 from nodes", [FIRST, 90 * GB * DAY])
    began = time.perf_counter()
    await pay(pool)
    assert time.perf_counter() - began < 20
    assert await pool.fetch_one("select count(*), sum(earned) from node_statements") == (10_000, 30_000_000_000)
    assert await books(pool) == (0, 0)
