"""A misbehaving coordinator and a client with short patience."""

from collections.abc import AsyncIterator

import pytest
import trio

from fsn.client import Client, Retrying, Timeouts
from tests.client.fake_coordinator import FakeCoordinator, open_fake_coordinator

QUICK = Retrying(attempts=4, first_seconds=0.01, longest_seconds=0.02)


@pytest.fixture
async def coordinator() -> AsyncIterator[FakeCoordinator]:
    async with open_fake_coordinator() as fake:
        with trio.fail_after(10):
            yield fake


@pytest.fixture
async def client(coordinator: FakeCoordinator) -> AsyncIterator[Client]:
    timeouts = Timeouts(connect_seconds=2, answer_seconds=2, send_seconds=2)
    async with Client(coordinator.url, "t0k3n", retrying=QUICK, timeouts=timeouts) as client:
        yield client
