"""Stock py-libp2p 0.8.1 at the other end: the transport contract as far as stock itself can keep it, we dialling and being dialled."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import pytest

from fsn.p2p.transport.base import Transport
from fsn.runtime.identity import Identity
from tests.p2p.transport.contract import OpenPair, TransportContract
from tests.p2p.transport.pairs import open_ours, open_pair_of
from tests.p2p.transport.stock import StockTransport, open_stock_host

_ANY: Final = {
    "test_a_clean_end_survives_the_close": "stock drops what it has not read when its own sending is refused by a reset",
    "test_a_cancelled_sender_harms_only_its_stream": "stock's reader takes a reset for a clean end",
    "test_a_sender_cancelled_at_any_step_harms_only_its_stream": "the same",
    "test_the_stream_contract_of_trio": "stock does not keep it",
}
LEFT_OUT_WHEN_WE_DIAL: Final = _ANY | {
    "test_closing_without_end_is_a_reset": "stock's reader takes a reset for a clean end, now and then",
    "test_disconnecting_is_seen_by_both": "stock's reader may take the loss of its connection for a clean end",
    "test_a_probe_of_a_peer_that_has_ended_finds_nobody": "stock listens in a system task, which a cancelled host leaves behind",
}
LEFT_OUT_WHEN_STOCK_DIALS: Final = _ANY | {
    "test_a_cancelled_receive_loses_nothing": "B5",
    "test_a_reader_cancelled_at_any_step_loses_nothing": "B5",
    "test_opening_cancelled_at_any_step_leaves_nothing": "B5",
    "test_connecting_cancelled_at_any_step_leaves_the_peer_reachable": "B5, B15",
    "test_a_slow_reader_makes_its_sender_wait": "B7",
    "test_a_reader_that_never_reads_costs_a_few_mebibytes": "B7",
    "test_bulk_both_ways_on_many_streams": "B6",
    "test_many_streams_at_once": "B6",
    "test_the_end_of_a_peer_is_noticed": "stock's reader takes the loss of its connection for a clean end",
    "test_the_end_of_a_peer_cuts_what_is_under_way": "the same",
    "test_a_handler_that_raises_harms_only_its_stream": "stock drops the answer of the negotiation when a reset follows it",
    "test_a_peer_that_comes_back_is_served": "B12",
    "test_a_probe_says_who_answers_and_touches_nothing": "stock has no dial that leaves its connections alone",
    "test_a_probe_of_a_peer_that_has_ended_finds_nobody": "the same",
}


def leaving_out(reasons: Mapping[str, str]) -> Callable[[type[TransportContract]], type[TransportContract]]:
    """A contract class without some of its tests, which must be there."""

    def without(contract: type[TransportContract]) -> type[TransportContract]:
        for name in reasons:
            assert hasattr(TransportContract, name)
            setattr(contract, name, None)
        return contract

    return without


@asynccontextmanager
async def open_stock(identity: Identity) -> AsyncIterator[Transport]:
    """A stock host with our identity."""
    async with open_stock_host(identity.seed) as host:
        yield StockTransport(host)


@leaving_out(LEFT_OUT_WHEN_WE_DIAL)
class TestWeDialStock(TransportContract):
    """a is ours, b is stock."""

    @pytest.fixture
    def open_pair(self) -> OpenPair:
        """Pairs on loopback."""
        return lambda: open_pair_of(open_ours, open_stock)


@leaving_out(LEFT_OUT_WHEN_STOCK_DIALS)
class TestStockDialsUs(TransportContract):
    """a is stock, b is ours."""

    @pytest.fixture
    def open_pair(self) -> OpenPair:
        """Pairs on loopback."""
        return lambda: open_pair_of(open_stock, open_ours)
