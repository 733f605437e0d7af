"""Fixtures for faults: an API with nodes behind it, and a quick folder for what is opened a thousand times."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fsn.coord.database.pool import Pool
from tests.coord.network import open_network
from tests.faults.network import IMPATIENT
from tests.web.api.conftest import Api, open_api


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
