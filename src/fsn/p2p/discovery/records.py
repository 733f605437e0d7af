"""Peer records: where a peer says that it listens, signed by itself, and the few of them that we keep for others."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from fsn.core.errors import Invalid, ProtocolViolation
from fsn.core.ids import PeerId
from fsn.p2p.wire.discovery_codec import RecordFields, decode_record, encode_record, encode_signed
from fsn.p2p.wire.limits import MAX_ADDRESS_BYTES
from fsn.runtime.identity import Identity, public_key_of, verify

__all__ = ["MAX_RECORD_BYTES", "PeerRecord", "RecordStore", "own_sequence", "read_record", "record_key", "sign_record"]

SIGNED_PREFIX: Final = b"fsn-peer-record-v1"
KEY_PREFIX: Final = b"/fsn/"
ROLES: Final = frozenset({"coordinator", "node"})
MAX_RECORD_BYTES: Final = 4096
MAX_RECORD_ADDRESSES: Final = 16
LIFETIME: Final = timedelta(hours=48)
CLOCK_SKEW: Final = timedelta(minutes=15)
"""By which the clocks of two peers may differ."""


@attrs.frozen
class PeerRecord:
    """Where a peer listens, in its own words; its signature was checked."""

    peer: PeerId
    role: str
    addresses: tuple[str, ...]
    sequence: int
    expires_at: datetime
    raw: bytes = attrs.field(repr=False)
    """As it is passed on."""


def record_key(peer: PeerId) -> bytes:
    """The key that a peer's record lies under."""
    return KEY_PREFIX + peer.encode()


def sign_record(
    identity: Identity, *, network: str, role: str, addresses: Sequence[str], sequence: int, now: datetime
) -> bytes:
    """Our own record, valid for 48 hours."""
    fields = RecordFields(
        peer=identity.peer,
        network=network,
        role=role,
        addresses=tuple(addresses)[:MAX_RECORD_ADDRESSES],
        sequence=sequence,
        issued_at_ms=_milliseconds(now),
        expires_at_ms=_milliseconds(now + LIFETIME),
    )
    payload = encode_record(fields)
    return encode_signed(payload, identity.sign(SIGNED_PREFIX + payload))


def read_record(raw: bytes, *, key: bytes, network: str, now: datetime) -> PeerRecord:
    """The record in `raw`, if it may lie under `key` in this network now. Raises `Invalid` (or `ProtocolViolation`) with what is wrong."""
    if len(raw) > MAX_RECORD_BYTES:
        raise Invalid(f"a record has at most {MAX_RECORD_BYTES} bytes; got {len(raw)}")
    signed = decode_record(raw)
    record = signed.record
    if key != record_key(record.peer):
        raise Invalid(f"the record of {record.peer} lies under the key of another")
    if record.network != network:
        raise Invalid(f"a record of the network {network!r} was wanted; got one of {record.network[:40]!r}")
    if record.role not in ROLES:
        raise Invalid(f"a role is coordinator or node; got {record.role[:40]!r}")
    _check_addresses(record.addresses)
    _check_times(record, _milliseconds(now))
    if not verify(public_key_of(record.peer), SIGNED_PREFIX + signed.payload, signed.signature):
        raise Invalid(f"the signature is not that of {record.peer}")
    # What passed the check of times is a date that Python can say.
    expires_at = now + timedelta(milliseconds=record.expires_at_ms - _milliseconds(now))
    return PeerRecord(record.peer, record.role, record.addresses, record.sequence, expires_at, raw)


def own_sequence(raw: bytes, identity: Identity) -> int | None:
    """The number of a record that is truly ours, whatever else is in it or wrong with it; None of anything else."""
    try:
        signed = decode_record(raw)
    except ProtocolViolation:
        return None
    is_ours = verify(identity.public_key, SIGNED_PREFIX + signed.payload, signed.signature)
    return signed.record.sequence if is_ours else None


def _check_addresses(addresses: tuple[str, ...]) -> None:
    if not 1 <= len(addresses) <= MAX_RECORD_ADDRESSES:
        raise Invalid(f"a record has 1..{MAX_RECORD_ADDRESSES} addresses; got {len(addresses)}")
    for address in addresses:
        if len(address.encode()) > MAX_ADDRESS_BYTES or not address.isprintable() or " " in address:
            raise Invalid(f"an address has at most {MAX_ADDRESS_BYTES} printable bytes; got {address[:40]!a}")


def _check_times(record: RecordFields, now_ms: int) -> None:
    skew_ms = round(CLOCK_SKEW.total_seconds() * 1000)
    if record.issued_at_ms > now_ms + skew_ms:
        raise Invalid(f"the record of {record.peer} comes from the future: is one of the clocks wrong?")
    if record.expires_at_ms <= now_ms:
        raise Invalid(f"the record of {record.peer} has expired")
    if record.expires_at_ms - record.issued_at_ms > LIFETIME.total_seconds() * 1000:
        raise Invalid("a record is valid for at most 48 hours")


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


class RecordStore:
    """Records kept for others: one for each peer, the newest; a bounded number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._records: dict[PeerId, PeerRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: bytes, now: datetime) -> PeerRecord | None:
        """The record under `key`, unless it has expired."""
        found = self._records.get(PeerId(key.removeprefix(KEY_PREFIX).decode(errors="replace")))
        return found if found is not None and found.expires_at > now else None

    def put(self, record: PeerRecord, now: datetime) -> PeerRecord | None:
        """Keep the record unless we have one at least as new; the result is what we have now. None: there is no room for it."""
        known = self._records.get(record.peer)
        if known is not None and known.expires_at > now and known.sequence >= record.sequence:
            return known
        if known is None and len(self._records) >= self._most:
            self._records = {peer: each for peer, each in self._records.items() if each.expires_at > now}
            if len(self._records) >= self._most:
                return None
        self._records[record.peer] = record
        return record
