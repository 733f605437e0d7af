"""Whom a node has met, in a file of its folder: so that it finds the network again when its configured coordinator has moved."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog

from fsn.core.ids import PeerId
from fsn.p2p.wire.messages import Contact
from fsn.runtime.private_files import replace_private_file

__all__ = ["CONTACTS_NAME", "Contacts", "load_contacts", "save_contacts"]

log = structlog.get_logger()

CONTACTS_NAME: Final = "contacts.json"
MOST_COORDINATORS: Final = 16
MOST_NODES: Final = 32
FORGET_AFTER: Final = timedelta(days=60)
"""A coordinator that was not connected for so long is none of ours any more, should it not be the configured one."""


class Peer(msgspec.Struct, frozen=True):
    """A peer and where it listens; `met_at`: when it was connected last."""

    peer_id: str
    addresses: tuple[str, ...]
    met_at: datetime

    @property
    def contact(self) -> Contact:
        """Whom to dial and where."""
        return Contact(PeerId(self.peer_id), self.addresses)


class Contacts(msgspec.Struct, frozen=True):
    """Coordinators, which may store here, and nodes that answer in the DHT, which may not."""

    coordinators: tuple[Peer, ...] = ()
    nodes: tuple[Peer, ...] = ()


def load_contacts(folder: Path, now: datetime) -> Contacts:
    """What was saved, less what is too old. A damaged file is as good as none: it is a memory, and no promise."""
    try:
        found = msgspec.json.decode((folder / CONTACTS_NAME).read_bytes(), type=Contacts)
    except FileNotFoundError:
        return Contacts()
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("contacts_unreadable", reason=str(error))
        return Contacts()
    return Contacts(_fresh(found.coordinators, now)[:MOST_COORDINATORS], _fresh(found.nodes, now)[:MOST_NODES])


def save_contacts(folder: Path, contacts: Contacts) -> None:
    """Replace the file in one step. Raises `ConfigError` when it cannot be written; the old file is whole then."""
    kept = Contacts(contacts.coordinators[:MOST_COORDINATORS], contacts.nodes[:MOST_NODES])
    replace_private_file(folder / CONTACTS_NAME, msgspec.json.encode(kept) + b"\n")


def _fresh(peers: Sequence[Peer], now: datetime) -> tuple[Peer, ...]:
    return tuple(peer for peer in peers if peer.met_at > now - FORGET_AFTER)
