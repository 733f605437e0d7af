"""Fixtures for the storage node: every async test is bounded in time."""

from collections.abc import AsyncIterator

import pytest
import trio

REAL_SECONDS = 30
VIRTUAL_SECONDS = 30 * 24 * 3600
"""Under a virtual clock a test that hangs jumps there at once."""


@pytest.fixture(autouse=True)
async def bounded(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """No async test of this folder takes longer; when the scope ends, pytest-trio cancels the test."""
    is_virtual = "autojump_clock" in request.fixturenames
    with trio.fail_after(VIRTUAL_SECONDS if is_virtual else REAL_SECONDS):
        yield
