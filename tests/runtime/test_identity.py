"""Identities: peer ids, signatures, and the file they are kept in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsn.core.errors import ConfigError, Invalid
from fsn.runtime.identity import (
    Identity,
    create_identity,
    load_identity,
    load_or_create_identity,
    peer_id_of,
    public_key_of,
    verify,
)

SEED = bytes(range(32))


def test_the_peer_id_of_a_known_key_is_the_known_one() -> None:
    """The peer id agrees with the one that py-libp2p 0.8.1 derives from the same seed."""
    assert Identity(SEED).peer == "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"


def test_peer_id_and_public_key_determine_each_other() -> None:
    """A public key can be read back from its peer id."""
    identity = Identity.generate()
    assert public_key_of(identity.peer) == identity.public_key
    assert peer_id_of(identity.public_key) == identity.peer


@pytest.mark.parametrize("text", ["", "Qm0", "12D3KooW", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"])
def test_a_peer_id_of_another_kind_is_refused(text: str) -> None:
    """Only peer ids of Ed25519 keys have a public key inside."""
    with pytest.raises(Invalid):
        public_key_of(text)  # type: ignore[arg-type]


def test_a_signature_is_verified_and_a_changed_one_is_not() -> None:
    """Data, signature and key must all belong together; malformed ones are just not verified."""
    identity = Identity(SEED)
    signature = identity.sign(b"data")
    assert verify(identity.public_key, b"data", signature)
    assert not verify(identity.public_key, b"Data", signature)
    assert not verify(Identity.generate().public_key, b"data", signature)
    assert not verify(b"short", b"data", b"")


def test_the_seed_is_in_no_repr() -> None:
    """Printing an identity shows the peer id and nothing secret."""
    identity = Identity(SEED)
    assert repr(identity) == f"Identity(peer='{identity.peer}')"


def test_a_created_identity_is_loaded_again(tmp_path: Path) -> None:
    """What was created is what is loaded, and its file is the owner's alone."""
    path = tmp_path / "identity.pem"
    created = create_identity(path)
    assert load_identity(path) == created
    assert load_or_create_identity(path) == created
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["identity.pem"]


def test_an_identity_is_never_replaced(tmp_path: Path) -> None:
    """Creating over an existing file is refused and leaves the file and the folder as they were."""
    path = tmp_path / "identity.pem"
    created = create_identity(path)
    with pytest.raises(ConfigError, match="already"):
        create_identity(path)
    assert load_identity(path) == created
    assert os.listdir(tmp_path) == ["identity.pem"]


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    """A damaged identity file is a configuration error that names the file."""
    path = tmp_path / "identity.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"identity\.pem is damaged"):
        load_identity(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """A key that other users can read or write is not used."""
    path = tmp_path / "identity.pem"
    create_identity(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_identity(path)


def test_an_absent_file_and_folder_are_named(tmp_path: Path) -> None:
    """Loading from a place that is not there, or creating below a file, is a configuration error."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_identity(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        create_identity(tmp_path / "file" / "identity.pem")


def test_identity_costs_no_libp2p() -> None:
    """Importing identities does not import py-libp2p (1.9 s and 83 MB on the machine where it was measured)."""
    code = "import sys, fsn.runtime.identity; sys.exit('libp2p' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
