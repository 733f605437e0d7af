"""A node fetches its statements, whatever a coordinator answers."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from fsn.core.errors import ConfigError, ProtocolViolation
from fsn.node.config import API_KEY_NAME, CoordinatorConfig, NodeConfig
from fsn.node.earnings import MOST_PAGES, fetch_statements
from tests.node.fake_coordinator import FakeCoordinator, open_fake_coordinator


def config_of(coordinator: FakeCoordinator, folder: Path) -> NodeConfig:
    """Of a node that is registered there."""
    known = CoordinatorConfig(
        url=coordinator.url,
        peer_id=coordinator.identity.peer,
        addresses=tuple(coordinator.addresses),
        node_id=str(uuid4()),
    )
    return NodeConfig(data_dir=folder, name="n", coordinator=known)


async def test_without_a_key_nothing_is_asked(tmp_path: Path) -> None:
    """The error says what makes one."""
    async with open_fake_coordinator() as fake:
        with pytest.raises(ConfigError, match="fsn node init"):
            await fetch_statements(config_of(fake, tmp_path))


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ({"statements": []}, "no page of statements"),
        ({"statements": [{"inputs": {}}], "next_cursor": None}, "no page of statements"),
        ({"statements": [], "next_cursor": "again"}, f"more than {MOST_PAGES} pages"),
    ],
)
async def test_what_is_no_list_of_statements_is_refused(tmp_path: Path, page: dict[str, Any], said: str) -> None:
    """Of whatever shape, and without an end: in a bounded time, with words."""
    async with open_fake_coordinator() as fake:
        config = config_of(fake, tmp_path)
        (tmp_path / API_KEY_NAME).write_text("key\n")
        (tmp_path / API_KEY_NAME).chmod(0o600)
        fake.statement_pages = lambda cursor: page
        with pytest.raises(ProtocolViolation, match=said):
            await fetch_statements(config)
