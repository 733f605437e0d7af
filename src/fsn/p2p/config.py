"""Settings of the peer-to-peer side: where we listen, what we tell others, how much may be under way."""

import ipaddress
import re
from typing import Final

import attrs

from fsn.core.errors import ConfigError
from fsn.p2p.transport.addresses import is_peer_address

__all__ = ["P2pConfig"]

_NETWORK: Final = re.compile(r"[a-z0-9-]{1,32}")


@attrs.frozen
class P2pConfig:
    """How this peer listens and dials. Raises `ConfigError`, naming every wrong field at once, when it cannot be used."""

    listen_host: str = "0.0.0.0"  # noqa: S104 - peers come from everywhere; who may do what is judged by the proved peer id
    """The IP address to listen on; 0.0.0.0 is every IPv4 interface, :: every interface."""
    tcp_port: int = 4001
    """The TCP port to listen on; 0 takes any free one."""
    quic: bool = True
    """Whether QUIC is spoken beside TCP, for networks where TCP does not get through. Needs UDP."""
    quic_port: int | None = None
    """The UDP port for QUIC; not given: the number of the TCP port when it is free for UDP, else any free one. 0 takes any free one."""
    announce: tuple[str, ...] = ()
    """Multiaddresses told to others in place of those we listen on, e.g. `/dns4/a.org/tcp/4001` and `/dns4/a.org/udp/4001/quic-v1`."""
    network: str = "main"
    """The network's name, the same in all its coordinators and nodes: peers of other networks are not found, nor do they find us."""
    max_peers: int = 1000
    """Peers wanted at most. Twice as many connections are accepted, for a peer may reconnect before its old one is given up."""
    dial_timeout_seconds: float = 10.0
    """Time for one address to answer, be secured and prove its peer id, before the next one is tried."""
    quic_after_seconds: float = 2.5
    """The head start that TCP has over QUIC in a dial; QUIC begins at once when all TCP addresses have refused."""
    tcp_again_seconds: float = 180.0
    """While a peer that we dialled is connected by QUIC only: how often TCP is tried again."""

    def __attrs_post_init__(self) -> None:
        mistakes = [mistake for mistake in self._mistakes() if mistake]
        if mistakes:
            raise ConfigError("; ".join(mistakes))

    def _mistakes(self) -> list[str]:
        return [
            ""
            if _NETWORK.fullmatch(self.network)
            else f"network must be 1..32 of a-z, 0-9 and -; got {self.network!r}",
            "" if _is_ip(self.listen_host) else f"listen_host must be an IP address; got {self.listen_host!r}",
            "" if 0 <= self.tcp_port <= 65535 else f"tcp_port must be 0..65535; got {self.tcp_port}",
            "" if 0 <= (self.quic_port or 0) <= 65535 else f"quic_port must be 0..65535; got {self.quic_port}",
            *(
                f"announce must hold TCP or QUIC multiaddresses; got {text!r}"
                for text in self.announce
                if not is_peer_address(text)
            ),
            *(
                f"{name} must be above 0; got {getattr(self, name)}"
                for name in ("max_peers", "dial_timeout_seconds", "quic_after_seconds", "tcp_again_seconds")
                if getattr(self, name) <= 0
            ),
        ]


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
