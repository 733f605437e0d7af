"""The kernel's table of connections, as a router that loses its power loses it."""

import socket
import struct
from pathlib import Path
from typing import Final

__all__ = ["flush", "mappings"]

_NETLINK_NETFILTER: Final = 12
_DELETE_ALL: Final = (1 << 8) | 2  # subsystem ctnetlink, IPCTNL_MSG_CT_DELETE
_REQUEST_ACK: Final = 1 | 4


def flush() -> None:
    """`conntrack -F` for the calling thread's namespace, without that program. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.send(struct.pack("=IHHIIBBH", 20, _DELETE_ALL, _REQUEST_ACK, 1, 0, 0, 0, 0))
        (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
    if error:
        raise OSError(-error, "the table of connections could not be emptied")


def mappings() -> list[str]:
    """What the calling thread's namespace keeps track of, a line for each connection."""
    return Path("/proc/thread-self/net/nf_conntrack").read_text().splitlines()
