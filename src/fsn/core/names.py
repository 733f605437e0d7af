"""What people may call things, and say on record: file names, e-mail addresses, passwords, node names, reasons."""

import re
import unicodedata
from typing import Final

from fsn.core.errors import Invalid

__all__ = [
    "EMAIL_PATTERN",
    "LONGEST_EMAIL",
    "LONGEST_FILENAME_BYTES",
    "LONGEST_NODE_NAME",
    "LONGEST_PASSWORD_BYTES",
    "LONGEST_REGION",
    "LONGEST_WORDS",
    "SHORTEST_PASSWORD",
    "check_email",
    "check_filename",
    "check_node_name",
    "check_password",
    "check_region",
    "check_words",
]

LONGEST_FILENAME_BYTES: Final = 255
"""As on the file systems that the file will be written to again (ext4, XFS, APFS, NTFS)."""
LONGEST_EMAIL: Final = 254
"""RFC 5321's limit on a path, less the angle brackets."""
SHORTEST_PASSWORD: Final = 6
LONGEST_PASSWORD_BYTES: Final = 72
"""bcrypt reads no further: a longer one would be cut without a word."""
LONGEST_NODE_NAME: Final = 100
LONGEST_REGION: Final = 100
LONGEST_WORDS: Final = 200
EMAIL_PATTERN: Final = r"[^@\s\x00-\x1f\x7f-\x9f]{1,64}@[^@\s\x00-\x1f\x7f-\x9f]{1,189}"


def check_filename(name: str) -> str:
    """`name` unchanged, when it can be a file's name anywhere: 1 to 255 bytes of UTF-8, no slash, no control character, not . or .."""
    if (size := _utf8_bytes("the file name", name)) > LONGEST_FILENAME_BYTES or not name:
        raise _invalid_filename(f"a file name has 1 to {LONGEST_FILENAME_BYTES} bytes of UTF-8; got {size}")
    if "/" in name or name in (".", ".."):
        raise _invalid_filename("a file name is no path: no slash, and neither . nor ..")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise _invalid_filename("a file name has no control characters (NUL, line ends, ...)")
    return name


def check_email(email: str) -> str:
    """`email` unchanged, when it looks like an address; whether mail arrives there only mail can tell."""
    _utf8_bytes("the email", email)
    if len(email) > LONGEST_EMAIL or not re.fullmatch(EMAIL_PATTERN, email):
        raise Invalid(
            f"an email address is wanted: name@host, at most {LONGEST_EMAIL} characters", code="invalid_email"
        )
    return email


def check_password(password: str) -> str:
    """`password` unchanged: at least 6 characters, at most 72 bytes of UTF-8, no NUL."""
    size = _utf8_bytes("the password", password)
    if len(password) < SHORTEST_PASSWORD or size > LONGEST_PASSWORD_BYTES or "\0" in password:
        wanted = f"at least {SHORTEST_PASSWORD} characters and at most {LONGEST_PASSWORD_BYTES} bytes, without NUL"
        raise Invalid(f"a password has {wanted}; got {len(password)} characters, {size} bytes", code="invalid_password")
    return password


def check_node_name(name: str) -> str:
    """`name` unchanged: 1 to 100 printable characters."""
    return _checked_line("a node's name", name, LONGEST_NODE_NAME)


def check_region(region: str) -> str:
    """`region` unchanged: 1 to 100 printable characters."""
    return _checked_line("a region", region, LONGEST_REGION)


def check_words(what: str, text: str) -> str:
    """Words for the record (`what`: "a reason"), 1 to 200 printable characters, not only blanks; without those around."""
    words = text.strip()
    _checked_line(what, text if words else words, LONGEST_WORDS)
    return words


def _checked_line(what: str, text: str, longest: int) -> str:
    _utf8_bytes(what, text)
    if not 1 <= len(text) <= longest or not text.isprintable():
        raise Invalid(f"{what} has 1 to {longest} printable characters; got {text[:longest]!a} ({len(text)})")
    return text


def _utf8_bytes(what: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise Invalid(f"{what} is not valid Unicode: it has a lone surrogate") from error


def _invalid_filename(message: str) -> Invalid:
    return Invalid(message, code="invalid_filename")
