"""Who we are: an Ed25519 key, the peer id that follows from it, and the file it is kept in."""

import secrets
from pathlib import Path
from typing import Final

import attrs
import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from fsn.core.errors import ConfigError, Invalid
from fsn.core.ids import PeerId
from fsn.runtime.private_files import create_private_file, read_private_file

__all__ = [
    "Identity",
    "create_identity",
    "load_identity",
    "load_or_create_identity",
    "peer_id_of",
    "public_key_of",
    "verify",
]

_MULTIHASH_PREFIX: Final = bytes.fromhex("002408011220")
"""libp2p peer-id specification: identity multihash (00), 36 bytes (24), protobuf key type Ed25519 (08 01), 32 key bytes (12 20)."""


@attrs.frozen
class Identity:
    """An Ed25519 key pair, made of a 32-byte seed. The seed is a secret: it is in no repr and belongs in no log."""

    seed: bytes = attrs.field(repr=False, validator=[attrs.validators.min_len(32), attrs.validators.max_len(32)])
    _key: Ed25519PrivateKey = attrs.field(init=False, repr=False, eq=False)
    public_key: bytes = attrs.field(init=False, repr=False, eq=False)
    peer: PeerId = attrs.field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "public_key", key.public_key().public_bytes_raw())
        object.__setattr__(self, "peer", peer_id_of(self.public_key))

    @classmethod
    def generate(cls) -> "Identity":
        """A new identity from the operating system's random source, kept nowhere."""
        return cls(secrets.token_bytes(32))

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `data`; deterministic."""
        return self._key.sign(data)


def peer_id_of(public_key: bytes) -> PeerId:
    """The libp2p peer id of a 32-byte Ed25519 public key: base58btc of its identity multihash."""
    if len(public_key) != 32:
        raise Invalid(f"an Ed25519 public key has 32 bytes; got {len(public_key)}")
    return PeerId(base58.b58encode(_MULTIHASH_PREFIX + public_key).decode("ascii"))


def public_key_of(peer: PeerId) -> bytes:
    """The 32-byte public key inside an Ed25519 peer id. Raises `Invalid` for anything else."""
    try:
        raw = base58.b58decode(peer)
    except ValueError as error:
        raise Invalid(f"a peer id is base58 text; got {peer!r}") from error
    if len(raw) != 38 or not raw.startswith(_MULTIHASH_PREFIX):
        raise Invalid(f"a peer id must be that of an Ed25519 key (12D3KooW...); got {peer!r}")
    return raw[len(_MULTIHASH_PREFIX) :]


def verify(public_key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether `signature` is that key's Ed25519 signature of `data`; False, too, for a malformed key or signature."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def load_or_create_identity(path: Path) -> Identity:
    """The identity kept at `path`, made first when there is none. Raises `ConfigError` like the two below."""
    return load_identity(path) if path.exists() else create_identity(path)


def load_identity(path: Path) -> Identity:
    """The identity kept at `path` (PKCS #8 PEM, as `create_identity` and `openssl genpkey -algorithm ed25519` write it).

    Raises `ConfigError` when the file is absent, damaged, holds another kind of key, or can be read by other users.
    """
    try:
        pem = read_private_file(path)
    except FileNotFoundError as error:
        raise ConfigError(f"the identity file {path} cannot be read: there is no such file") from error
    return Identity(_seed_from_pem(pem, path))


def create_identity(path: Path, identity: Identity | None = None) -> Identity:
    """Make a new identity (or take the one given) and keep it at `path`, mode 0600. When this returns it survives a power cut.

    Never replaces a file: losing an identity loses everything that was registered under it. Raises `ConfigError` when there is
    one already or the folder cannot be written; the file is then as it was, or absent, never half there.
    """
    identity = identity or Identity.generate()
    pem = identity._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        create_private_file(path, pem)
    except FileExistsError as error:
        raise ConfigError(f"there is an identity at {path} already; it is not replaced") from error
    return identity


def _seed_from_pem(pem: bytes, path: Path) -> bytes:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the identity file {path} is damaged: an Ed25519 key in PEM was wanted") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"the identity file {path} must hold an Ed25519 key; found {type(key).__name__}")
    return key.private_bytes_raw()
