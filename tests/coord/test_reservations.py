"""What an upload will cost is set aside when it begins, charged when it is complete, given back when it is dropped."""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random

import attrs
import pytest
import trio

from fsn.coord.catalog import Upload
from fsn.coord.config import CreditsConfig
from fsn.coord.database import ledger
from fsn.coord.database.budgets import set_budget
from fsn.coord.database.inspection import LedgerState, ledger_state
from fsn.coord.database.pool import Pool
from fsn.coord.database.tariffs import add_tariff
from fsn.core.errors import Conflict, InsufficientCredits
from fsn.core.ids import UserId
from fsn.core.tariff import storage_cost
from fsn.core.units import MicroCredits
from tests.coord.network import CONFIG, Hand, Network, open_network

PRICED = attrs.evolve(CONFIG, credits=CreditsConfig(welcome_grant="1", price_per_gb_month="1000"))
GRANT, PRICE = 1_000_000, 1_000_000_000
SIZE = 100_000
COST = storage_cost(SIZE, 3, PRICE)
"""0.3 credits: three fit into the grant."""


@pytest.fixture
async def priced(pool: Pool) -> AsyncIterator[Network]:
    """Three nodes, and a price."""
    with trio.fail_after(60):
        async with open_network(pool, PRICED, nodes=3) as network:
            yield network


async def balance(pool: Pool, user: UserId) -> int:
    """What is left, once the books add up: all entries to zero, and each balance and each month's sum from its own."""
    assert await ledger_state(pool) == LedgerState(total=0, unexplained=0)
    return await ledger.balance(pool, "user", user)


async def kinds(pool: Pool) -> list[str]:
    """What was booked, in order."""
    return [str(row[0]) for row in await pool.fetch_all("select kind from ledger_tx order by id")]


async def test_dropped_uploads_give_back_what_they_set_aside(priced: Network, pool: Pool) -> None:
    """By abort or by expiry, once."""
    user, sessions = (await priced.user()).user.id, priced.services.sessions
    first = await sessions.initiate(user, "f", SIZE, 3)
    await sessions.initiate(user, "g", SIZE, 3)
    assert await balance(pool, user) == GRANT - 2 * COST
    for _ in range(2):
        await sessions.abort(user, first.id)
    assert await balance(pool, user) == GRANT - COST
    await pool.execute("update uploads set expires_at = created_at - interval '1 second'")
    await sessions.expire()
    assert await balance(pool, user) == GRANT
    assert await kinds(pool) == ["grant", "reserve", "reserve", "release", "release"]


async def test_a_complete_upload_is_charged_once(priced: Network, pool: Pool) -> None:
    """Exactly what was set aside; deleting it gives nothing back."""
    user, sessions = (await priced.user()).user.id, priced.services.sessions
    upload = await sessions.initiate(user, "f", SIZE, 3)
    await sessions.put_chunk(user, upload.id, 0, bytes(SIZE))
    for _ in range(2):
        await sessions.complete(user, upload.id)
    with pytest.raises(Conflict):
        await sessions.abort(user, upload.id)
    assert await balance(pool, user) == GRANT - COST
    await priced.services.files.delete(user, upload.file.id)
    assert await balance(pool, user) == GRANT - COST


async def test_the_price_of_the_beginning_holds(priced: Network, pool: Pool) -> None:
    """A coordinator at which storing has become dearer charges what was set aside, and so does one at which it became free."""
    user, sessions = (await priced.user()).user.id, priced.services.sessions
    for count, price in enumerate(["1000000", "0"], 1):
        upload = await sessions.initiate(user, "f", SIZE, 3)
        await sessions.put_chunk(user, upload.id, 0, bytes(SIZE))
        config = attrs.evolve(CONFIG, credits=CreditsConfig(price_per_gb_month=price))
        async with open_network(pool, config, nodes=0) as other:
            await other.services.sessions.complete(user, upload.id)
        assert await balance(pool, user) == GRANT - count * COST


async def test_a_stream_of_unknown_size_is_charged_by_what_came(priced: Network, pool: Pool) -> None:
    """When it ends; one that cannot be paid leaves nothing behind, and the error says how much was wanted and how much there is."""
    user, uploads = (await priced.user()).user.id, priced.services.uploads
    await uploads.store_stream(user, "f", None, 3, body(SIZE))
    assert await balance(pool, user) == GRANT - COST
    with pytest.raises(InsufficientCredits):
        await uploads.store_stream(user, "g", None, 3, body(3 * SIZE))
    assert await balance(pool, user) == GRANT - COST
    with pytest.raises(InsufficientCredits, match=r"costs 0\.90 credits; the balance is 0\.70"):
        await uploads.store_stream(user, "g", 3 * SIZE, 3, body(3 * SIZE))


