"""The token that the admin API wants for what changes something: who may read the node's folder may change the node."""

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from fsn.core.errors import Forbidden
from fsn.runtime.private_files import create_private_file, read_private_file

__all__ = ["ADMIN_TOKEN_NAME", "make_admin_token", "read_admin_token"]

ADMIN_TOKEN_NAME: Final = "admin.token"  # noqa: S105 - a file's name
"""In the data folder, mode 0600."""


def make_admin_token(data_dir: Path) -> str:
    """The token, drawn and written at the first start. Raises ConfigError."""
    with suppress(FileExistsError):
        create_private_file(data_dir / ADMIN_TOKEN_NAME, secrets.token_hex(32).encode() + b"\n")
    return read_admin_token(data_dir)


def read_admin_token(data_dir: Path) -> str:
    """The token. Raises Forbidden when it is not there, ConfigError when it cannot be read."""
    try:
        return read_private_file(data_dir / ADMIN_TOKEN_NAME).decode("ascii", "replace").strip()
    except FileNotFoundError:
        raise Forbidden(
            f"there is no {data_dir / ADMIN_TOKEN_NAME}: a running node of this version has made it"
        ) from None
