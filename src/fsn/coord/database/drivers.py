"""Which driver: the native one, or the one through trio-asyncio for the psycopg versions that the first was not made for."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psycopg

from fsn.coord.database.base import Connect
from fsn.core.errors import ConfigError

__all__ = ["DRIVERS", "NATIVE", "TRIO_ASYNCIO", "check_native", "open_driver"]

NATIVE: Final = "native"
TRIO_ASYNCIO: Final = "trio-asyncio"
DRIVERS: Final = (NATIVE, TRIO_ASYNCIO)

NATIVE_FROM: Final = (3, 3, 6)
NATIVE_BELOW: Final = (3, 4, 0)
"""The versions of psycopg whose private names the native driver knows; the same as in pyproject.toml."""


@asynccontextmanager
async def open_driver(name: str = NATIVE) -> AsyncIterator[Connect]:
    """The driver called `name`, for the length of the block; connections should be closed before.

    Raises ConfigError when it does not fit the installed psycopg, or is not installed. Each is imported only when it is wanted: the
    native one would fail at its import on another psycopg, and trio-asyncio replaces parts of asyncio in the whole process.
    """
    if name == NATIVE:
        check_native(psycopg.__version__)
        from fsn.coord.database.driver import TrioConnection

        yield TrioConnection.connect
    elif name == TRIO_ASYNCIO:
        try:
            from fsn.coord.database.asyncio_driver import open_asyncio_driver
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"database.driver is {TRIO_ASYNCIO!r}, and {error.name} is not installed: install fsn[trio-asyncio]"
            ) from error
        async with open_asyncio_driver() as connect:
            yield connect
    else:
        raise ConfigError(f"database.driver is one of {', '.join(DRIVERS)}; found {name!r}")


def check_native(version: str) -> None:
    """Raise ConfigError unless the native driver was made for this version of psycopg."""
    numbers = tuple(int(number) for number in [*re.findall(r"\d+", version), "0", "0", "0"][:3])
    if not NATIVE_FROM <= numbers < NATIVE_BELOW:
        raise ConfigError(
            f"the native database driver was made for psycopg {_text(NATIVE_FROM)} up to, not including, {_text(NATIVE_BELOW)};"
            f" found psycopg {version}. Install one of these, or install fsn[trio-asyncio] and set database.driver ="
            f" {TRIO_ASYNCIO!r}, which works with versions from 3.1 on and four times the CPU"
        )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
