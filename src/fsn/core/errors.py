"""Everything that can go wrong, as one tree. HTTP statuses and exit codes are two tables elsewhere, keyed by these classes."""

from typing import Any, ClassVar

__all__ = [
    "ConfigError",
    "Conflict",
    "Corrupt",
    "DiskFull",
    "Forbidden",
    "FsnError",
    "InsufficientCredits",
    "Invalid",
    "NotFound",
    "PeerError",
    "PeerRefused",
    "PeerTimeout",
    "ProtocolViolation",
    "QuotaExceeded",
    "RateLimited",
    "Refused",
    "StorageError",
    "TooFewCopies",
    "TooFewNodes",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]


class FsnError(Exception):
    """An error that a caller can act on.

    `code` is stable and machine-readable; `transient` says that the same call may succeed later, unchanged. The message says what
    was wanted and what was found. `facts` are JSON-ready extras (for a problem document or a log line); never secrets.
    """

    code: ClassVar[str] = "internal"
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        if code is not None:
            self.code = code  # type: ignore[misc]  # a finer code for one occurrence, e.g. "email_taken" for Conflict


class Refused(FsnError):
    """The request itself cannot be granted."""

    code = "refused"


class Invalid(Refused):
    """The request is malformed or out of range."""

    code = "invalid"


class Unauthorized(Refused):
    """Who asks is unknown: no token, or one that is forged or expired."""

    code = "unauthorized"


class Forbidden(Refused):
    """Who asks is known, and may not."""

    code = "forbidden"


class NotFound(Refused):
    """There is no such thing, or none that the asker may know of."""

    code = "not_found"


class Conflict(Refused):
    """The request contradicts what is already there."""

    code = "conflict"


class InsufficientCredits(Refused):
    """The balance does not cover the cost."""

    code = "insufficient_credits"


class TooLarge(Refused):
    """More bytes than allowed or declared."""

    code = "too_large"


class QuotaExceeded(Refused):
    """A limit of the account, or of who asks, is reached."""

    code = "quota_exceeded"


class RateLimited(QuotaExceeded):
    """Too many requests, or too many at once: the same request is taken later."""

    code = "rate_limited"
    transient = True


class PeerError(FsnError):
    """Another machine of the network did not do what was asked."""

    code = "peer_error"


class Unreachable(PeerError):
    """No connection to the peer, or it broke before an answer came."""

    code = "unreachable"
    transient = True


class PeerTimeout(PeerError):
    """The peer did not answer within the deadline."""

    code = "peer_timeout"
    transient = True


class PeerRefused(PeerError):
    """The peer answered with a refusal; `refusal` is its code on the wire, e.g. `FULL` or `NOT_FOUND`."""

    code = "peer_refused"

    def __init__(self, message: str, *, refusal: str = "", **facts: Any) -> None:
        super().__init__(message, refusal=refusal, **facts)
        self.refusal = refusal


class ProtocolViolation(PeerError):
    """The peer broke the protocol: a bad frame, an answer of the wrong kind, a wrong hash."""

    code = "protocol_violation"


class StorageError(FsnError):
    """A store of ours (disk, SQLite, PostgreSQL) did not do what was asked."""

    code = "storage_error"


class Unavailable(StorageError):
    """The store cannot be reached at the moment."""

    code = "unavailable"
    transient = True


class DiskFull(StorageError):
    """No space is left, on the disk or in the node's allowance."""

    code = "disk_full"


class Corrupt(StorageError):
    """Bytes read back are not the bytes that were stored."""

    code = "corrupt"


class TooFewNodes(FsnError):
    """Fewer usable nodes than replicas wanted."""

    code = "too_few_nodes"
    transient = True

    def __init__(self, *, wanted: int, found: int) -> None:
        super().__init__(
            f"{wanted} storage nodes are needed to store {wanted} replicas; {found} are usable at the moment",
            wanted=wanted,
            found=found,
        )


class TooFewCopies(FsnError):
    """Nodes were there, but not enough of them stored (or returned) the chunk in time."""

    code = "too_few_copies"
    transient = True

    def __init__(self, message: str, *, wanted: int, found: int) -> None:
        super().__init__(message, wanted=wanted, found=found)


class ConfigError(FsnError):
    """The configuration cannot be used; the message lists every mistake by its key."""

    code = "config"