async def test_the_tariffs_price_holds_from_its_day_on(pool: Pool) -> None:
    """1.5 credits a GB-month and replica until another tariff begins; what began before keeps its price."""
    clock = Hand(datetime(2027, 1, 31, 23, tzinfo=UTC))
    month = datetime(2027, 2, 1, tzinfo=UTC)
    await add_tariff(pool, valid_from=month, node_reward=None, user_price=3_000_000, reason="dearer")
    config = attrs.evolve(CONFIG, credits=CreditsConfig())
    async with open_network(pool, config, nodes=3, clock=clock) as network:
        user, sessions = (await network.user()).user.id, network.services.sessions
        before, cost = await balance(pool, user), storage_cost(SIZE, 3, 1_500_000)
        early = await sessions.initiate(user, "f", SIZE, 3)
        assert before - await balance(pool, user) == cost
        clock.now = month
        await sessions.initiate(user, "g", SIZE, 3)
        assert before - await balance(pool, user) == cost + storage_cost(SIZE, 3, 3_000_000)
        await sessions.put_chunk(user, early.id, 0, bytes(SIZE))
        await sessions.complete(user, early.id)
        assert (await network.services.files.details(user, early.file.id)).paid == cost


async def test_no_upload_goes_beyond_the_budget(priced: Network, pool: Pool) -> None:
    """Of the month, whatever the balance, however many begin at once; what is dropped is free again; a stream is refused at its end."""
    accounts, sessions = priced.services.accounts, priced.services.sessions
    user = (await priced.user()).user.id
    assert (await accounts.set_budget(user, MicroCredits(2 * COST))).budget.spent == 0
    begun: list[Upload] = []
    refused: list[str] = []

    async def begin() -> None:
        try:
            begun.append(await sessions.initiate(user, "f", SIZE, 3))
        except InsufficientCredits as error:
            refused.append(error.code)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(begin)
    assert (len(begun), refused) == (2, ["budget_reached"])
    assert (await accounts.account(user)).budget.spent == 2 * COST
    await sessions.abort(user, begun.pop().id)
    await sessions.put_chunk(user, begun[0].id, 0, bytes(SIZE))
    await sessions.complete(user, begun[0].id)
    assert (await accounts.account(user)).budget.spent == COST
    with pytest.raises(InsufficientCredits, match=r"0\.90 credits would be spent in this month; .* is 0\.60") as caught:
        await priced.services.uploads.store_stream(user, "g", None, 3, body(2 * SIZE))
    assert caught.value.code == "budget_reached"
    assert await balance(pool, user) == GRANT - COST
    await accounts.set_budget(user, None)
    await sessions.initiate(user, "h", SIZE, 3)


async def test_a_new_month_is_a_new_budget(pool: Pool) -> None:
    """What was spent before the first of the month, UTC, does not count."""
    clock = Hand(datetime(2027, 1, 31, 23, 59, tzinfo=UTC))
    async with open_network(pool, PRICED, nodes=3, clock=clock) as network:
        user, services = (await network.user()).user.id, network.services
        await services.accounts.set_budget(user, COST)
        await services.sessions.initiate(user, "f", SIZE, 3)
        with pytest.raises(InsufficientCredits, match="budget"):
            await services.sessions.initiate(user, "g", SIZE, 3)
        clock.now += timedelta(minutes=1)
        assert (await services.accounts.account(user)).budget.spent == 0
        await services.sessions.initiate(user, "g", SIZE, 3)


async def body(size: int) -> AsyncIterator[bytes]:
    """So many bytes, in one piece."""
    yield bytes(size)


async def test_no_more_is_begun_than_can_be_paid(priced: Network, pool: Pool) -> None:
    """However many begin at once; of those that are refused nothing is kept."""
    user = (await priced.user()).user.id
    begun: list[Upload] = []

    async def begin() -> None:
        with suppress(InsufficientCredits):
            begun.append(await priced.services.sessions.initiate(user, "f", SIZE, 3))

    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(begin)
    assert len(begun) == GRANT // COST == 3
    assert await balance(pool, user) == GRANT - 3 * COST
    assert await pool.fetch_one("select count(*) from files") == (3,)


