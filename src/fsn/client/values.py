"""What the HTTP API answers, as frozen values: structured from JSON, unknown members ignored (fields are only ever added)."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import Any, TypeVar
from uuid import UUID

import attrs
import cattrs

from fsn.core.errors import ProtocolViolation
from fsn.core.ids import FileId, NodeId, UploadId, UserId

__all__ = [
    "Balance",
    "File",
    "FileHealth",
    "Node",
    "ProofRound",
    "Quote",
    "Session",
    "UploadState",
    "User",
    "as_json",
    "structure",
]

T = TypeVar("T")


@attrs.frozen
class User:
    """An account. `credits` is exact, in credits (not micro-credits). `past_due_since`: the balance does not cover what is stored,
    nothing new is taken, and what is not paid is deleted after `kept_until`. `spent_this_month` goes with a `monthly_budget`."""

    id: UserId
    email: str
    credits: Decimal = Decimal(0)
    created_at: datetime | None = None
    past_due_since: datetime | None = None
    kept_until: datetime | None = None
    monthly_budget: Decimal | None = None
    spent_this_month: Decimal | None = None


@attrs.frozen
class Session:
    """A login: `token` is a bearer token, a secret, until `expires_at` (UTC)."""

    token: str = attrs.field(repr=False)
    expires_at: datetime
    user: User


@attrs.frozen
class FileHealth:
    """How well a file is kept: the fewest live replicas of any of its chunks, of those wanted; chunks with fewer, and chunks in repair;
    when the last round of proofs began (UTC) that is over and asked for them, None before the first."""

    live_replicas: int | None = None
    wanted_replicas: int | None = None
    chunks_below: int | None = None
    chunks_in_repair: int | None = None
    proved_at: datetime | None = None


@attrs.frozen
class File:
    """A stored file; `status` is `ready` once every chunk lies on its nodes. `size_bytes` is None while a
    stream of unknown length comes in; `health` comes with details only."""

    id: FileId
    filename: str
    size_bytes: int | None
    status: str
    replicas: int | None = None
    created_at: datetime | None = None
    ready_at: datetime | None = None
    health: FileHealth | None = None


@attrs.frozen
class UploadState:
    """An upload in steps. `received` are ranges (first, last) of chunks that are stored; a server may leave some out of a long list.

    Initiating does not tell `size_bytes` and `received`; a status request does.
    """

    upload_id: UploadId
    file_id: FileId
    chunk_size: int
    expires_at: datetime | None = None
    size_bytes: int | None = None
    received: tuple[tuple[int, int], ...] = ()

    def received_indexes(self) -> Iterator[int]:
        """Every index in `received`."""
        return chain.from_iterable(range(first, last + 1) for first, last in self.received)


@attrs.frozen
class Quote:
    """The price of keeping `size_bytes` as `replicas` copies for 30 days, in credits."""

    size_bytes: int
    replicas: int
    cost: Decimal


@attrs.frozen
class ProofRound:
    """A round of proofs of storage, and how those of one node ended in it. `judged_at` (UTC) is None while it may still grow."""

    round: int
    begins_at: datetime
    judged_at: datetime | None = None
    suspicion: str | None = None
    asked: int = 0
    passed: int = 0
    failed: int = 0
    missed: int = 0
    quickest_ms: int | None = None
    """How long the quickest answer that passed took, by the coordinator's clock."""
    mean_ms: int | None = None


@attrs.frozen
class Balance:
    """What an account owns, in credits; `earned` and `pending` are a node's."""

    balance: Decimal
    earned: Decimal | None = None
    pending: Decimal | None = None


@attrs.frozen
class Node:
    """The public view of a storage node; sizes in bytes, uptime and reputation from 0 to 1."""

    id: NodeId
    name: str
    status: str
    status_since: datetime | None = None
    status_reason: str | None = None
    capacity_bytes: int | None = None
    used_bytes: int | None = None
    chunk_count: int | None = None
    uptime: float | None = None
    uptime_day: float | None = None
    reputation: float | None = None
    region: str | None = None


def _new_converter() -> cattrs.Converter:
    """JSON's spellings of our types: ids and times are text, credits are text or a number (both exact as `Decimal(str(x))`)."""
    converter = cattrs.Converter()
    converter.register_structure_hook(UUID, lambda value, _: UUID(value))
    converter.register_unstructure_hook(UUID, str)
    converter.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(value))
    converter.register_unstructure_hook(datetime, lambda value: value.isoformat().replace("+00:00", "Z"))
    converter.register_structure_hook(Decimal, lambda value, _: Decimal(str(value)))
    converter.register_unstructure_hook(Decimal, str)
    return converter


_CONVERTER = _new_converter()


def structure(document: object, cls: type[T]) -> T:
    """`document` (parsed JSON) as a `cls`; ProtocolViolation says what is missing or wrong."""
    if not isinstance(document, Mapping):
        raise ProtocolViolation(
            f"the server should answer with a JSON object for {cls.__name__}; got {type(document).__name__}"
        )
    try:
        return _CONVERTER.structure(document, cls)
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError, ArithmeticError) as error:
        wrong = "; ".join(cattrs.transform_error(error)) if isinstance(error, BaseExceptionGroup) else str(error)
        raise ProtocolViolation(f"the server's answer is no {cls.__name__}: {wrong}") from error


def as_json(value: object) -> Any:
    """`value` (one of the classes above, or a list of them) as plain JSON types."""
    return _CONVERTER.unstructure(value)
