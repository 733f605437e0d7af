"""Messages of the Kademlia DHT and peer records to bytes and back: with `codec.py`, the only importers of protobuf."""

from enum import IntEnum
from functools import lru_cache
from typing import Final

import attrs
import base58
from google.protobuf.message import DecodeError

from fsn.core.errors import ProtocolViolation
from fsn.core.ids import PeerId
from fsn.core.kademlia import BUCKET_PEERS
from fsn.p2p.wire import discovery_pb2 as pb
from fsn.p2p.wire import multiaddresses
from fsn.p2p.wire.framing import encode_frame_header

__all__ = [
    "MAX_KAD_BYTES",
    "KadKind",
    "KadMessage",
    "KadPeer",
    "RecordFields",
    "SignedFields",
    "decode_kad",
    "decode_record",
    "encode_kad",
    "encode_record",
    "encode_signed",
    "peer_bytes",
]

MAX_KAD_BYTES: Final = 65_536
"""Of one message."""
_MAX_KEY_BYTES: Final = 128
_MAX_PEER_ADDRESSES: Final = 8
_MAX_ADDRESS_BYTES: Final = 256
_MAX_PEER_ID_BYTES: Final = 64
_REMEMBERED: Final = 4096
"""Peer ids whose other form is remembered: base58 takes a fifth of a millisecond, and the same peers are named in each answer."""


class KadKind(IntEnum):
    """What is asked; the kinds of the specification that are spoken here."""

    PUT_VALUE = 0
    GET_VALUE = 1
    FIND_NODE = 4
    PING = 5


@attrs.frozen
class KadPeer:
    """A peer and where it is said to listen."""

    peer: PeerId
    addresses: tuple[str, ...]


@attrs.frozen
class KadMessage:
    """A question or an answer: the answer is of the question's kind."""

    kind: KadKind
    key: bytes = b""
    value: bytes | None = None
    """Of the record under `key`."""
    closer: tuple[KadPeer, ...] = ()


@attrs.frozen
class RecordFields:
    """A peer's record as it is signed; times in milliseconds since 1970."""

    peer: PeerId
    network: str
    role: str
    addresses: tuple[str, ...]
    sequence: int
    issued_at_ms: int
    expires_at_ms: int


@attrs.frozen
class SignedFields:
    """What was signed, its meaning, and the signature, which nobody has checked yet."""

    payload: bytes
    signature: bytes
    record: RecordFields


def encode_kad(message: KadMessage) -> bytes:
    """The whole frame."""
    record = pb.KadRecord(key=message.key, value=message.value) if message.value is not None else None
    peers = [
        pb.KadPeer(id=peer_bytes(each.peer), addrs=map(multiaddresses.to_bytes, each.addresses[:_MAX_PEER_ADDRESSES]))
        for each in message.closer
    ]
    raw = pb.KadMessage(type=message.kind, key=message.key, record=record, closer_peers=peers).SerializeToString()
    return encode_frame_header(len(raw)) + raw


def decode_kad(frame: bytes | bytearray | memoryview) -> KadMessage:
    """The message in a frame. Peers and addresses beyond what a peer may name, or that make no sense, are passed over.

    Raises `ProtocolViolation` for bytes that are no message, a kind that is not spoken here, a key of more than 128 bytes, or a record
    under another key than the message's.
    """
    try:
        body = pb.KadMessage.FromString(bytes(frame))
        kind = KadKind(body.type)
    except (DecodeError, ValueError) as error:
        raise ProtocolViolation(f"a DHT message was wanted: {error}") from None
    if len(body.key) > _MAX_KEY_BYTES:
        raise ProtocolViolation(f"a key has at most {_MAX_KEY_BYTES} bytes; got {len(body.key)}")
    has_record = body.HasField("record")
    if has_record and body.record.key != body.key:
        raise ProtocolViolation("the record lies under another key than the message's")
    closer = (_peer(each) for each in body.closer_peers[:BUCKET_PEERS])
    return KadMessage(kind, body.key, body.record.value if has_record else None, tuple(filter(None, closer)))


def _peer(body: pb.KadPeer) -> KadPeer | None:
    if not 1 <= len(body.id) <= _MAX_PEER_ID_BYTES:
        return None
    raw = (each for each in body.addrs[:_MAX_PEER_ADDRESSES] if len(each) <= _MAX_ADDRESS_BYTES)
    return KadPeer(_peer_of(body.id), tuple(filter(None, map(multiaddresses.from_bytes, raw))))


@lru_cache(maxsize=_REMEMBERED)
def peer_bytes(peer: PeerId) -> bytes:
    """A peer id as libp2p's messages carry it. Raises ValueError for text that is not base58."""
    return base58.b58decode(peer)


@lru_cache(maxsize=_REMEMBERED)
def _peer_of(raw: bytes) -> PeerId:
    return PeerId(base58.b58encode(raw).decode())


def encode_record(record: RecordFields) -> bytes:
    """What is signed."""
    return pb.PeerRecord(
        peer_id=peer_bytes(record.peer),
        network=record.network,
        role=record.role,
        addresses=record.addresses,
        sequence=record.sequence,
        issued_at_ms=record.issued_at_ms,
        expires_at_ms=record.expires_at_ms,
    ).SerializeToString(deterministic=True)


def encode_signed(payload: bytes, signature: bytes) -> bytes:
    """What lies under a peer's key."""
    return pb.SignedRecord(payload=payload, signature=signature).SerializeToString(deterministic=True)


def decode_record(raw: bytes) -> SignedFields:
    """What lies under a peer's key. Raises `ProtocolViolation` for anything else; nothing is judged."""
    try:
        signed = pb.SignedRecord.FromString(raw)
        body = pb.PeerRecord.FromString(signed.payload)
    except DecodeError:
        raise ProtocolViolation(f"{len(raw)} bytes are no signed peer record") from None
    record = RecordFields(
        peer=_peer_of(body.peer_id[:_MAX_PEER_ID_BYTES]),
        network=body.network,
        role=body.role,
        addresses=tuple(body.addresses),
        sequence=body.sequence,
        issued_at_ms=body.issued_at_ms,
        expires_at_ms=body.expires_at_ms,
    )
    return SignedFields(signed.payload, signed.signature, record)
