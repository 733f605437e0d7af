"""The order of a dial, in virtual time: TCP has a head start, QUIC waits for it to fail or to be late."""

from collections.abc import Mapping

import attrs
import pytest
import trio
import trio.testing

from fsn.core.errors import Unreachable
from fsn.p2p.transport.dialling import dial_tcp_first

TCP_1, TCP_2 = "/ip4/192.0.2.1/tcp/1", "/dns/a.org/tcp/2"
QUIC_1, QUIC_2 = "/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/192.0.2.1/udp/2/quic-v1"
HEAD_START = 2.5
SILENT, REFUSED = 10.0, 0.0
"""A dial that nobody answers takes its whole deadline; one that is refused takes no time."""


@attrs.define
class Network:
    """Which addresses answer, after how many seconds; all others fail after theirs."""

    answers: Mapping[str, float]
    failures: Mapping[str, float] = attrs.field(factory=dict)
    begun: dict[str, float] = attrs.field(factory=dict)
    given_up: list[str] = attrs.field(factory=list)

    async def dial(self, address: str) -> None:
        """Stands for a transport's."""
        self.begun[address] = trio.current_time()
        try:
            await trio.sleep(self.answers.get(address, self.failures.get(address, SILENT)))
        except trio.Cancelled:
            self.given_up.append(address)
            raise
        if address not in self.answers:
            raise Unreachable(f"no answer at {address}")


async def winner(network: Network, *addresses: str) -> tuple[str, float]:
    """Which address won, and when."""
    began = trio.current_time()
    found = await dial_tcp_first(addresses, network.dial, quic_after_seconds=HEAD_START)
    return found, trio.current_time() - began


async def test_tcp_is_first_whatever_the_order(autojump_clock: trio.testing.MockClock) -> None:
    """When TCP answers, QUIC is not even tried."""
    network = Network({TCP_1: 0.3, QUIC_1: 0.1})
    assert await winner(network, QUIC_1, TCP_1) == (TCP_1, 0.3)
    assert list(network.begun) == [TCP_1]


async def test_quic_begins_at_once_when_all_of_tcp_refused(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing is waited for that has failed already."""
    network = Network({QUIC_1: 0.1}, failures={TCP_1: REFUSED, TCP_2: 1.0})
    assert await winner(network, TCP_1, TCP_2, QUIC_1) == (QUIC_1, 1.1)


async def test_quic_begins_after_the_head_start_when_tcp_is_silent(autojump_clock: trio.testing.MockClock) -> None:
    """A network that swallows TCP costs the head start, not TCP's deadline; what is left of TCP is given up."""
    network = Network({QUIC_1: 0.1})
    assert await winner(network, TCP_1, TCP_2, QUIC_1) == (QUIC_1, HEAD_START + 0.1)
    assert network.given_up == [TCP_1]


async def test_slow_tcp_may_still_win(autojump_clock: trio.testing.MockClock) -> None:
    """TCP goes on beside QUIC."""
    network = Network({TCP_1: 4.0, QUIC_1: 3.0})
    assert await winner(network, TCP_1, QUIC_1) == (TCP_1, 4.0)
    assert network.given_up == [QUIC_1]


async def test_each_address_gets_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    """The next one of a kind is tried when one fails."""
    network = Network({TCP_2: 0.5}, failures={TCP_1: 1.0})
    assert await winner(network, TCP_1, TCP_2, QUIC_1) == (TCP_2, 1.5)
    network = Network({QUIC_2: 0.5}, failures={QUIC_1: 1.0})
    assert await winner(network, QUIC_1, QUIC_2) == (QUIC_2, 1.5)


async def test_every_reason_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """When nothing answers, the error names each address with its reason; also those that are none."""
    with pytest.raises(Unreachable) as error:
        await winner(Network({}), TCP_1, QUIC_1, "nonsense")
    for address in (TCP_1, QUIC_1, "nonsense"):
        assert f"{address}: no answer at {address}" in str(error.value)
    with pytest.raises(Unreachable, match=r"^$"):
        await winner(Network({}))


async def test_a_bug_in_a_dial_comes_out_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    """No group of errors is made of it."""

    async def buggy(address: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await dial_tcp_first([TCP_1, QUIC_1], buggy, quic_after_seconds=HEAD_START)
