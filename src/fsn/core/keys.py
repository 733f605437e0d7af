"""Keys at rest: a file's key, wrapped under the coordinator's master key and a secret that dies with the file."""

from typing import Final, NewType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fsn.core.errors import Corrupt
from fsn.core.ids import FileId

__all__ = ["KEY_BYTES", "NONCE_BYTES", "WRAPPED_BYTES", "FileKey", "master_key_id", "unwrap_file_key", "wrap_file_key"]

FileKey = NewType("FileKey", bytes)
"""32 random bytes, one key per file; every replica's key and the chunk fingerprints' key are derived from it."""

KEY_BYTES: Final = 32
"""Of a file key, a master key and a file's wrapping secret."""

NONCE_BYTES: Final = 12

WRAPPED_BYTES: Final = NONCE_BYTES + KEY_BYTES + 16
"""A wrapped key: the nonce, the encrypted file key, the GCM tag: 60 bytes."""

_WRAP: Final = b"fsn-wrap-v1"
_KEY_ID: Final = b"fsn-key-id-v1"


def wrap_file_key(
    file_key: FileKey, *, master_key: bytes, secret: bytes, file: FileId, key_id: str, nonce: bytes
) -> bytes:
    """`file_key` as it may stand in the database: 60 bytes, nonce | encrypted key | tag.

    AES-256-GCM under HKDF-SHA256(master key, salt = `secret`, info "fsn-wrap-v1"), associated data "fsn-wrap-v1" |
    file id (16 bytes) | key id (UTF-8). `secret` is 32 random bytes in the file's row and nowhere else: destroy it,
    and the wrapped key is worthless. `key_id` names the master key (see `master_key_id`). `nonce` is 12 random bytes,
    new for each call. Raises ValueError when a key, the secret or the nonce has another length.
    """
    _expect("a file key", file_key, KEY_BYTES)
    _expect("a nonce", nonce, NONCE_BYTES)
    return nonce + _cipher(master_key, secret).encrypt(nonce, file_key, _associated_data(file, key_id))


def unwrap_file_key(wrapped: bytes, *, master_key: bytes, secret: bytes, file: FileId, key_id: str) -> FileKey:
    """The file key that `wrap_file_key` wrapped with these very arguments.

    Raises `Corrupt` when the tag fails (another master key, secret, file or key id, or damaged bytes) or the length is
    wrong; ValueError when the master key or the secret has another length than 32.
    """
    cipher = _cipher(master_key, secret)
    if len(wrapped) != WRAPPED_BYTES:
        raise Corrupt(f"the wrapped key of file {file} must have {WRAPPED_BYTES} bytes; got {len(wrapped)}")
    try:
        key = cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _associated_data(file, key_id))
    except InvalidTag:
        raise Corrupt(
            f"the wrapped key of file {file} does not open with master key {key_id}: its tag is wrong"
        ) from None
    return FileKey(key)


def master_key_id(master_key: bytes) -> str:
    """A public name for a master key, 16 hex digits: which key a row was wrapped under, told without telling the key.

    The first 8 bytes of HKDF-SHA256(master key, no salt, "fsn-key-id-v1"). Raises ValueError when the key is not 32
    bytes long.
    """
    _expect("a master key", master_key, KEY_BYTES)
    return HKDF(algorithm=SHA256(), length=8, salt=None, info=_KEY_ID).derive(master_key).hex()


def _cipher(master_key: bytes, secret: bytes) -> AESGCM:
    _expect("a master key", master_key, KEY_BYTES)
    _expect("a wrapping secret", secret, KEY_BYTES)
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=secret, info=_WRAP).derive(master_key))


def _associated_data(file: FileId, key_id: str) -> bytes:
    return _WRAP + file.bytes + key_id.encode()


def _expect(what: str, value: bytes, size_bytes: int) -> None:
    if len(value) != size_bytes:
        raise ValueError(f"{what} has {size_bytes} bytes; got {len(value)}")
