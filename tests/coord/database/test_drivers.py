"""Both drivers keep the contract; the right one is chosen, or the refusal says what to do."""

import subprocess
import sys

import psycopg
import pytest

from fsn.coord.database.drivers import NATIVE, NATIVE_BELOW, NATIVE_FROM, TRIO_ASYNCIO, check_native, open_driver
from fsn.core.errors import ConfigError
from tests.coord.database.driver_contract import DriverContract

OTHER_PSYCOPG = """
import sys, psycopg, trio  # psycopg before trio_asyncio
psycopg.__version__ = "3.4.0"
for missing in sys.argv[2:]:
    sys.modules[missing] = None
from fsn.coord.database.pool import open_pool
from fsn.core.errors import ConfigError

async def ask(driver):
    try:
        async with open_pool(sys.argv[1], driver=driver) as pool:
            print(await pool.fetch_one("select 42"))
    except ConfigError as error:
        print(error.message)

trio.run(ask, "native")
trio.run(ask, "trio-asyncio")
"""


class TestNativeDriver(DriverContract):
    """psycopg's generators, driven by trio."""

    @pytest.fixture
    def driver(self) -> str:
        """Its name."""
        return NATIVE


class TestTrioAsyncioDriver(DriverContract):
    """psycopg's asyncio connection, through trio-asyncio."""

    @pytest.fixture
    def driver(self) -> str:
        """Its name."""
        return TRIO_ASYNCIO


def test_the_installed_psycopg_is_the_native_one() -> None:
    """What uv.lock has fits the native driver."""
    check_native(psycopg.__version__)


@pytest.mark.parametrize("version", ["3.3.6", "3.3.9", "3.3.12.dev1", "3.3.10rc2"])
def test_versions_in_the_native_range(version: str) -> None:
    """From 3.3.6 on, below 3.4."""
    check_native(version)


@pytest.mark.parametrize("version", ["3.3.5", "3.2.13", "3.4", "3.4.0.dev1", "4.0.0", "2.9.11", "unknown"])
def test_versions_outside_the_native_range(version: str) -> None:
    """The refusal names the range, what was found, and both ways out."""
    with pytest.raises(
        ConfigError, match=rf"3\.3\.6.* 3\.4\.0; found psycopg {version}.*fsn\[trio-asyncio\].*database\.driver"
    ):
        check_native(version)


def test_the_range_is_that_of_the_package() -> None:
    """pyproject.toml installs what the native driver was made for."""
    from importlib.metadata import requires

    (wanted,) = [line for line in requires("fsn") or () if line.startswith("psycopg")]
    for version in (NATIVE_FROM, NATIVE_BELOW):
        assert ".".join(map(str, version)).removesuffix(".0") in wanted


async def test_an_unknown_driver() -> None:
    """Another name is refused, with the names that there are."""
    with pytest.raises(ConfigError, match="native, trio-asyncio; found 'asyncpg'"):
        async with open_driver("asyncpg"):
            pass


def test_another_psycopg(scratch_dsn: str) -> None:
    """On a psycopg outside the range native is refused, and trio-asyncio works without the native driver's modules."""
    lines = ask_both(scratch_dsn, "fsn.coord.database.driver", "fsn.coord.database.waiting")
    assert "found psycopg 3.4.0" in lines[0]
    assert lines[1] == "(42,)"


def test_trio_asyncio_is_not_installed(scratch_dsn: str) -> None:
    """Without the extra the refusal says what to install."""
    assert "trio_asyncio is not installed: install fsn[trio-asyncio]" in ask_both(scratch_dsn, "trio_asyncio")[1]


def ask_both(dsn: str, *missing: str) -> list[str]:
    """What a process prints that asks the database by both drivers, without the modules `missing`."""
    run = subprocess.run(
        [sys.executable, "-c", OTHER_PSYCOPG, dsn, *missing], capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout.splitlines()
