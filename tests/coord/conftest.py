"""Fixtures for the coordinator's services."""

from collections.abc import AsyncIterator

import pytest
import trio

from fsn.coord.database.pool import Pool
from tests.coord.network import CONFIG, Network, open_network

TEST_SECONDS = 30


@pytest.fixture
async def network(pool: Pool) -> AsyncIterator[Network]:
    """A coordinator and four nodes."""
    with trio.fail_after(TEST_SECONDS):
        async with open_network(pool, CONFIG, nodes=4) as network:
            yield network
