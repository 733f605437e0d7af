"""The coordinator's secrets: master keys that wrap file keys, and the key that signs tokens. Shared by all coordinators of a database."""

import secrets
from collections.abc import Mapping
from pathlib import Path

import attrs

from fsn.core.errors import ConfigError
from fsn.core.keys import KEY_BYTES, master_key_id
from fsn.runtime.private_files import create_private_file, read_private_file

__all__ = ["MasterKeys", "load_key", "load_master_keys"]


@attrs.frozen
class MasterKeys:
    """All master keys known here, by id; new files are wrapped under `current`."""

    current: str
    keys: Mapping[str, bytes] = attrs.field(repr=False)

    def __getitem__(self, key_id: str) -> bytes:
        try:
            return self.keys[key_id]
        except KeyError:
            raise ConfigError(
                f"master key {key_id} is not known to this coordinator: copy it from one that has it"
            ) from None


def load_master_keys(path: Path, from_environment: str | None) -> MasterKeys:
    """The master key from the environment (64 hex digits) if given, else from the file, which is made on first use."""
    key = load_key("the master key", path, from_environment)
    return MasterKeys(current=master_key_id(key), keys={master_key_id(key): key})


def load_key(what: str, path: Path, from_environment: str | None) -> bytes:
    """A 256-bit key: hex from the environment if given, else from the file, which is drawn and written on first use."""
    if from_environment is not None:
        return _parse(what, "the environment", from_environment.encode())
    try:
        return _parse(what, str(path), read_private_file(path))
    except FileNotFoundError:
        return _create(what, path)


def _create(what: str, path: Path) -> bytes:
    key = secrets.token_bytes(KEY_BYTES)
    try:
        create_private_file(path, key.hex().encode() + b"\n")
    except FileExistsError:  # another coordinator was faster
        return _parse(what, str(path), read_private_file(path))
    return key


def _parse(what: str, where: str, text: bytes) -> bytes:
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{what} ({where}) must be {KEY_BYTES * 2} hex digits")
    return key
