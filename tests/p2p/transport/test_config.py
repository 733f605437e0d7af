"""Settings and addresses: what is understood, and that every mistake is named."""

import pytest

from fsn.core.errors import ConfigError, Invalid
from fsn.core.ids import PeerId
from fsn.p2p.config import P2pConfig
from fsn.p2p.transport.addresses import QUIC, TCP, PeerAddress, format_address, parse_address, parse_tcp_address


def test_the_defaults_are_valid() -> None:
    """A peer without any settings listens on TCP 4001 of every interface, and on the same UDP port."""
    config = P2pConfig()
    assert (config.listen_host, config.tcp_port, config.quic, config.quic_port) == ("0.0.0.0", 4001, True, None)


def test_every_mistake_is_named_at_once() -> None:
    """One error names all fields that are wrong."""
    with pytest.raises(ConfigError) as error:
        P2pConfig(
            listen_host="example.org",
            tcp_port=70000,
            quic_port=-1,
            announce=("/ip4/1.2.3.4/tcp/1/ws",),
            max_peers=0,
            quic_after_seconds=0,
        )
    for word in ("listen_host", "tcp_port", "quic_port must be", "announce", "max_peers", "quic_after_seconds"):
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/ip4/192.0.2.1/tcp/4001", PeerAddress("192.0.2.1", 4001)),
        ("/ip6/2001:db8::1/tcp/1", PeerAddress("2001:db8::1", 1)),
        ("/dns4/example.org/tcp/4001/p2p/12D3KooX", PeerAddress("example.org", 4001, PeerId("12D3KooX"))),
        ("/ip4/192.0.2.1/udp/4001/quic-v1", PeerAddress("192.0.2.1", 4001, None, QUIC)),
        ("/dns/a.org/udp/1/quic-v1/p2p/12D3KooX", PeerAddress("a.org", 1, PeerId("12D3KooX"), QUIC)),
    ],
)
def test_addresses_are_understood(text: str, address: PeerAddress) -> None:
    """Host, port, peer and transport are read from a multiaddress."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ip4/192.0.2.1/tcp/1",
        "//ip4/192.0.2.1/tcp/1",
        "/ip4/192.0.2.1/udp/1",
        "/ip4/192.0.2.1/udp/1/quic",
        "/ip4/192.0.2.1/udp/1/quic-v1/webtransport",
        "/ip4/192.0.2.1/udp/1/quic-v1/p2p/",
        "/ip4/192.0.2.1/tcp/1/ws",
        "/ip4/192.0.2.1/tcp/1/p2p/",
        "/ip4/192.0.2.1/tcp/1/p2p/X/p2p-circuit",
        "/ip4/192.0.2.1/tcp/65536",
        "/ip4/192.0.2.1/tcp/0000099999",
        "/ip4/192.0.2.1/tcp/-1",
        "/ip4/::1/tcp/1",
        "/ip6/192.0.2.1/tcp/1",
        "/dns//tcp/1",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    """Other transports and malformed text are no addresses of ours."""
    with pytest.raises(Invalid):
        parse_address(text)


def test_a_quic_address_is_no_tcp_address() -> None:
    """Where only TCP will do, QUIC is refused."""
    with pytest.raises(Invalid, match="a TCP address"):
        parse_tcp_address("/ip4/192.0.2.1/udp/1/quic-v1")


@pytest.mark.parametrize("transport", [TCP, QUIC])
def test_addresses_are_written_as_they_are_read(transport: str) -> None:
    """Formatting and parsing agree for both IP versions."""
    for host in ("192.0.2.1", "2001:db8::1"):
        assert parse_address(format_address(host, 4001, transport)) == PeerAddress(host, 4001, None, transport)
