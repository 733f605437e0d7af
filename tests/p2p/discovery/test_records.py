"""A peer record is valid only as its peer signed it, under its key, in its network, in its time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.errors import Invalid, ProtocolViolation
from fsn.p2p.discovery.records import SIGNED_PREFIX, RecordStore, read_record, record_key, sign_record
from fsn.p2p.wire.discovery_codec import RecordFields, decode_record, encode_record, encode_signed
from fsn.runtime.identity import Identity

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ME = Identity(bytes(range(32)))
HERE = "/ip4/192.0.2.7/tcp/4001"


def signed(identity: Identity = ME, sequence: int = 1, now: datetime = NOW, network: str = "main") -> bytes:
    """A good record."""
    return sign_record(identity, network=network, role="node", addresses=[HERE], sequence=sequence, now=now)


def forged(**changes: Any) -> bytes:
    """A record with other fields than we would write, rightly signed."""
    fields: RecordFields = attrs.evolve(decode_record(signed()).record, **changes)
    payload = encode_record(fields)
    return encode_signed(payload, ME.sign(SIGNED_PREFIX + payload))


def read(raw: bytes, now: datetime = NOW, identity: Identity = ME) -> Any:
    """As a peer of the network main reads it."""
    return read_record(raw, key=record_key(identity.peer), network="main", now=now)


def test_a_record_says_who_and_where() -> None:
    """For 48 hours."""
    record = read(signed())
    assert (record.peer, record.role, record.addresses, record.sequence) == (ME.peer, "node", (HERE,), 1)
    assert record.expires_at == NOW + timedelta(hours=48)
    assert read(signed(), NOW + timedelta(hours=47)).raw == signed()


def test_the_bytes_of_a_record() -> None:
    """They are the protocol: a change here is a change of it."""
    payload = decode_record(signed()).payload
    peer, addresses = "0a26002408011220" + ME.public_key.hex(), "2217" + HERE.encode().hex()
    times = "28013080e896d68d373880d8c9a88e37"
    assert payload.hex() == f"{peer}12046d61696e1a046e6f6465{addresses}{times}"
    assert ME.sign(SIGNED_PREFIX + payload) == decode_record(signed()).signature
    assert record_key(ME.peer) == b"/fsn/" + ME.peer.encode()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (signed(network="other"), "network"),
        (signed(now=NOW - timedelta(hours=48)), "expired"),
        (signed(now=NOW + timedelta(hours=1)), "future"),
        (forged(expires_at_ms=2**62), "48 hours"),
        (forged(issued_at_ms=-(2**62)), "48 hours"),
        (forged(role="king"), "role"),
        (forged(addresses=()), "addresses"),
        (forged(addresses=(HERE,) * 17), "addresses"),
        (forged(addresses=("/ip4/192.0.2.7/tcp/1 /x",)), "printable"),
        (forged(addresses=("/dns/" + "x" * 300,)), "printable"),
        (forged(peer=Identity(bytes(32)).peer), "key of another"),
        (b"x" * 5000, "4096"),
        (b"\xff\xff", "no signed peer record"),
        (b"", "key of another"),
    ],
)
def test_what_is_wrong_is_refused(raw: bytes, why: str) -> None:
    """With the reason."""
    with pytest.raises((Invalid, ProtocolViolation), match=why):
        read(raw)


def test_nobody_speaks_for_another() -> None:
    """A signature by somebody else, or under somebody else's key, is worth nothing."""
    other = Identity(bytes(32))
    with pytest.raises(Invalid, match="key of another"):
        read(signed(other))
    payload = decode_record(signed()).payload
    with pytest.raises(Invalid, match="signature"):
        read(encode_signed(payload, other.sign(SIGNED_PREFIX + payload)))


@pytest.mark.fuzz
@given(st.integers(0, len(signed()) * 8 - 1))
def test_no_bit_can_be_changed(bit: int) -> None:
    """Whatever is changed of a record, it is refused, and nothing else is raised."""
    raw = bytearray(signed())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Invalid, ProtocolViolation)):
        read(bytes(raw))


@pytest.mark.fuzz
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(raw: bytes) -> None:
    """Strangers may send what they like."""
    with pytest.raises((Invalid, ProtocolViolation)):
        read(raw)


def test_the_newest_record_is_kept() -> None:
    """An older one gets the newer one shown; an expired one is as good as none."""
    store = RecordStore(10)
    new, old = read(signed(sequence=5)), read(signed(sequence=4))
    assert store.put(new, NOW) is new
    assert store.put(old, NOW) is new
    assert store.get(record_key(ME.peer), NOW) is new
    late = NOW + timedelta(hours=49)
    assert store.get(record_key(ME.peer), late) is None
    assert store.put(old, late) is old
    assert store.get(b"\xff", NOW) is None


def test_a_store_has_an_end() -> None:
    """Full, it takes newer records of those that it has, and others once some have expired."""
    store, identities = RecordStore(3), [Identity(bytes([n]) * 32) for n in range(5)]
    records = [read(signed(identity), identity=identity) for identity in identities]
    assert [store.put(record, NOW) for record in records] == [*records[:3], None, None]
    newer = read(signed(identities[0], sequence=2), identity=identities[0])
    assert store.put(newer, NOW) is newer
    assert store.put(records[4], NOW + timedelta(hours=49)) is records[4]
    assert len(store) == 1
