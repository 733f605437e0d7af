"""What a well-formed message may hold: one set of limits, for what we send and for what we receive."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

import attrs

from fsn.core.merkle import LEAF_BYTES, ROOT_BYTES, leaf_count
from fsn.core.proofs import MAX_DIFFICULTY, SEED_BYTES, Proof
from fsn.core.reachability import DialResult
from fsn.core.reconciliation import DIGEST_BYTES, PrefixSum
from fsn.core.sealing import MAX_SEALED_BYTES
from fsn.p2p.wire.messages import (
    ChunkRetrieved,
    ChunksDeleted,
    ChunkStored,
    Contact,
    Declaration,
    Declared,
    DeleteChunks,
    DialBack,
    DialedBack,
    Earnings,
    Heartbeat,
    HeartbeatAnswer,
    HeldProof,
    LossesReported,
    Message,
    ProofRecord,
    ProveHeld,
    Reconcile,
    Reconciled,
    ReconcileLevel,
    Refusal,
    ReportLosses,
    RetrieveChunk,
    StoreChunk,
)

__all__ = [
    "MAX_ADDRESSES",
    "MAX_ADDRESS_BYTES",
    "MAX_COORDINATORS",
    "MAX_DECLARED_BYTES",
    "MAX_DELETIONS",
    "MAX_DETAIL_BYTES",
    "MAX_DIALS",
    "MAX_ERROR_BYTES",
    "MAX_FIRST_BYTES",
    "MAX_HELD_BYTES",
    "MAX_LISTED",
    "MAX_LOSSES",
    "MAX_PATH",
    "MAX_PEER_ID_BYTES",
    "MAX_PREFIXES",
    "MAX_REASON_BYTES",
    "MAX_RECORD_BYTES",
    "MAX_REFUSAL_BYTES",
    "MAX_SUMS",
    "MAX_VERSION_BYTES",
    "breaches",
    "cut_text",
]

MAX_PATH: Final = (leaf_count(MAX_SEALED_BYTES) - 1).bit_length()
"""Hashes beside the way of a leaf to the root: 7 in the largest replica."""

MAX_DELETIONS: Final = 10_000
"""Ids in one DeleteChunks: 340 KB of request; an answer in which each failed for a full reason just fits a frame."""

MAX_ERROR_BYTES: Final = 60
"""Of one id's reason in ChunksDeleted."""

MAX_REFUSAL_BYTES: Final = 1024
"""Of a refusal's message."""

MAX_FIRST_BYTES: Final = 64
"""First bytes whose sums by two bytes are asked for at once: the answer has at most 16,384 rows of 42 bytes."""

MAX_SUMS: Final = MAX_FIRST_BYTES * 256
MAX_PREFIXES: Final = 4096
"""Of two bytes, whose replicas are asked for at once."""

MAX_LISTED: Final = 5000
"""Replicas in one page of an exact list: 220 KB, made in some 20 ms."""

MAX_HELD_BYTES: Final = 1024 * 1024
"""Of a replica in a list: the most that a node's store takes."""

MAX_LOSSES: Final = 1000
"""In one report."""
MAX_DIALS: Final = 8
"""Addresses in one DialBack, and results of it."""

MAX_DETAIL_BYTES: Final = 200
"""Of what is said of one dial."""

MAX_ADDRESSES: Final = 32
MAX_ADDRESS_BYTES: Final = 256
MAX_COORDINATORS: Final = 64
MAX_PEER_ID_BYTES: Final = 128
MAX_VERSION_BYTES: Final = 64
MAX_REASON_BYTES: Final = 200
"""Of an operator's reason in a Declaration."""
MAX_DECLARED_BYTES: Final = 500
"""Of the reason in Declared: the operator's, and what the coordinator has to add."""
MAX_RECORD_BYTES: Final = 200
"""Of the reason in ProofRecord."""
MAX_IP_BYTES: Final = 64

_MILLION: Final = 1_000_000
_INT32_MAX: Final = 2**31 - 1
_UINT32_MAX: Final = 2**32 - 1
_INT64_MAX: Final = 2**63 - 1
_UINT64_MAX: Final = 2**64 - 1
_OUTCOME: Final = re.compile(r"[a-z_]{1,32}")
_REFUSAL_CODE: Final = re.compile(r"[A-Z_]{1,32}")
_STATE: Final = re.compile(r"[a-z_]{1,32}")


def cut_text(text: str, max_bytes: int) -> str:
    """`text` in at most `max_bytes` of UTF-8, cut between characters; what UTF-8 cannot say becomes a question mark."""
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore")