@pytest.mark.parametrize("seed", range(5))
async def test_any_history_adds_up(priced: Network, pool: Pool, seed: int) -> None:
    """Uploads are begun, filled, completed, aborted, expire and are deleted in any order: the balance is what is left of the grant."""
    rng, user, sessions = Random(seed), (await priced.user()).user.id, priced.services.sessions
    uploads: list[Upload] = []
    states: dict[object, str] = {}
    for _ in range(25):
        try:
            match rng.choice(["begin", "complete", "abort", "expire", "delete"]):
                case "begin":
                    uploads.append(upload := await sessions.initiate(user, "f", SIZE, 3))
                    states[upload.id] = "open"
                case "complete" if uploads:
                    upload = rng.choice(uploads)
                    await sessions.put_chunk(user, upload.id, 0, bytes(SIZE))
                    await sessions.complete(user, upload.id)
                    states[upload.id] = "charged"
                case "abort" if uploads:
                    upload = rng.choice(uploads)
                    await sessions.abort(user, upload.id)
                    states[upload.id] = "dropped"
                case "expire" if uploads and states[(upload := rng.choice(uploads)).id] == "open":
                    await pool.execute("update uploads set expires_at = created_at where id = %s", [upload.id])
                    await pool.execute(
                        "update uploads set expires_at = created_at - interval '1 s' where id = %s", [upload.id]
                    )
                    await sessions.expire()
                    states[upload.id] = "dropped"
                case "delete" if uploads and states[(upload := rng.choice(uploads)).id] == "charged":
                    await priced.services.files.delete(user, upload.file.id)
                    uploads.remove(upload)
        except (Conflict, InsufficientCredits):
            pass
        paid = sum(state != "dropped" for state in states.values())
        assert await balance(pool, user) == GRANT - paid * COST >= 0


async def test_small_files_are_charged_as_they_are_recorded(priced: Network, pool: Pool) -> None:
    """One booking each, nothing set aside; each has its first days paid, as a large one has."""
    user, uploads = (await priced.user()).user.id, priced.services.uploads
    files = [await uploads.store_stream(user, "f", SIZE, 3, body(SIZE)) for _ in range(2)]
    assert await balance(pool, user) == GRANT - 2 * COST
    assert await kinds(pool) == ["grant", "storage", "storage"]
    rows = await pool.fetch_all("select id, monthly_cost, paid_micro, paid_until - ready_at from files")
    assert {row[0]: row[1:] for row in rows} == {file.id: (COST, COST, timedelta(days=30)) for file in files}


async def test_of_many_small_files_at_once_as_many_come_in_as_are_paid(priced: Network, pool: Pool) -> None:
    """Of three users at once, each with credits for three and one with a budget of two; the others' replicas go."""
    users, uploads = [(await priced.user(f"u{number}@x.y")).user.id for number in range(3)], priced.services.uploads
    await set_budget(pool, users[2], MicroCredits(2 * COST))
    refused: list[str] = []

    async def store(user: UserId) -> None:
        try:
            await uploads.store_stream(user, "f", SIZE, 3, body(SIZE))
        except InsufficientCredits as error:
            refused.append(error.code)

    async with trio.open_nursery() as nursery:
        for user in users * 5:
            nursery.start_soon(store, user)
    assert sorted(refused) == ["budget_reached"] * 3 + ["insufficient_credits"] * 4
    assert [await balance(pool, user) for user in users] == [GRANT - 3 * COST, GRANT - 3 * COST, GRANT - 2 * COST]
    assert await pool.fetch_one("select count(*) from files") == (8,)
    assert await pool.fetch_one("select count(*) from replicas") == (24,)


async def test_a_small_stream_that_cannot_be_paid_reaches_no_node(priced: Network, pool: Pool) -> None:
    """Whether its size was announced or not, and whether the balance or the budget is too small."""
    user, uploads = (await priced.user()).user.id, priced.services.uploads
    too_large = 4 * SIZE
    for budget, code in ((None, "insufficient_credits"), (COST, "budget_reached")):
        await set_budget(pool, user, None if budget is None else MicroCredits(budget))
        size = too_large if budget is None else 2 * SIZE
        for announced in (size, None):
            with pytest.raises(InsufficientCredits) as caught:
                await uploads.store_stream(user, "f", announced, 3, body(size))
            assert caught.value.code == code
    assert await pool.fetch_one("select (select count(*) from replica_deletions), (select count(*) from files)") == (
        0,
        0,
    )
    assert await balance(pool, user) == GRANT


async def test_a_stream_without_a_size_ends_when_what_came_cannot_be_paid(priced: Network, pool: Pool) -> None:
    """Long before its end, and nothing of it stays: a client that never ends cannot fill nodes for nothing."""
    user, uploads = (await priced.user()).user.id, priced.services.uploads
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1 << 20)

    with pytest.raises(InsufficientCredits, match="the balance is"):
        await uploads.store_stream(user, "f", None, 3, endless())
    assert taken < 10
    assert await balance(pool, user) == GRANT
    assert await pool.fetch_one("select count(*) from files where status <> 'deleted'") == (0,)
