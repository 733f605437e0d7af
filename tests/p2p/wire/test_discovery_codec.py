"""DHT messages and multiaddresses: golden bytes, both ways, and what a stranger may send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from fsn.core.errors import ProtocolViolation
from fsn.core.ids import PeerId
from fsn.p2p.wire.discovery_codec import (
    MAX_KAD_BYTES,
    KadKind,
    KadMessage,
    KadPeer,
    decode_kad,
    encode_kad,
    peer_bytes,
)
from fsn.p2p.wire.framing import FrameDecoder
from fsn.p2p.wire.multiaddresses import from_bytes, to_bytes
from fsn.runtime.identity import Identity

PEER = Identity(bytes(range(32))).peer
ADDRESSES = [
    "/ip4/192.0.2.7/tcp/4001",
    "/ip6/2001:db8::1/tcp/65535",
    "/ip4/192.0.2.7/udp/4001/quic-v1",
    "/dns4/node.example.org/tcp/4001",
    "/dns/x/udp/1/quic-v1",
    f"/ip4/127.0.0.1/tcp/0/p2p/{PEER}",
]


def payload(frame: bytes) -> bytes:
    (only,) = FrameDecoder(MAX_KAD_BYTES).feed(frame)
    return bytes(only)


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses_are_those_of_multiaddr(text: str) -> None:
    """The library that libp2p uses has the same bytes for them."""
    assert to_bytes(text) == Multiaddr(text).to_bytes()
    assert from_bytes(to_bytes(text)) == text


def test_an_address_without_bytes_travels_as_text() -> None:
    """Those of a memory network, and whatever else nobody has a code for; no code begins like text."""
    for text in (
        f"/memory/{PEER}",
        "/ip4/10.0.0.1/memory/x",
        "/ip4/1.2.3/tcp/1",
        "/ip4/1.2.3.4/tcp/99999",
        "/ip6/1.2.3.4/tcp/1",
    ):
        assert to_bytes(text) == text.encode()
        assert from_bytes(to_bytes(text)) == text


@pytest.mark.parametrize(
    "raw", ["", "04c00002", "0401", "06", "ffffff7f", "3505612f622f63", "350061", "3503ffffff", "a503", "290011"]
)
def test_malformed_addresses_are_none(raw: str) -> None:
    """Cut short, unknown, or with a separator inside a name."""
    assert from_bytes(bytes.fromhex(raw)) is None


@pytest.mark.fuzz
@given(st.binary(max_size=60))
def test_any_bytes_are_an_address_or_none(raw: bytes) -> None:
    """What is one can be written again."""
    if (text := from_bytes(raw)) is not None:
        assert from_bytes(to_bytes(text)) == text


def test_golden_messages() -> None:
    """The field numbers are those of libp2p's kad-dht specification."""
    question = KadMessage(KadKind.GET_VALUE, b"/fsn/k")
    assert encode_kad(question).hex() == "0a" + "0801" + "1206" + b"/fsn/k".hex()
    answer = KadMessage(KadKind.GET_VALUE, b"k", b"v", (KadPeer(PEER, ("/ip4/1.2.3.4/tcp/5",)),))
    raw = "080112016b1a060a016b12017642320a26" + peer_bytes(PEER).hex() + "12080401020304060005"
    assert payload(encode_kad(answer)).hex() == raw
    for message in (question, answer, KadMessage(KadKind.PING), KadMessage(KadKind.PUT_VALUE, b"k", b"")):
        assert decode_kad(payload(encode_kad(message))) == message


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("ff", "DHT message"),
        ("0802", "DHT message"),
        ("0863", "DHT message"),
        ("0801128101" + "6b" * 129, "128 bytes"),
        ("080112016b1a030a0161", "another key"),
    ],
)
def test_what_is_malformed_is_a_violation(raw: str, why: str) -> None:
    """Unknown kinds, too, and kinds of the specification that are not spoken here."""
    with pytest.raises(ProtocolViolation, match=why):
        decode_kad(bytes.fromhex(raw))


def test_too_many_peers_and_addresses_are_passed_over() -> None:
    """Twenty peers of eight addresses are taken of whatever comes; peers without an id are not."""
    many = KadPeer(PEER, tuple(f"/ip4/1.2.3.4/tcp/{n}" for n in range(100)))
    found = decode_kad(payload(encode_kad(KadMessage(KadKind.FIND_NODE, b"k", None, (many,) * 50))))
    assert len(found.closer) == 20
    assert {len(each.addresses) for each in found.closer} == {8}
    assert decode_kad(bytes.fromhex("080442020a004200")).closer == ()


@pytest.mark.fuzz
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_violation(raw: bytes) -> None:
    """Nothing else is raised."""
    try:
        found = decode_kad(raw)
    except ProtocolViolation:
        return
    assert all(isinstance(each.peer, str) for each in found.closer)
    assert PeerId(PEER)