def breaches(message: Message) -> Iterator[str]:
    """What is wrong with `message`, each as "wanted; got"; nothing for a well-formed one."""
    match message:
        case StoreChunk(root=root, data=data):
            yield from _outside("root bytes", len(root), ROOT_BYTES, ROOT_BYTES)
            yield from _outside("data bytes", len(data), 1, MAX_SEALED_BYTES)
        case RetrieveChunk(offset=offset, length=length):
            yield from _outside("offset", offset, 0, _INT32_MAX)
            yield from _outside("length", length, 0, _INT32_MAX)
        case ChunkRetrieved(data=data, total_bytes=total_bytes):
            yield from _outside("total_bytes", total_bytes, 1, MAX_SEALED_BYTES)
            yield from _outside("data bytes", len(data), 0, total_bytes)
        case ProveHeld(seed=seed, difficulty=difficulty):
            yield from _outside("seed bytes", len(seed), SEED_BYTES, SEED_BYTES)
            yield from _outside("difficulty", difficulty, 1, MAX_DIFFICULTY)
        case HeldProof(proof=proof, duration_ms=duration_ms):
            yield from _outside("duration_ms", duration_ms, 0, _INT64_MAX)
            yield from _proof(proof)
        case DeleteChunks(replicas=replicas):
            yield from _outside("chunk ids", len(replicas), 0, MAX_DELETIONS)
        case ChunksDeleted(failed=failed):
            yield from _outside("results", len(failed), 0, MAX_DELETIONS)
            yield from _longer("error", failed.values(), MAX_ERROR_BYTES)
        case Reconcile():
            yield from _reconcile(message)
        case Reconciled():
            yield from _reconciled(message)
        case ReportLosses(losses=losses):
            yield from _outside("losses", len(losses), 1, MAX_LOSSES)
            yield from _longer("reason", losses.values(), MAX_ERROR_BYTES)
        case Heartbeat():
            yield from _heartbeat(message)
        case HeartbeatAnswer():
            yield from _heartbeat_answer(message)
        case Declaration():
            yield from _declaration(message)
        case Declared():
            yield from _declared(message)
        case DialBack(addresses=addresses):
            yield from _outside("addresses", len(addresses), 0, MAX_DIALS)
            yield from _longer("address", addresses, MAX_ADDRESS_BYTES)
        case DialedBack(observed_address=observed, results=results):
            yield from _longer("observed_address", [observed or ""], MAX_IP_BYTES)
            yield from _outside("results", len(results), 0, MAX_DIALS)
            for result in results:
                yield from _dial_result(result)
        case Refusal():
            yield from _refusal(message)
        case ChunkStored() | LossesReported():
            pass


def _heartbeat(message: Heartbeat) -> Iterator[str]:
    yield from _outside("chunk_count", message.chunk_count, 0, _INT64_MAX)
    yield from _outside("used_bytes", message.used_bytes, 0, _INT64_MAX)
    yield from _outside("free_bytes", message.free_bytes, 0, _INT64_MAX)
    yield from _longer("version", [message.version], MAX_VERSION_BYTES)
    yield from _addresses(message.addresses)


def _heartbeat_answer(message: HeartbeatAnswer) -> Iterator[str]:
    yield from _outside("earned_micro_credits", message.earned_micro_credits, -_INT64_MAX - 1, _INT64_MAX)
    yield from _outside("coordinators", len(message.coordinators), 0, MAX_COORDINATORS)
    for contact in message.coordinators:
        yield from _contact(contact)
    if message.state and not _STATE.fullmatch(message.state):
        yield f"a state is at most 32 of a-z and _; got {message.state[:40]!r}"
    if message.proofs is not None:
        yield from _proof_record(message.proofs)
    if message.earnings is not None:
        yield from _earnings(message.earnings)


def _proof_record(record: ProofRecord) -> Iterator[str]:
    for name in ("passed", "missed", "failed", "vetted_proofs", "vetting_proofs", "vetting_seconds_left"):
        yield from _outside(name, getattr(record, name), 0, _INT64_MAX)
    yield from _outside("score_millionths", record.score_millionths, 0, _MILLION)
    yield from _longer("reason", [record.reason], MAX_RECORD_BYTES)


def _earnings(earnings: Earnings) -> Iterator[str]:
    for name, amount in attrs.asdict(earnings).items():
        yield from _outside(name, amount, -_INT64_MAX - 1, _INT64_MAX)


def _proof(proof: Proof) -> Iterator[str]:
    yield from _outside("proof_hash bytes", len(proof.proof_hash), ROOT_BYTES, ROOT_BYTES)
    yield from _outside("openings", len(proof.openings), 1, MAX_DIFFICULTY)
    for opening in proof.openings:
        yield from _outside("leaf bytes", len(opening.leaf), 1, LEAF_BYTES)
        yield from _outside("siblings", len(opening.siblings), 0, MAX_PATH)
        for sibling in opening.siblings:
            yield from _outside("sibling bytes", len(sibling), ROOT_BYTES, ROOT_BYTES)


