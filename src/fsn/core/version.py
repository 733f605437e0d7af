"""Which version of fsn this is; `pyproject.toml` says the same."""

from typing import Final

__all__ = ["VERSION"]

VERSION: Final = "0.1.0"
