"""The example file is the configuration, complete and with its defaults."""

import tomllib
from pathlib import Path

from fsn.node.config import NodeConfig
from fsn.runtime.config import load_config, settings

EXAMPLE = Path(__file__).parents[2] / "config" / "node.example.toml"


async def test_the_example_is_complete_and_shows_the_defaults() -> None:
    """Every setting stands in the example (region as a comment), and those that have a default show it."""
    config = load_config(NodeConfig, file=EXAMPLE)
    bare = load_config(
        NodeConfig,
        overrides={
            "data_dir": config.data_dir,
            "name": config.name,
            **{f"coordinator.{key}": value for key, value in tomllib.loads(EXAMPLE.read_text())["coordinator"].items()},
        },
    )
    assert config == bare
    text = EXAMPLE.read_text()
    for setting in settings(NodeConfig):
        leaf = setting.key.rpartition(".")[2]
        assert f"\n{leaf} = " in text or f"\n#{leaf} = " in text, setting.key