_PREFIXES: Final = {
    ReconcileLevel.FIRST_BYTE: (0, 0, 0),
    ReconcileLevel.TWO_BYTES: (1, MAX_FIRST_BYTES, 0xFF),
    ReconcileLevel.REPLICAS: (1, MAX_PREFIXES, 0xFFFF),
}
"""By level: how many prefixes at least and at most, and the highest."""


def _reconcile(message: Reconcile) -> Iterator[str]:
    least, most, highest = _PREFIXES[message.level]
    yield from _outside("prefixes", len(message.prefixes), least, most)
    yield from _outside("prefix", max(message.prefixes, default=0), 0, highest)
    yield from _outside("prefix", min(message.prefixes, default=0), 0, highest)
    if message.after is not None and message.level is not ReconcileLevel.REPLICAS:
        yield f"after: none wanted at level {message.level}; got {message.after.hex}"


def _reconciled(message: Reconciled) -> Iterator[str]:
    yield from _outside("sums", len(message.sums), 0, MAX_SUMS)
    for prefix, each in message.sums.items():
        yield from _prefix_sum(prefix, each)
    yield from _outside("replicas", len(message.replicas), 0, MAX_LISTED)
    for held in message.replicas:
        if len(held.digest) != DIGEST_BYTES or not 1 <= held.size_bytes <= MAX_HELD_BYTES:
            yield f"a replica has a digest of 16 bytes and 1..{MAX_HELD_BYTES} bytes; got {held}"
    if any(one.replica.int >= next_one.replica.int for one, next_one in pairwise(message.replicas)):
        yield "replicas are wanted in the order of their ids, each once; got others"


def _prefix_sum(prefix: int, each: PrefixSum) -> Iterator[str]:
    """All at once: there are thousands."""
    is_right = prefix <= 0xFFFF and each.count <= _INT64_MAX and each.size_bytes <= _INT64_MAX
    if not is_right or min(prefix, each.count, each.size_bytes, each.high, each.low) < 0:
        yield f"a sum's prefix is 0..65535, count and bytes below 2**63; got prefix {prefix}, {each}"
    if max(each.high, each.low) > _UINT64_MAX:
        yield f"high and low are below 2**64; got {each}"


def _contact(contact: Contact) -> Iterator[str]:
    yield from _outside("peer id characters", len(contact.peer), 1, MAX_PEER_ID_BYTES)
    yield from _addresses(contact.addresses)


def _declaration(message: Declaration) -> Iterator[str]:
    if not _REFUSAL_CODE.fullmatch(message.standing):
        yield f"a standing is 1..32 of A-Z and _; got {message.standing[:40]!r}"
    yield from _outside("remaining_seconds", message.remaining_seconds, 0, _INT64_MAX)
    yield from _longer("reason", [message.reason], MAX_REASON_BYTES)
    if not message.reason.isprintable():
        yield f"a reason has printable characters only; got {message.reason[:40]!a}"


def _declared(message: Declared) -> Iterator[str]:
    if not _STATE.fullmatch(message.state):
        yield f"a state is 1..32 of a-z and _; got {message.state[:40]!r}"
    for name in ("since_seconds", "remaining_seconds", "replicas_left", "bytes_left", "replicas_only_here"):
        yield from _outside(name, getattr(message, name), 0, _INT64_MAX)
    yield from _longer("reason", [message.reason], MAX_DECLARED_BYTES)


def _dial_result(result: DialResult) -> Iterator[str]:
    if not _OUTCOME.fullmatch(result.outcome):
        yield f"a dial's outcome is 1..32 of a-z and _; got {result.outcome[:40]!r}"
    yield from _longer("address", [result.address], MAX_ADDRESS_BYTES)
    yield from _longer("detail", [result.detail], MAX_DETAIL_BYTES)


def _refusal(message: Refusal) -> Iterator[str]:
    if not _REFUSAL_CODE.fullmatch(message.code):
        yield f"a refusal's code is 1..32 of A-Z and _; got {message.code[:40]!r}"
    yield from _longer("message", [message.message], MAX_REFUSAL_BYTES)
    yield from _outside("retry_after_ms", message.retry_after_ms, 0, _UINT32_MAX)


def _addresses(addresses: tuple[str, ...]) -> Iterator[str]:
    yield from _outside("addresses", len(addresses), 0, MAX_ADDRESSES)
    yield from _longer("address", addresses, MAX_ADDRESS_BYTES)


def _outside(what: str, number: int, least: int, most: int) -> Iterator[str]:
    if not least <= number <= most:
        yield f"{what}: {least}..{most} wanted; got {number}"


def _longer(what: str, texts: Iterable[str], max_bytes: int) -> Iterator[str]:
    for text in texts:
        if len(text) > max_bytes or len(text.encode()) > max_bytes:
            yield f"{what}: at most {max_bytes} bytes of UTF-8 wanted; got {text[:40]!r}..."
