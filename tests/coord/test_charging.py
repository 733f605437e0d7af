"""After the days that an upload paid for, each day is charged; who cannot pay is told, and keeps the files for the days of grace."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import attrs
import pytest
import trio

from fsn.coord.catalog import StoredFile
from fsn.coord.charging import Charging
from fsn.coord.config import CreditsConfig
from fsn.coord.database import ledger
from fsn.coord.database.charges import Charged, charge_user, standing
from fsn.coord.database.pool import Pool
from fsn.coord.database.purchases import Purchase, begin, settle
from fsn.core.errors import InsufficientCredits, NotFound
from fsn.core.ids import FileId, UserId
from fsn.core.tariff import storage_cost
from fsn.core.units import MicroCredits
from fsn.runtime.supervise import Bell, Rest
from tests.coord.network import CONFIG, Hand, Network, open_network

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
PRICED = attrs.evolve(CONFIG, credits=CreditsConfig(welcome_grant="1", price_per_gb_month="1000"))
GRANT, PRICE, SIZE = 1_000_000, 1_000_000_000, 100_001
COST = storage_cost(SIZE, 3, PRICE)
DAY = 10_001
"""Rounded up: 300003 micro-credits are 10000.1 a day."""
GRACE = timedelta(days=14)


@attrs.define
class Accounting:
    """A network with a price, a hand-set clock, a user, and the worker."""

    pool: Pool
    network: Network
    clock: Hand
    user: UserId

    async def put(self) -> StoredFile:
        """Store a file."""

        async def body() -> AsyncIterator[bytes]:
            yield bytes(SIZE)

        return await self.network.services.uploads.store_stream(self.user, "f", SIZE, 3, body())

    async def until(self, days: float) -> None:
        """It is so many days later than in the beginning: charge all that is due."""
        self.clock.now = BEGIN + timedelta(days=days)
        worker = Charging(self.pool, self.clock, PRICED.credits, Bell(), Bell())
        while not isinstance(await worker.step(), Rest):
            pass
        off = await self.pool.fetch_one(
            """select coalesce((select sum(amount) from ledger_entry), 0), (select count(*) from ledger_account a where kind <> 'system'
                   and balance <> coalesce((select sum(amount) from ledger_entry e where e.account = a.id), 0))"""
        )
        assert off == (0, 0)

    async def balance(self) -> int:
        """In micro-credits."""
        return await ledger.balance(self.pool, "user", self.user)

    async def buy(self, amount: int) -> None:
        """Add micro-credits."""
        wanted = Purchase(uuid4(), self.user, "mock", f"{self.clock.now}", 1, MicroCredits(amount), self.clock.now)
        await begin(self.pool, wanted)
        await settle(self.pool, wanted.id, self.clock.now)

    async def paid(self, file: FileId) -> int:
        """As the user sees it."""
        return (await self.network.services.files.details(self.user, file)).paid


@pytest.fixture
async def books(pool: Pool) -> AsyncIterator[Accounting]:
    """Three nodes."""
    clock = Hand(BEGIN)
    with trio.fail_after(60):
        async with open_network(pool, PRICED, nodes=3, clock=clock) as network:
            yield Accounting(pool, network, clock, (await network.user()).user.id)


async def test_each_day_after_the_thirtieth_is_charged_once(books: Accounting) -> None:
    """However often, and from however many coordinators, it is looked at; days that were left out follow."""
    file = (await books.put()).id
    await books.until(29.9)
    assert (await books.balance(), await books.paid(file)) == (GRANT - COST, COST)
    await books.until(30)
    assert await books.balance() == GRANT - COST - DAY
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(books.until, 32.5)
    assert (await books.balance(), await books.paid(file)) == (GRANT - COST - 3 * DAY, COST + 3 * DAY)
    await books.network.services.files.delete(books.user, file)
    await books.until(60)
    assert await books.balance() == GRANT - COST - 3 * DAY


async def test_who_cannot_pay_is_past_due_until_they_can(books: Accounting) -> None:
    """Nothing new is taken, files can be read, and a purchase puts it right at once."""
    file = (await books.put()).id
    for _ in range(2):
        await books.put()
    left = GRANT - 3 * COST
    assert left // (3 * DAY) == 3
    await books.until(34)
    assert await books.balance() == left - 9 * DAY
    account = await books.network.services.accounts.account(books.user)
    assert (account.past_due_since, account.kept_until) == (books.clock.now, books.clock.now + GRACE)
    await books.buy(2 * DAY)
    await books.until(34.1)
    with pytest.raises(InsufficientCredits, match="not paid since 2026-12-05") as refused:
        await books.put()
    assert refused.value.code == "past_due"
    await books.buy(COST + 4 * DAY)
    await books.until(34.2)
    assert (await standing(books.pool, books.user, books.clock())).past_due_since is None
    assert await books.paid(file) == COST + 5 * DAY
    await books.put()


async def test_after_the_grace_unpaid_files_are_deleted(books: Accounting) -> None:
    """Not a moment before; and only those that are not paid: the account goes on with what it can pay."""
    files = [(await books.put()).id for _ in range(3)]
    await books.until(34)
    await books.until(47.99)
    for file in files:
        await books.paid(file)
    await books.until(48.05)
    for file in files:
        with pytest.raises(NotFound):
            await books.paid(file)
    await books.until(49)
    assert (await standing(books.pool, books.user, books.clock())).past_due_since is None
    assert await books.balance() == GRANT - 3 * COST - 9 * DAY


async def test_what_costs_nothing_is_never_due(books: Accounting) -> None:
    """An empty file, say."""
    upload = await books.network.services.sessions.initiate(books.user, "f", 0, 3)
    await books.network.services.sessions.complete(books.user, upload.id)
    await books.until(400)
    assert await books.balance() == GRANT
    assert await charge_user(books.pool, books.user, books.clock.now, GRACE) == Charged()
