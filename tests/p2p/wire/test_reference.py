"""The reference page says what the code does."""

from pathlib import Path

import pytest

from fsn.core.merkle import LEAF_BYTES
from fsn.core.proofs import MAX_DIFFICULTY
from fsn.core.sealing import MAX_SEALED_BYTES
from fsn.p2p.wire import limits
from fsn.p2p.wire.framing import MAX_FRAME_BYTES
from fsn.p2p.wire.messages import PROTOCOL_OF, RefusalCode, Standing

PAGE = (Path(__file__).parents[3] / "docs/reference/wire.md").read_text()
NUMBERS = {
    "frame": MAX_FRAME_BYTES,
    "sealed bytes": MAX_SEALED_BYTES,
    "deletions": limits.MAX_DELETIONS,
    "error": limits.MAX_ERROR_BYTES,
    "refusal": limits.MAX_REFUSAL_BYTES,
    "dials": limits.MAX_DIALS,
    "detail": limits.MAX_DETAIL_BYTES,
    "addresses": limits.MAX_ADDRESSES,
    "address": limits.MAX_ADDRESS_BYTES,
    "coordinators": limits.MAX_COORDINATORS,
    "peer id": limits.MAX_PEER_ID_BYTES,
    "record": limits.MAX_RECORD_BYTES,
    "openings": MAX_DIFFICULTY,
    "leaf": LEAF_BYTES,
    "path": limits.MAX_PATH,
    "reason": limits.MAX_REASON_BYTES,
    "declared": limits.MAX_DECLARED_BYTES,
    "version": limits.MAX_VERSION_BYTES,
    "first bytes": limits.MAX_FIRST_BYTES,
    "sums": limits.MAX_SUMS,
    "prefixes": limits.MAX_PREFIXES,
    "replicas in a page": limits.MAX_LISTED,
    "bytes of a replica": limits.MAX_HELD_BYTES,
    "losses": limits.MAX_LOSSES,
}


@pytest.mark.parametrize("code", RefusalCode)
def test_every_refusal_is_on_the_page(code: RefusalCode) -> None:
    """A refusal without a meaning on the page is not documented."""
    assert f"| `{code}` |" in PAGE


@pytest.mark.parametrize("standing", Standing)
def test_every_standing_is_on_the_page(standing: Standing) -> None:
    """A standing without a meaning on the page is not documented."""
    assert f"| `{standing}` |" in PAGE


@pytest.mark.parametrize("protocol", PROTOCOL_OF.values())
def test_every_protocol_is_on_the_page(protocol: str) -> None:
    """A protocol id that is spoken is listed."""
    assert f"| `{protocol}` |" in PAGE


@pytest.mark.parametrize("name", NUMBERS)
def test_every_limit_is_on_the_page(name: str) -> None:
    """The limits on the page are those in force."""
    assert f"{NUMBERS[name]:,}" in PAGE
