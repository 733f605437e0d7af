"""Fixtures for simulations: virtual time, and a network on the session's PostgreSQL."""

from collections.abc import Callable
from functools import partial

import pytest

from fsn.sim import Network
from fsn.sim.clock import VirtualClock

OpenNetwork = Callable[..., Network]


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """The clock of the test's trio run."""
    return VirtualClock()


@pytest.fixture
def open_network(virtual_clock: VirtualClock, postgres_dsn: str) -> OpenNetwork:
    """Networks in virtual time, each with a database of its own."""
    return partial(Network, dsn=postgres_dsn)
