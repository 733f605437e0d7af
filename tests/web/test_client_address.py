"""Where a request comes from, with and without proxies."""

import pytest

from fsn.core.errors import ConfigError
from fsn.web.client_address import client_address, parse_networks

PROXIES = ("10.0.0.0/8", "2001:db8:ffff::1")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "found"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", "192.0.2.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.9", "198.51.100.9"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.9, 10.0.0.2", "198.51.100.9"),
        ("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.9, unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "198.51.100.9:4711", "198.51.100.9"),
        ("10.0.0.1", "[2001:db8::9]:4711", "2001:db8::9"),
        ("10.0.0.1", "2001:db8::9", "2001:db8::9"),
        ("::ffff:10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("2001:db8:ffff::1", "198.51.100.9", "198.51.100.9"),
        ("2001:db8:ffff::2", "198.51.100.9", "2001:db8:ffff::2"),
        ("<local>", "198.51.100.9", "<local>"),
        ("10.0.0.1", "," * 10_000, "10.0.0.1"),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str, forwarded_for: str, found: str) -> None:
    """X-Forwarded-For counts from a trusted proxy only, and only back to the first address that is no trusted proxy."""
    assert client_address(peer, forwarded_for, parse_networks(PROXIES)) == found


def test_nobody_is_trusted_unless_told() -> None:
    """Without trusted proxies the header means nothing."""
    assert client_address("127.0.0.1", "198.51.100.9", ()) == "127.0.0.1"


@pytest.mark.parametrize("text", ["proxy.example.org", "10.0.0.1/8", "10.0.0.0/33", ""])
def test_networks_that_cannot_be(text: str) -> None:
    """A name, bits beyond the mask or a mask too long is told with what is wanted."""
    with pytest.raises(ConfigError, match=r"10\.0\.0\.0/8 is wanted"):
        parse_networks([text])
