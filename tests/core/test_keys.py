"""Wrapping of file keys."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.errors import Corrupt
from fsn.core.ids import FileId
from fsn.core.keys import WRAPPED_BYTES, FileKey, master_key_id, unwrap_file_key, wrap_file_key

FILE_KEY = FileKey(bytes(range(32)))
FILE = FileId(UUID(bytes=bytes(range(32, 48))))
MASTER_KEY = bytes(range(64, 96))
SECRET = bytes(range(128, 160))
NONCE = bytes(range(200, 212))

# Computed with HMAC and another AES-GCM implementation (PyCryptodome).
GOLDEN = (
    "c8c9cacbcccdcecfd0d1d2d3"
    "ff5778cf93c51ef9c83c40f9ec6a8c4ed4133583460a2da76ff74b846d9bf40b"
    "13a3d88898aba554e6a5e42b9c4212ac"
)


def wrap(**changed: Any) -> bytes:
    arguments: dict[str, Any] = {
        "master_key": MASTER_KEY,
        "secret": SECRET,
        "file": FILE,
        "key_id": "k1",
        "nonce": NONCE,
    }
    return wrap_file_key(FILE_KEY, **(arguments | changed))


def unwrap(wrapped: bytes, **changed: Any) -> FileKey:
    arguments: dict[str, Any] = {"master_key": MASTER_KEY, "secret": SECRET, "file": FILE, "key_id": "k1"}
    return unwrap_file_key(wrapped, **(arguments | changed))


def test_golden_wrapping() -> None:
    """A known key under known secrets is wrapped to the published bytes: nonce, encrypted key, tag."""
    assert wrap().hex() == GOLDEN
    assert len(wrap()) == WRAPPED_BYTES


def test_a_wrapped_key_comes_back() -> None:
    """The same arguments unwrap what they wrapped."""
    assert unwrap(wrap()) == FILE_KEY


@pytest.mark.parametrize(
    "changed",
    [{"master_key": bytes(32)}, {"secret": bytes(32)}, {"file": FileId(UUID(int=1))}, {"key_id": "k2"}],
    ids=lambda changed: next(iter(changed)),
)
def test_another_argument_does_not_unwrap(changed: dict[str, object]) -> None:
    """The master key, the file's secret, the file's id and the key's id are all needed."""
    with pytest.raises(Corrupt, match="its tag is wrong"):
        unwrap(wrap(), **changed)


@given(st.integers(0, WRAPPED_BYTES - 1), st.integers(1, 255))
def test_any_damaged_byte_is_noticed(position: int, difference: int) -> None:
    """A wrapped key with one byte changed is corrupt."""
    damaged = bytearray(wrap())
    damaged[position] ^= difference
    with pytest.raises(Corrupt):
        unwrap(bytes(damaged))


@pytest.mark.parametrize("wrapped", [b"", bytes(59), bytes(61)])
def test_a_wrapped_key_of_another_length_is_corrupt(wrapped: bytes) -> None:
    """Nothing but 60 bytes is tried."""
    with pytest.raises(Corrupt, match="must have 60 bytes"):
        unwrap(wrapped)


@pytest.mark.parametrize("changed", [{"master_key": b"short"}, {"secret": bytes(31)}, {"nonce": bytes(11)}])
def test_wrong_key_lengths_are_the_callers_mistake(changed: dict[str, object]) -> None:
    """A short master key, secret or nonce never makes a weak wrapping."""
    with pytest.raises(ValueError, match="bytes; got"):
        wrap(**changed)


def test_a_master_key_has_a_public_name() -> None:
    """The name is stable, differs between keys, and is not the key."""
    assert master_key_id(MASTER_KEY) == "2bb924755add3543"
    assert master_key_id(bytes(32)) != master_key_id(MASTER_KEY)
