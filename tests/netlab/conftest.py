"""Most tests of the lab need one: see scenarios/netlab/fixtures.py."""

import pytest

from scenarios.netlab.fixtures import lab, prepare

__all__ = ["lab"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deadlines, or reasons for skipping."""
    prepare(items)
