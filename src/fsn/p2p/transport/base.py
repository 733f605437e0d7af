"""The transport contract: who can be dialled and what a stream promises. `libp2p.py` and `memory.py` keep it."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from fsn.core.ids import PeerId
from fsn.core.reachability import DialResult

__all__ = ["Stream", "StreamHandler", "Transport"]


class Stream(trio.abc.HalfCloseableStream):
    """One ordered, reliable, half-closeable byte stream to an authenticated peer.

    Obeys trio's stream contract: `receive_some` returns b"" after the peer's `send_eof`; a broken connection or a reset raises
    `trio.BrokenResourceError` (also where it cut a message short: a cut never looks like a clean end); use after `aclose` raises
    `trio.ClosedResourceError`; two tasks in one direction raise `trio.BusyResourceError`. A cancelled `receive_some` loses nothing.
    A cancelled `send_all` may have sent a part: the stream is good for nothing but `aclose` then, its connection and the other
    streams live on. `aclose` before `send_eof` resets the stream behind what was
    sent: the peer may still read that, then gets `BrokenResourceError`.
    """

    @property
    @abstractmethod
    def peer(self) -> PeerId:
        """Who is at the other end, as the secured connection proved."""

    @property
    @abstractmethod
    def protocol(self) -> str:
        """The protocol id that the stream was opened for."""

    @property
    def is_outdated(self) -> bool:
        """Whether a better connection to the peer exists by now: what comes next had better go over a new stream."""
        return False


StreamHandler = Callable[[Stream], Awaitable[None]]
"""Called in a task of its own for each inbound stream. The stream is closed when it returns; what it raises is logged, never spread."""


class Transport(ABC):
    """One peer's place in the network: it listens, dials, and keeps one connection to each peer it talks to."""

    @property
    @abstractmethod
    def peer(self) -> PeerId:
        """Our own id."""

    @property
    @abstractmethod
    def addresses(self) -> Sequence[str]:
        """Multiaddresses we listen on, ports resolved, e.g. `/ip4/127.0.0.1/tcp/4001`; empty when we do not listen."""

    @abstractmethod
    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Take inbound streams of `protocol`; call it before peers are expected. A second call for the same id replaces the first."""

    @abstractmethod
    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Make sure there is a live connection to `peer`, trying the addresses in order; returns at once when there is one.

        Where a transport has both, TCP addresses are tried before QUIC ones, whatever their order.

        The caller sets the deadline. Raises `core.errors.Unreachable` when no address answers as that peer.
        """

    @abstractmethod
    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        """A new stream over the live connection to `peer`; never dials. The caller sets the deadline.

        Raises `core.errors.Unreachable` without a connection, `core.errors.ProtocolViolation` when the peer does not serve `protocol`.
        """

    @abstractmethod
    def is_connected(self, peer: PeerId) -> bool:
        """Whether a connection to `peer` is believed alive: a silent cut is noticed after 10 s at most, a frozen peer after 13 s."""

    @abstractmethod
    def connected_address(self, peer: PeerId) -> str | None:
        """The remote host address (IP text) that the peer's connection comes from, None without one."""

    def carrier(self, peer: PeerId) -> str | None:
        """Over what new streams to `peer` go: `tcp`, `quic-v1`, `memory`; None without a connection."""
        return None

    def connection_counts(self) -> Mapping[str, int]:
        """How many connections there are now, over what; a peer that changes from one to the other has both for a while."""
        return {}

    @abstractmethod
    def local_address(self, peer: PeerId) -> str | None:
        """The address of ours (IP text) that the peer's connection goes out from; None without one, or if it can do without (QUIC)."""

    @abstractmethod
    async def probe(self, peer: PeerId, address: str) -> DialResult:
        """Dial one address as a stranger, under a throw-away identity, and hang up once `peer` has proved to be there, or not.

        Connections that are there are neither used nor touched. The caller sets the deadline. Raises nothing for what the other side does.
        """

    @abstractmethod
    async def wait_disconnected(self, peer: PeerId) -> None:
        """Return when there is no live connection to `peer` (at once when there is none now)."""

    @abstractmethod
    async def disconnect(self, peer: PeerId) -> None:
        """Close the connection to `peer` and all its streams; harmless when there is none."""
