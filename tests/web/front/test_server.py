"""Serving by configuration: ports, mistakes in it, and TLS."""

import datetime
import ssl
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from quart import Response
from structlog.testing import capture_logs

from fsn.core.errors import ConfigError
from fsn.web.config import HttpConfig
from fsn.web.quart_front import FrontQuart, current_request
from fsn.web.server import serve_http

MIB = 1024 * 1024


def make_app() -> FrontQuart:
    app = FrontQuart("test")

    @app.put("/take")
    async def take() -> Response:
        total = 0
        async for piece in current_request().body:
            total += len(piece)
        return Response(b"x" * total)

    return app


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Paths of a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    paths[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


async def test_tls_carries_bodies_both_ways(certificate: tuple[Path, Path]) -> None:
    """With a certificate HTTPS is spoken, and a body of many records arrives and returns whole; a plain client is turned away."""
    config = HttpConfig(port=0, tls_certificate=certificate[0], tls_key=certificate[1])
    context = ssl.create_default_context(cafile=str(certificate[0]))
    context.set_alpn_protocols(["h2", "http/1.1"])
    shutdown = trio.Event()
    with trio.fail_after(10), capture_logs():
        async with trio.open_nursery() as nursery:
            port = await nursery.start(
                lambda task_status: serve_http(make_app(), config, shutdown=shutdown, task_status=task_status)
            )
            tcp = await trio.open_tcp_stream("127.0.0.1", port)
            stream = trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True)
            head = b"PUT /take HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (3 * MIB)
            await stream.send_all(head + bytes(3 * MIB))
            received = b"".join([data async for data in stream])
            assert stream.selected_alpn_protocol() == "http/1.1"
            await stream.aclose()
            assert received.endswith(b"\r\n\r\n" + b"x" * (3 * MIB))
            async with await trio.open_tcp_stream("127.0.0.1", port) as plain:
                await plain.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = b"".join([data async for data in plain])
                assert not answer.startswith(b"HTTP")
            shutdown.set()


async def test_a_busy_port_is_a_mistake_in_the_configuration() -> None:
    """Listening where somebody else does says which port, and what to do."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(5), pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use by another program"):
        await serve_http(make_app(), HttpConfig(port=port), shutdown=trio.Event())
    await listeners[0].aclose()


async def test_a_host_that_is_not_here_is_a_mistake() -> None:
    """An address of another machine is told by its key."""
    with trio.fail_after(10), pytest.raises(ConfigError, match=r"http\.host"):
        await serve_http(make_app(), HttpConfig(host="192.0.2.1", port=0), shutdown=trio.Event())


async def test_a_bad_certificate_is_a_mistake(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """A file that is missing or no certificate is told before anything listens."""
    for broken in (tmp_path / "missing.pem", certificate[1]):
        config = HttpConfig(port=0, tls_certificate=broken, tls_key=certificate[1])
        with trio.fail_after(5), pytest.raises(ConfigError, match=r"tls_certificate"):
            await serve_http(make_app(), config, shutdown=trio.Event())


@pytest.mark.parametrize(
    "options",
    [
        {"port": -1},
        {"port": 65536},
        {"max_connections": 0},
        {"idle_timeout_seconds": 0.0},
        {"graceful_timeout_seconds": -1.0},
        {"cors_origins": ("example.org",)},
        {"cors_origins": ("https://example.org/path",)},
        {"tls_certificate": Path("only-one.pem")},
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, object]) -> None:
    """HttpConfig cannot be made with a value that could not work."""
    with pytest.raises(ValueError):
        HttpConfig(**options)  # type: ignore[arg-type]
