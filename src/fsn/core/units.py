"""Sizes and credits: as people write them, as exact integers, and back."""

import re
from decimal import Decimal
from typing import Final, NewType

from fsn.core.errors import Invalid

__all__ = [
    "MAX_SIZE_BYTES",
    "MICRO",
    "MicroCredits",
    "format_credits",
    "format_duration",
    "format_size",
    "parse_credits",
    "parse_size",
]

MicroCredits = NewType("MicroCredits", int)
"""Money, always exact: a millionth of a credit."""

MICRO: Final = 1_000_000
"""Micro-credits in a credit."""

MAX_SIZE_BYTES: Final = 2**63 - 1
"""The largest size a database column of eight bytes holds."""

_SI: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15, "EB": 10**18}
_IEC: Final = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "PIB": 2**50, "EIB": 2**60}
_FACTORS: Final = _SI | _IEC
_DURATIONS: Final = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_SIZE: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,18})?) ?([A-Z]{0,3})")
_CREDITS: Final = re.compile(r"(-?)([0-9]{1,13})(?:\.([0-9]{1,6}))?")


def parse_size(text: str) -> int:
    """Bytes meant by "1000", "10GB", "1.5 TB" (powers of 1000) or "512MiB" (powers of 1024), in any case.

    Raises `Invalid` for anything else, for a size that is no whole number of bytes, and above 2**63 - 1.
    """
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None or match[2] not in _FACTORS:
        raise Invalid(f'a size is a number and a unit, such as "10GB", "512MiB" or "1000"; got {text[:40]!r}')
    size = Decimal(match[1]) * _FACTORS[match[2]]
    if size != int(size) or size > MAX_SIZE_BYTES:
        raise Invalid(f"a size is a whole number of bytes up to {MAX_SIZE_BYTES}; got {text[:40]!r}")
    return int(size)


def format_size(size_bytes: int) -> str:
    """`size_bytes` for people, in powers of 1000 with one decimal, rounded half up: "999 B", "1.0 kB", "1.2 GB"."""
    if abs(size_bytes) < 1000:
        return f"{size_bytes} B"
    sign = "-" if size_bytes < 0 else ""
    tenths, units = abs(size_bytes) * 10, iter(("kB", "MB", "GB", "TB", "PB", "EB"))
    unit, divisor = next(units), 1000
    while _rounded(tenths, divisor) >= 10_000 and unit != "EB":
        unit, divisor = next(units), divisor * 1000
    whole, tenth = divmod(_rounded(tenths, divisor), 10)
    return f"{sign}{whole}.{tenth} {unit}"


def format_duration(seconds: float) -> str:
    """A span of time for people, its two largest units, rounded down: "41 s", "3 min 2 s", "5 h 0 min", "12 d 7 h"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    for large, large_name, small, small_name in _DURATIONS:
        if whole >= large:
            return f"{whole // large} {large_name} {whole % large // small} {small_name}"
    raise AssertionError("a minute or more is in the table")


def format_credits(micro: int) -> str:
    """Micro-credits as credits with two decimals, computed on integers and rounded half to even: "12.34", "-0.50"."""
    cents, rest = divmod(abs(micro), MICRO // 100)
    half = MICRO // 200
    if rest > half or (rest == half and cents % 2):
        cents += 1
    sign = "-" if micro < 0 and cents else ""
    return f"{sign}{cents // 100}.{cents % 100:02}"


def parse_credits(text: str) -> MicroCredits:
    """Micro-credits meant by "12", "12.34" or "-0.000001": up to six decimals, exactly.

    Raises `Invalid` for anything else.
    """
    match = _CREDITS.fullmatch(text.strip())
    if match is None:
        raise Invalid(f'an amount of credits is a number with up to six decimals, such as "12.34"; got {text[:40]!r}')
    micro = int(match[2]) * MICRO + int((match[3] or "").ljust(6, "0"))
    return MicroCredits(-micro if match[1] else micro)


def _rounded(tenths: int, divisor: int) -> int:
    return (tenths + divisor // 2) // divisor
