"""Fixtures for faults: every async test is bounded in time, and a quick folder for what is opened a thousand times."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from fsn.coord.database.pool import Pool
from tests.coord.network import open_network
from tests.faults.network import IMPATIENT
from tests.web.api.conftest import Api, open_api

TEST_SECONDS = 40
SLOW_SECONDS = 600


@pytest.fixture(autouse=True)
async def bounded(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """No async test of this folder takes longer; when the scope ends, pytest-trio cancels the test."""
    is_slow = request.node.get_closest_marker("slow") is not None
    with trio.fail_after(SLOW_SECONDS if is_slow else TEST_SECONDS):
        yield


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a thing: SQLite waits for the disk at every commit, whatever we do."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="fsn-faults-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def api(pool: Pool) -> AsyncIterator[Api]:
    """A coordinator with little patience and five nodes, and its API."""
    async with open_network(pool, IMPATIENT, nodes=5) as network, open_api(network) as api:
        yield api
