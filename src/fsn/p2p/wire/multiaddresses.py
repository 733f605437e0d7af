"""Multiaddresses between text and the bytes that libp2p's messages carry: the few protocols that we dial, and nothing else."""

import ipaddress
from typing import Final

import base58

from fsn.p2p.wire.framing import encode_varint

__all__ = ["from_bytes", "to_bytes"]

_CODES: Final = {
    "ip4": 4, "tcp": 6, "ip6": 41, "dns": 53, "dns4": 54, "dns6": 55, "udp": 273, "p2p": 421, "quic-v1": 461,
}  # fmt: skip
"""The multicodec table."""
_NAMES: Final = {code: name for name, code in _CODES.items()}
_FIXED_BYTES: Final = {"ip4": 4, "ip6": 16, "tcp": 2, "udp": 2, "quic-v1": 0}
_TEXT: Final = ord("/")


def to_bytes(text: str) -> bytes:
    """The bytes of an address; of one that no code stands for (those of a memory network), its own text, which no code begins like."""
    parts, encoded = text.removeprefix("/").split("/"), b""
    try:
        while parts:
            name = parts.pop(0)
            encoded += encode_varint(_CODES[name]) + (_value(name, parts.pop(0)) if name != "quic-v1" else b"")
    except (KeyError, IndexError, ValueError, OverflowError):
        return text.encode()
    return encoded


def from_bytes(raw: bytes) -> str | None:
    """The text of an address; None for one that we cannot dial anyway, or that is malformed."""
    try:
        return raw.decode() if raw[:1] == b"/" else _text(raw)
    except (KeyError, IndexError, ValueError):
        return None


def _value(name: str, text: str) -> bytes:
    if name in ("ip4", "ip6"):
        ip = ipaddress.ip_address(text)
        if f"ip{ip.version}" != name:
            raise ValueError(text)
        return ip.packed
    if name in ("tcp", "udp"):
        return int(text).to_bytes(2, "big")
    raw = base58.b58decode(text) if name == "p2p" else text.encode()
    return encode_varint(len(raw)) + raw


def _text(raw: bytes) -> str:
    text, at = "", 0
    while at < len(raw):
        code, at = _varint(raw, at)
        name = _NAMES[code]
        size, at = (_FIXED_BYTES[name], at) if name in _FIXED_BYTES else _varint(raw, at)
        value, at = raw[at : at + size], at + size
        if at > len(raw):
            raise ValueError("cut short")
        text += f"/{name}" + (f"/{_value_text(name, value)}" if name != "quic-v1" else "")
    if not text:
        raise ValueError("nothing")
    return text


def _value_text(name: str, value: bytes) -> str:
    if name in ("ip4", "ip6"):
        return str(ipaddress.ip_address(value))
    if name in ("tcp", "udp"):
        return str(int.from_bytes(value, "big"))
    text = base58.b58encode(value).decode() if name == "p2p" else value.decode()
    if not text or "/" in text:
        raise ValueError(text)
    return text


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in (0, 7, 14):
        number |= (raw[at] & 0x7F) << shift
        at += 1
        if raw[at - 1] < 0x80:
            return number, at
    raise ValueError("a number of more than three bytes")
