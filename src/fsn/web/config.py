"""What an operator may set about serving HTTP."""

from pathlib import Path

import attrs
from attrs import validators

from fsn.core.errors import ConfigError
from fsn.web.client_address import parse_networks

__all__ = ["HttpConfig", "LimitsConfig"]

_POSITIVE = validators.gt(0.0)


def _check_origins(_: "HttpConfig", attribute: "attrs.Attribute[tuple[str, ...]]", origins: tuple[str, ...]) -> None:
    for origin in origins:
        if origin != "*" and (not origin.startswith(("http://", "https://")) or origin.count("/") != 2):
            raise ValueError(f"{attribute.name} wants origins like https://app.example.org, or *; got {origin!r}")


def _check_networks(_: "HttpConfig", attribute: "attrs.Attribute[tuple[str, ...]]", networks: tuple[str, ...]) -> None:
    try:
        parse_networks(networks)
    except ConfigError as error:
        raise ValueError(f"{attribute.name}: {error.message}") from error


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
    max_connections_per_address: int = attrs.field(default=500, validator=validators.ge(0))
    """Connections at once from one address (IPv6: one /64 network), trusted proxies excepted; more are closed; 0 for no such limit."""
    trusted_proxies: tuple[str, ...] = attrs.field(default=(), validator=_check_networks)
    """Addresses or networks of proxies whose X-Forwarded-For is believed, e.g. `127.0.0.1`; without them all clients of a proxy count
    as one address."""
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

    metrics_token_file: Path | None = None
    """File with a token that `GET /metrics` wants as a bearer token (Prometheus: `authorization: {credentials_file: ...}`); not
    given: it is open to whoever can connect."""

    def __attrs_post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key must be set together")


@attrs.frozen(kw_only=True)
class LimitsConfig:
    """How much one user or address may ask of one coordinator process; what is beyond is refused with 429. 0 for no limit."""

    requests_per_second: float = attrs.field(default=500.0, validator=validators.ge(0.0))
    """Requests of one user, node, or (without valid credentials) address; those of ten seconds may come at once."""
    logins_per_minute: float = attrs.field(default=30.0, validator=validators.ge(0.0))
    """Tries to log in from one address (IPv6: one /64 network); a minute's worth may come at once."""
    failed_logins_per_minute: float = attrs.field(default=10.0, validator=validators.ge(0.0))
    """Failed tries to log in to one account, from wherever; a minute's worth may come at once."""
    registrations_per_hour: float = attrs.field(default=60.0, validator=validators.ge(0.0))
    """New accounts from one address (IPv6: one /64 network); an hour's worth may come at once."""
    uploads_at_once: int = attrs.field(default=32, validator=validators.ge(0))
    """Requests of one user that bring file data at the same time."""
    downloads_at_once: int = attrs.field(default=64, validator=validators.ge(0))
    """Downloads of one user at the same time."""
