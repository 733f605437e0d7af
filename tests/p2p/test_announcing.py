"""What we tell others about where we listen: only what they can use, and nothing that they made us say."""

import pytest

from fsn.p2p.announcing import announced_addresses, quic_port_of, tcp_port_of
from fsn.p2p.transport.addresses import is_peer_address

ALL_IPV4, ALL_IPV6 = "/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4002"
QUIC_IPV4 = "/ip4/0.0.0.0/udp/4003/quic-v1"


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("192.0.2.7", "/ip4/192.0.2.7/tcp/4001"),
        ("192.0.2.7:8080", "/ip4/192.0.2.7/tcp/4001"),
        ("example.org", "/dns/example.org/tcp/4001"),
        ("Example.org:443", "/dns/Example.org/tcp/4001"),
        ("my_coordinator:8080", "/dns/my_coordinator/tcp/4001"),
        ("localhost:8080", "/dns/localhost/tcp/4001"),
        ("[2001:db8::1]:8080", "/ip6/2001:db8::1/tcp/4001"),
        ("[::1]", "/ip6/::1/tcp/4001"),
    ],
)
def test_every_interface_becomes_the_name_we_were_reached_under(host: str, told: str) -> None:
    """An address nobody can dial is replaced by the host that the asker used, with our port."""
    assert announced_addresses([ALL_IPV4], host) == (told,)
    assert is_peer_address(told)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":8080",
        "a/tcp/1",
        "[a/tcp/1/p2p/x]",
        "[::1",
        "[]",
        "[example.org]:1",
        "exa mple",
        "exämple.org",
        "a\n",
        "...",
    ],
)
def test_a_host_that_cannot_be_one_is_left_out(host: str) -> None:
    """A forged Host header puts nothing into our addresses."""
    assert announced_addresses([ALL_IPV4, ALL_IPV6], host) == ()


def test_addresses_that_can_be_dialled_stay_as_they_are() -> None:
    """In their order; also those that are no TCP addresses of ours to judge."""
    listening = ["/ip4/192.0.2.1/tcp/1", "/memory/p", "/dns4/example.org/tcp/2", "/ip4/127.0.0.1/tcp/3/p2p/12D3KooW"]
    assert announced_addresses(listening, "elsewhere.org") == tuple(listening)


def test_each_interface_is_judged_by_itself() -> None:
    """IPv4 and IPv6 wildcards are replaced, what stands between them is kept."""
    found = announced_addresses([ALL_IPV4, "/ip4/192.0.2.1/tcp/9", ALL_IPV6], "example.org")
    assert found == ("/dns/example.org/tcp/4001", "/ip4/192.0.2.1/tcp/9", "/dns/example.org/tcp/4002")


def test_quic_is_announced_like_tcp() -> None:
    """Every interface becomes the name, and the rest of the address stays."""
    assert announced_addresses([ALL_IPV4, QUIC_IPV4], "example.org") == (
        "/dns/example.org/tcp/4001",
        "/dns/example.org/udp/4003/quic-v1",
    )


def test_the_port_is_that_of_the_first_tcp_address() -> None:
    """Transports without ports have none."""
    assert tcp_port_of(["/memory/p", "/dns4/a.org/tcp/5", ALL_IPV4]) == 5
    assert tcp_port_of(["/memory/p"]) is None
    assert tcp_port_of([]) is None
    assert tcp_port_of([QUIC_IPV4, ALL_IPV4]) == 4001
    assert quic_port_of([ALL_IPV4, QUIC_IPV4]) == 4003
    assert quic_port_of([ALL_IPV4]) is None
