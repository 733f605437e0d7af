"""Certificates that prove nothing, for tests."""

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fsn.p2p.transport.quic_identity import Certificate

_LIBP2P = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")


def _builder(key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "anybody")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
    )


def plain_certificate() -> x509.Certificate:
    """One as anybody has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _builder(key).sign(key, hashes.SHA256())


def certificate_with(proof: bytes) -> x509.Certificate:
    """One with any bytes for a proof."""
    key = ec.generate_private_key(ec.SECP256R1())
    extension = x509.UnrecognizedExtension(_LIBP2P, proof)
    return _builder(key).add_extension(extension, critical=False).sign(key, hashes.SHA256())


def resigned_certificate(stolen: Certificate) -> x509.Certificate:
    """The proof of another peer around a key of one's own."""
    extension = stolen.certificate.extensions.get_extension_for_oid(_LIBP2P).value
    assert isinstance(extension, x509.UnrecognizedExtension)
    return certificate_with(extension.value)
