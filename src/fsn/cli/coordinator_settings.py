"""The options that say which coordinator is meant, and its settings as they are in force."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fsn.cli.places import default_data_dir
from fsn.coord.database.pool import holds_password
from fsn.core.errors import ConfigError
from fsn.daemon.coordinator import CoordinatorConfig
from fsn.runtime.config import load_config

__all__ = ["load_settings", "settings_options"]

CONFIG_NAME = "coordinator.toml"


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add them to a command; `load_settings` takes them."""
    for option in reversed(
        (
            click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of this coordinator's data."),
            click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings."),
            click.option("--http-port", type=int, help="TCP port of the HTTP API; 0 = any free one. Default 8080."),
            click.option("--p2p-port", type=int, help="TCP port for storage nodes; 0 = any free one. Default 4001."),
            click.option(
                "--host", help="Address to listen on, for HTTP and nodes. Default: HTTP 127.0.0.1, nodes all."
            ),
            click.option("--dsn", help="PostgreSQL URL, without a password. Default: an embedded server."),
        )
    ):
        command = option(command)
    return command


def load_settings(
    data_dir: Path | None,
    config_file: Path | None,
    http_port: int | None,
    p2p_port: int | None,
    host: str | None,
    dsn: str | None,
) -> CoordinatorConfig:
    """What is in force. Raises ConfigError."""
    if dsn is not None and holds_password(dsn):
        raise ConfigError(
            "--dsn must not hold a password: everybody on this machine can read it in the list of processes."
            " Put it into PGPASSWORD, a passfile (PGPASSFILE), or FSN_DATABASE__DSN"
        )
    folder = data_dir or Path(os.environ.get("FSN_DATA_DIR") or default_data_dir("coordinator"))
    standard = folder / CONFIG_NAME
    return load_config(
        CoordinatorConfig,
        file=config_file or (standard if standard.exists() else None),
        environment=os.environ,
        overrides={
            "data_dir": folder.absolute(),
            "http.port": http_port,
            "http.host": host,
            "p2p.tcp_port": p2p_port,
            "p2p.listen_host": host,
            "database.dsn": dsn,
        },
    )
