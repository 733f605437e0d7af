"""The order of a dial: TCP first, QUIC when TCP does not answer."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from fsn.core.errors import Invalid, Unreachable
from fsn.p2p.transport.addresses import TCP, parse_address
from fsn.runtime.groups import sole_error

__all__ = ["dial_tcp_first", "tcp_addresses"]

Dial = Callable[[str], Awaitable[None]]
"""Connects by one address, within a deadline of its own. Raises `Unreachable`."""


async def dial_tcp_first(addresses: Sequence[str], dial: Dial, *, quic_after_seconds: float) -> str:
    """Dial until one address answers, which is the result; then the other attempts are given up.

    TCP addresses come first, one after the other. The others begin after `quic_after_seconds`, or at once when every TCP address has
    failed, and run beside what is left of TCP. Raises `Unreachable` with every reason.
    """
    tcp = tcp_addresses(addresses)
    race = _Race(dial)
    with sole_error():
        async with trio.open_nursery() as nursery:
            race.scope = nursery.cancel_scope
            nursery.start_soon(race.run_tcp, tcp)
            nursery.start_soon(race.run_others, [each for each in addresses if each not in tcp], quic_after_seconds)
    if race.winner is None:
        raise Unreachable("; ".join(f"{address}: {reason}" for address, reason in race.reasons.items()))
    return race.winner


def tcp_addresses(addresses: Sequence[str]) -> list[str]:
    """Those that are TCP's, in their order, each once."""
    return [address for address in dict.fromkeys(addresses) if _is_tcp(address)]


def _is_tcp(address: str) -> bool:
    try:
        return parse_address(address).transport == TCP
    except Invalid:
        return False


class _Race:
    def __init__(self, dial: Dial) -> None:
        self.scope = trio.CancelScope()
        self.winner: str | None = None
        self.reasons: dict[str, str] = {}
        self._dial = dial
        self._tcp_failed = trio.Event()

    async def run_tcp(self, addresses: Sequence[str]) -> None:
        await self._run(addresses)
        self._tcp_failed.set()

    async def run_others(self, addresses: Sequence[str], after_seconds: float) -> None:
        if addresses:
            with trio.move_on_after(after_seconds):
                await self._tcp_failed.wait()
            await self._run(addresses)

    async def _run(self, addresses: Sequence[str]) -> None:
        for address in addresses:
            try:
                await self._dial(address)
            except Unreachable as error:
                self.reasons[address] = str(error)
            else:
                self.winner = self.winner or address
                self.scope.cancel()
                return
