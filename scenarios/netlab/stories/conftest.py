"""Stories need a lab: see scenarios/netlab/fixtures.py."""

import pytest

from scenarios.netlab.fixtures import end_of_hangs, lab, prepare

__all__ = ["end_of_hangs", "lab"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deadlines, or reasons for skipping."""
    prepare(items)
