"""What storing costs, in whole micro-credits."""

from typing import Final

from fsn.core.chunking import CHUNK_BYTES, chunk_count
from fsn.core.units import MicroCredits

__all__ = ["PREPAID_DAYS", "daily_cost", "storage_cost"]

PREPAID_DAYS: Final = 30
"""What an upload pays for; then each day is charged."""
SMALLEST_BILLED_CHUNK_BYTES: Final = 4096
"""A tiny chunk costs its node an inode and an index row all the same."""
GB: Final = 10**9


def storage_cost(size_bytes: int, replica_count: int, price_micro_credits: int) -> MicroCredits:
    """Micro-credits for keeping a file for 30 days (720 h), rounded up.

    `price_micro_credits` is for one GB (10^9 bytes), one month and one replica. Each chunk is billed for at least 4096 bytes; an
    empty file has no chunks and costs nothing.
    """
    count = chunk_count(size_bytes)
    if count == 0:
        return MicroCredits(0)
    last = size_bytes - (count - 1) * CHUNK_BYTES
    billed = (count - 1) * CHUNK_BYTES + max(last, SMALLEST_BILLED_CHUNK_BYTES)
    return MicroCredits(-(-billed * replica_count * price_micro_credits // GB))


def daily_cost(monthly_micro_credits: int) -> MicroCredits:
    """Micro-credits for a day of a file whose 30 days cost so much, rounded up."""
    return MicroCredits(-(-monthly_micro_credits // PREPAID_DAYS))
