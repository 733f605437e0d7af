"""libp2p's proof of identity in TLS: a throw-away certificate that carries the host's public key and its signature.

Source: github.com/libp2p/specs/blob/master/tls/tls.md. Ed25519 peers only: no other kind can be a node or a coordinator.
"""

from datetime import UTC, datetime
from typing import Final

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fsn.core.errors import ProtocolViolation
from fsn.core.ids import PeerId
from fsn.runtime.identity import Identity, peer_id_of, verify

__all__ = ["Certificate", "make_certificate", "peer_of"]

_EXTENSION: Final = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
_SIGNED_PREFIX: Final = b"libp2p-tls-handshake:"
_ED25519_PREFIX: Final = bytes.fromhex("08011220")
"""libp2p's protobuf of a public key: key type Ed25519 (08 01), 32 key bytes (12 20)."""
_SEQUENCE: Final = 0x30
_OCTETS: Final = 0x04
_VALID_FROM: Final = datetime(1975, 1, 1, tzinfo=UTC)
_VALID_UNTIL: Final = datetime(2125, 1, 1, tzinfo=UTC)
"""Valid whatever the clocks say: the certificate is made anew at each start, and what it proves does not age."""


@attrs.frozen
class Certificate:
    """What a TLS engine shows: the certificate and the key that it was made for."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = attrs.field(repr=False)


def make_certificate(identity: Identity) -> Certificate:
    """A fresh certificate that proves `identity`."""
    key = ec.generate_private_key(ec.SECP256R1())
    public_key = _ED25519_PREFIX + identity.public_key
    signature = identity.sign(_SIGNED_PREFIX + _spki(key.public_key()))
    proof = _der(_SEQUENCE, _der(_OCTETS, public_key) + _der(_OCTETS, signature))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "libp2p")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_UNTIL)
        .add_extension(x509.UnrecognizedExtension(_EXTENSION, proof), critical=False)
    )
    return Certificate(builder.sign(key, hashes.SHA256()), key)


def peer_of(certificate: x509.Certificate) -> PeerId:
    """The peer that a certificate proves, once TLS has proved that the other side has its key. Raises `ProtocolViolation`.

    Validity is not looked at: what counts is the signature over the key of this very certificate, and clocks jump.
    """
    try:
        proof = certificate.extensions.get_extension_for_oid(_EXTENSION).value
        certificate.verify_directly_issued_by(certificate)
        spki = _spki(certificate.public_key())
    except (x509.ExtensionNotFound, x509.DuplicateExtension, InvalidSignature, ValueError, TypeError) as error:
        raise ProtocolViolation(f"the peer's certificate is no libp2p certificate: {error!r}") from error
    assert isinstance(proof, x509.UnrecognizedExtension)
    public_key, signature = _parts(proof.value)
    if not public_key.startswith(_ED25519_PREFIX) or len(public_key) != len(_ED25519_PREFIX) + 32:
        raise ProtocolViolation("the peer's certificate holds no Ed25519 key")
    raw = public_key[len(_ED25519_PREFIX) :]
    if not verify(raw, _SIGNED_PREFIX + spki, signature):
        raise ProtocolViolation("the peer's certificate is not signed by the key it holds")
    return peer_id_of(raw)


def _spki(key: object) -> bytes:
    public_bytes = getattr(key, "public_bytes", None)
    if public_bytes is None:
        raise TypeError(f"no public key: {key!r}")
    encoded: bytes = public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = (
        bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else bytes([0x82, *divmod(size, 256)])
    )
    return bytes([tag]) + length + content


def _parts(proof: bytes) -> tuple[bytes, bytes]:
    """The two octet strings in a sequence, and nothing else."""
    content, rest = _content(_SEQUENCE, proof)
    public_key, more = _content(_OCTETS, content)
    signature, nothing = _content(_OCTETS, more)
    if rest or nothing:
        raise ProtocolViolation("the peer's certificate has more in its libp2p extension than belongs there")
    return public_key, signature


def _content(tag: int, data: bytes) -> tuple[bytes, bytes]:
    """What is in the first DER element, which must have this tag, and what comes after it."""
    size, start = (data[1], 2) if len(data) >= 2 else (0, 2)
    if size > 0x80:
        start = 2 + (size & 0x7F)
        size = int.from_bytes(data[2:start], "big")
    if not data or data[0] != tag or size > 0xFFFF or len(data) < start + size:
        raise ProtocolViolation(f"the peer's certificate has a malformed libp2p extension of {len(data)} bytes")
    return data[start : start + size], data[start + size :]
