"""Anything a peer may say over QUIC, before and after it has proved itself: it costs that connection at most, and never the daemon."""

from typing import Any

import pytest
import trio
import trio.testing
from aioquic.quic.packet_builder import QuicPacketBuilder
from hypothesis import example, given
from hypothesis import strategies as st

from fsn.core.errors import ProtocolViolation
from fsn.p2p.transport.quic_connection import QuicConnection
from fsn.p2p.transport.quic_identity import Certificate, make_certificate, peer_of
from fsn.runtime.identity import Identity
from tests.p2p.transport.certificates import certificate_with
from tests.p2p.transport.quic_wire import open_connected, open_wire

pytestmark = pytest.mark.fuzz

frames = st.lists(st.tuples(st.integers(0, 0x40), st.binary(max_size=300)), min_size=1, max_size=4)


@given(proof=st.binary(max_size=300))
@example(proof=b"")
@example(proof=b"\x30")
@example(proof=b"\x30\x80")
@example(proof=b"\x30\x84\xff\xff\xff\xff")
@example(proof=b"\x30\x02\x04\x00")
@example(proof=b"\x30\x04\x04\x00\x04\x00")
async def test_no_proof_is_believed_unless_it_is_one(proof: bytes) -> None:
    """Any bytes in the place of libp2p's proof are refused, and nothing else is raised."""
    with pytest.raises(ProtocolViolation):
        peer_of(certificate_with(proof))


@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
async def test_a_changed_proof_is_none(place: int, change: int) -> None:
    """A proof with one byte changed names no other peer: it is refused, or is still that of the same peer."""
    identity = Identity(bytes(32))
    certificate = make_certificate(identity).certificate
    proof = bytearray(certificate.extensions[0].value.value)
    proof[place % len(proof)] ^= change
    with pytest.raises(ProtocolViolation):
        peer_of(certificate_with(bytes(proof)))


def say(connection: QuicConnection, said: list[tuple[int, bytes]]) -> None:
    """Have the engine send these frames, sealed as a peer that has proved itself can."""

    def write(builder: QuicPacketBuilder, *_: Any, **__: Any) -> None:
        for kind, content in said:
            builder.start_frame(kind, capacity=len(content) + 8).push_bytes(content)

    connection.engine._write_ping_frame = write  # type: ignore[method-assign]
    connection.engine.send_ping(1)
    connection.send_now()


@given(said=frames)
@example(said=[(0x06, b"\x00\x40\x01\xff")])  # TLS after the handshake
@example(said=[(0x08, b"\x3f\xff")])
@example(said=[(0x1C, b"\x00\x00\x02\xff\xfe")])  # a reason that is no UTF-8
@example(said=[(0x18, bytes(40))])
@example(said=[(0x05, b"\x00\x00")])
async def test_frames_of_a_proved_peer_end_its_own_connection_at_most(said: list[tuple[int, bytes]]) -> None:
    """Whatever frames it sends, the other end goes on or closes; its driving task raises nothing."""
    async with open_connected() as wire:
        say(wire.client, said)
        await trio.testing.wait_all_tasks_blocked()
        if wire.server.is_open:
            stream = await wire.server.open_stream()
            await stream.send_all(b"x")
        assert not wire.server.is_broken_by_engine


@given(cut=st.integers(0, 1300), place=st.integers(0, 1300), change=st.integers(0, 255), number=st.integers(0, 6))
async def test_a_changed_handshake_proves_nobody_else(cut: int, place: int, change: int, number: int) -> None:
    """One datagram of the handshake is cut or changed: both ends are who they are, or not connected."""
    certificates: list[Certificate] = [make_certificate(Identity.generate()) for _ in range(2)]
    async with open_wire(*certificates) as wire:
        seen = 0

        def spoil(data: bytes) -> bool:
            nonlocal seen
            seen += 1
            if seen - 1 == number:
                spoilt = bytearray(data[: cut or len(data)])
                if place < len(spoilt):
                    spoilt[place] ^= change
                wire.server.on_datagram(bytes(spoilt), ("192.0.2.1", 1))
                wire.server.take_events()
                return False
            return True

        wire.lets_up = spoil
        with trio.move_on_after(0.05):
            await wire.client.wait_established()
            await wire.server.wait_established()
        for connection, other in ((wire.client, certificates[1]), (wire.server, certificates[0])):
            assert connection.peer in ("", peer_of(other.certificate))
