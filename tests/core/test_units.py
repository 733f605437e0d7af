"""Sizes and credits."""

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.errors import Invalid
from fsn.core.units import format_credits, format_size, parse_credits, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1000", 1000),
        ("17B", 17),
        ("10GB", 10 * 10**9),
        ("10 gb", 10 * 10**9),
        (" 1.5TB ", 1_500_000_000_000),
        ("512MiB", 512 * 2**20),
        ("512mib", 512 * 2**20),
        ("0.5KiB", 512),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_reads_a_size(text: str, size_bytes: int) -> None:
    """A size is read exactly, with decimal or binary units in any case."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    ["", "GB", "-1", "10G", "1e3", "10 XB", "10GBGB", "0.5", "1.0001KB", "9223372036854775808", "9EiB", "१०", "1" * 99],
)
def test_refuses_what_is_no_size(text: str) -> None:
    """What is no whole number of bytes is refused with what was found."""
    with pytest.raises(Invalid, match="a size is a"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_249, "1.2 kB"),
        (1_250, "1.3 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_234_567_890, "1.2 GB"),
        (999_999_999_999, "1.0 TB"),
        (5 * 10**21, "5000.0 EB"),
        (-1500, "-1.5 kB"),
    ],
)
def test_writes_a_size(size_bytes: int, text: str) -> None:
    """A size is written with the largest unit that leaves at least one before the point, also after rounding."""
    assert format_size(size_bytes) == text


@given(st.integers(0, 2**63 - 1))
def test_a_written_size_reads_back_within_its_rounding(size_bytes: int) -> None:
    """Reading what was written gives the size again, to one part in twenty."""
    assert abs(parse_size(format_size(min(size_bytes, 9 * 10**18))) - min(size_bytes, 9 * 10**18)) <= size_bytes / 20


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0.00"),
        (12_340_000, "12.34"),
        (5_000, "0.00"),
        (15_000, "0.02"),
        (5_001, "0.01"),
        (-500_000, "-0.50"),
        (-1, "0.00"),
    ],
)
def test_writes_credits(micro: int, text: str) -> None:
    """Credits have two decimals, rounded half to even, and there is no minus zero."""
    assert format_credits(micro) == text


@given(st.integers(-(10**18), 10**18))
def test_credits_are_rounded_as_decimals_are(micro: int) -> None:
    """Integer arithmetic gives what exact decimal arithmetic gives."""
    exact = (Decimal(micro) / 1_000_000).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    assert format_credits(micro) == str(exact).replace("-0.00", "0.00")


@given(st.integers(-(10**15), 10**15))
def test_credits_read_back_exactly(micro: int) -> None:
    """Six decimals hold a micro-credit."""
    sign = "-" if micro < 0 else ""
    assert parse_credits(f"{sign}{abs(micro) // 1_000_000}.{abs(micro) % 1_000_000:06}") == micro


@pytest.mark.parametrize("text", ["", "1.", ".5", "1.0000001", "1,5", "1e3", "--1", "NaN", "٣", "9" * 14])
def test_refuses_what_is_no_amount(text: str) -> None:
    """What is no amount of credits is refused with what was found."""
    with pytest.raises(Invalid, match="an amount of credits"):
        parse_credits(text)
