"""Cursors of paged lists: opaque to clients, the last item's sort key inside."""

import base64
import binascii
from typing import Annotated, TypeVar

import msgspec

from fsn.core.errors import Invalid
from fsn.web.operations import RequestModel

__all__ = ["Page", "decode_cursor", "encode_cursor"]

T = TypeVar("T")


class Page(RequestModel, frozen=True, kw_only=True):
    """Which part of a list is wanted."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000, description="items a page")] = 100
    cursor: Annotated[str, msgspec.Meta(max_length=500, description="next_cursor of the page before")] | None = None


def encode_cursor(key: object) -> str:
    """A cursor that holds `key`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode_cursor(cursor: str | None, kind: type[T]) -> T | None:
    """What `encode_cursor` put in, None for no cursor. Raises Invalid for anything else."""
    if cursor is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=kind)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise Invalid("the cursor is not one that this list gave") from error
