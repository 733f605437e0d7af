"""What an operator may set about serving HTTP."""

from pathlib import Path

import attrs
from attrs import validators

__all__ = ["HttpConfig"]

_POSITIVE = validators.gt(0.0)


def _check_origins(_: "HttpConfig", attribute: "attrs.Attribute[tuple[str, ...]]", origins: tuple[str, ...]) -> None:
    for origin in origins:
        if origin != "*" and (not origin.startswith(("http://", "https://")) or origin.count("/") != 2):
            raise ValueError(f"{attribute.name} wants origins like https://app.example.org, or *; got {origin!r}")


@attrs.frozen(kw_only=True)
class HttpConfig:
    """Where HTTP is served and how much one client may take. Constructing it raises ValueError for a value out of range."""

    host: str = "127.0.0.1"
    """Address or name to listen on; `0.0.0.0` or `::` for every interface."""
    port: int = attrs.field(default=8080, validator=[validators.ge(0), validators.le(65535)])
    """TCP port; 0 takes any free one, which is printed and written to ports.json."""
    cors_origins: tuple[str, ...] = attrs.field(default=(), validator=_check_origins)
    """Origins whose pages may call the API from a browser, e.g. `https://app.example.org`; `*` for all; empty for none."""
    max_connections: int = attrs.field(default=1000, validator=validators.ge(1))
    """Connections at once; more wait in the kernel's backlog. Keep it below the limit of open files."""
    idle_timeout_seconds: float = attrs.field(default=30.0, validator=_POSITIVE)
    """How long a connection may stay without a request, and how long the head of a request may take to arrive."""
    body_timeout_seconds: float = attrs.field(default=30.0, validator=_POSITIVE)
    """How long a client that owes body bytes may send none while we are ready for them."""
    min_upload_bytes_per_second: float = attrs.field(default=1024.0, validator=validators.ge(0.0))
    """Least average rate of an upload, counted over the time spent waiting for it, after the first thirty seconds; 0 for no limit."""
    write_timeout_seconds: float = attrs.field(default=30.0, validator=_POSITIVE)
    """How long a client may take nothing of a response before it is cut off."""
    graceful_timeout_seconds: float = attrs.field(default=30.0, validator=validators.ge(0.0))
    """How long requests in flight may go on after a stop was asked for."""
    tls_certificate: Path | None = None
    """PEM file with the certificate chain; together with `tls_key` it makes the server speak HTTPS only."""
    tls_key: Path | None = None
    """PEM file with the private key, without a passphrase."""

    def __attrs_post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key must be set together")
