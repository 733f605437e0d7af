"""A dial as a stranger: a throw-away identity, a connection of its own, hung up as soon as the peer has proved who it is.

Imports py-libp2p: only the door in `libp2p.py` imports this module, when a dial is probed.
"""

from typing import Final

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.security_multistream import SecurityMultistream

from fsn.core.errors import Unreachable
from fsn.core.ids import PeerId
from fsn.core.reachability import DialOutcome, DialResult
from fsn.p2p.transport.addresses import PeerAddress
from fsn.p2p.transport.quic import dial_as_stranger
from fsn.p2p.transport.upgrading import RawStream

__all__ = ["probe_quic", "probe_tcp"]

_DETAIL_CHARACTERS: Final = 150


async def probe_tcp(peer_id: ID, target: PeerAddress, address: str) -> DialResult:
    """How a dial of `target` ends. The caller sets the deadline. Never raises for what the other side does."""
    try:
        stream = await trio.open_tcp_stream(target.host, target.port)
    except OSError as error:
        is_refused = isinstance(error.__cause__ or error, ConnectionRefusedError)
        return DialResult(address, DialOutcome.REFUSED if is_refused else DialOutcome.NO_ANSWER, _words(error))
    try:
        await _stranger().secure_outbound(RawConnection(RawStream(stream), True), peer_id)
    except PeerIDMismatchesPubkey as error:
        return DialResult(address, DialOutcome.WRONG_PEER, _words(error))
    except Exception as error:  # noqa: BLE001 - the door: the other side's bytes decide what py-libp2p raises here
        return DialResult(address, DialOutcome.BROKEN, _words(error))
    finally:
        await trio.aclose_forcefully(stream)
    return DialResult(address, DialOutcome.REACHED)


async def probe_quic(peer: PeerId, target: PeerAddress, address: str) -> DialResult:
    """The same over QUIC. That nothing listens there is not told over UDP: it is no answer."""
    try:
        found = await dial_as_stranger(target)
    except OSError as error:
        return DialResult(address, DialOutcome.NO_ANSWER, _words(error))
    except Unreachable as error:
        return DialResult(address, DialOutcome.BROKEN, _words(error))
    if found != peer:
        return DialResult(address, DialOutcome.WRONG_PEER, f"{found} answers there")
    return DialResult(address, DialOutcome.REACHED)


def _stranger() -> SecurityMultistream:
    """Nobody that the peer has ever met: it cannot take this connection for one that it has."""
    keys = create_new_key_pair()
    return SecurityMultistream({NOISE_ID: NoiseTransport(keys, noise_privkey=create_new_noise_key_pair().private_key)})


def _words(error: Exception) -> str:
    return (str(error) or repr(error))[:_DETAIL_CHARACTERS]
