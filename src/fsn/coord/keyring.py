"""File keys: drawn, wrapped for the catalogue, unwrapped for use."""

from collections.abc import Callable

import attrs

from fsn.coord.catalog import StoredFile
from fsn.coord.secrets import MasterKeys
from fsn.core.errors import NotFound
from fsn.core.ids import FileId
from fsn.core.keys import KEY_BYTES, NONCE_BYTES, FileKey, unwrap_file_key, wrap_file_key

__all__ = ["Keyring", "WrappedKey"]


@attrs.frozen
class WrappedKey:
    """A new file's key, and what the catalogue keeps of it."""

    key: FileKey = attrs.field(repr=False)
    master_key_id: str
    wrapped: bytes = attrs.field(repr=False)
    secret: bytes = attrs.field(repr=False)


@attrs.frozen
class Keyring:
    """Draws, wraps and unwraps file keys under the master keys."""

    masters: MasterKeys
    random_bytes: Callable[[int], bytes]

    def draw(self, file: FileId) -> WrappedKey:
        """A fresh key for `file`."""
        key, secret = FileKey(self.random_bytes(KEY_BYTES)), self.random_bytes(KEY_BYTES)
        wrapped = wrap_file_key(
            key,
            master_key=self.masters[self.masters.current],
            secret=secret,
            file=file,
            key_id=self.masters.current,
            nonce=self.random_bytes(NONCE_BYTES),
        )
        return WrappedKey(key, self.masters.current, wrapped, secret)

    def open(self, file: StoredFile) -> FileKey:
        """The key of a file in the catalogue. Raises NotFound when it was destroyed, Corrupt when it does not open."""
        if file.wrapped_key is None or file.wrap_secret is None:
            raise NotFound("the file was deleted")
        return unwrap_file_key(
            file.wrapped_key,
            master_key=self.masters[file.master_key_id],
            secret=file.wrap_secret,
            file=file.id,
            key_id=file.master_key_id,
        )
