"""Bearer tokens in requests."""

from fsn.core.errors import Unauthorized

__all__ = ["bearer"]


def bearer(header: str, otherwise: str = "log in") -> str:
    """The token in an Authorization header. Raises Unauthorized (`token_missing`), which says what else to do."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized(f"a header `Authorization: Bearer <token>` is wanted: {otherwise}", code="token_missing")
    return token.strip()
