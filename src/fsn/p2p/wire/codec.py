"""Messages to frames and back: the one importer of protobuf. What leaves here is well formed; so is what comes in."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from uuid import UUID

import attrs
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtobufMessage

from fsn.core.errors import ProtocolViolation
from fsn.core.ids import PeerId, ReplicaId
from fsn.core.merkle import Opening
from fsn.core.proofs import MAX_DIFFICULTY, Proof
from fsn.core.reachability import DialOutcome, DialResult
from fsn.core.reconciliation import HeldReplica, PrefixSum
from fsn.p2p.wire import storage_pb2 as pb
from fsn.p2p.wire.fields import Field, last_field
from fsn.p2p.wire.framing import encode_frame_header, encode_varint
from fsn.p2p.wire.limits import (
    MAX_COORDINATORS,
    MAX_DECLARED_BYTES,
    MAX_DELETIONS,
    MAX_DETAIL_BYTES,
    MAX_DIALS,
    MAX_ERROR_BYTES,
    MAX_LISTED,
    MAX_LOSSES,
    MAX_PATH,
    MAX_PREFIXES,
    MAX_RECORD_BYTES,
    MAX_REFUSAL_BYTES,
    MAX_SUMS,
    breaches,
    cut_text,
)
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
    RefusalCode,
    ReportLosses,
    RetrieveChunk,
    Standing,
    StoreChunk,
)

__all__ = ["Envelope", "decode", "encode", "encode_parts"]

_ID: Final = re.compile("[0-9a-f]{32}")
_HASH: Final = re.compile("[0-9a-f]{64}")
_MAX_FILE_ID_CHARACTERS: Final = 64
_ID_BYTES: Final = 16
_LEVELS: Final[Mapping[int, ReconcileLevel]] = {level.value: level for level in ReconcileLevel}
_KNOWN_OUTCOMES: Final[Mapping[str, DialOutcome]] = {outcome.value: outcome for outcome in DialOutcome}
_KNOWN_REFUSALS: Final[Mapping[str, RefusalCode]] = {code.value: code for code in RefusalCode}
_KNOWN_STANDINGS: Final[Mapping[str, Standing]] = {standing.value: standing for standing in Standing}
_LENGTH_DELIMITED: Final = 2  # protobuf's wire type
_WORTH_A_VIEW_BYTES: Final = 4096
_Small = (
    Reconcile
    | Reconciled
    | ReportLosses
    | LossesReported
    | ChunkStored
    | RetrieveChunk
    | ProveHeld
    | HeldProof
    | DeleteChunks
    | ChunksDeleted
    | Heartbeat
    | HeartbeatAnswer
    | Declaration
    | Declared
    | DialBack
    | DialedBack
    | Refusal
)


@attrs.frozen
class Envelope:
    """A message with what ties it to its answer.

    `request_id` (0..2**64-1) is unique among the asker's open requests on a stream; `deadline_ms` (0..2**32-1) is how
    many milliseconds the asker will wait from now on; 0 = not said, or an answer.
    """

    request_id: int
    deadline_ms: int
    message: Message


def encode(request_id: int, message: Message, deadline_ms: int = 0) -> bytes:
    """The whole frame in one piece; else as `encode_parts`."""
    return b"".join(encode_parts(request_id, message, deadline_ms))


def encode_parts(request_id: int, message: Message, deadline_ms: int = 0) -> list[bytes | memoryview]:
    """The frame in one or two pieces, to be sent one after the other: its length and all that is small, then the sealed bytes, uncopied.

    The bytes are those that protobuf would write. A refusal's message and a deletion's reason are cut to what the wire
    allows. Raises ValueError for a message that `decode` would refuse: that is the sender's mistake.
    """
    message = _shortened(message)
    for breach in breaches(message):
        raise ValueError(f"{type(message).__name__} cannot be sent: {breach}")
    number, small, data = _body(message)
    head = pb.Envelope(request_id=request_id, deadline_ms=deadline_ms).SerializeToString()
    # Put together by hand around the sealed bytes, which protobuf's own objects would copy three times.
    start = encode_varint(number << 3 | _LENGTH_DELIMITED) + encode_varint(len(small) + len(data))
    length = encode_frame_header(len(head) + len(start) + len(small) + len(data))
    joined = b"".join((length, head, start, small))
    return [joined, data] if data else [joined]


def decode(frame: bytes | bytearray | memoryview) -> Envelope:
    """The message in a frame (without its length), checked against every rule of `storage.proto` and `limits.py`.

    Sealed bytes are a view of `frame`, which must not change any more. Fields that we do not know are ignored. Raises
    `ProtocolViolation` for anything malformed, also for a kind of message that this version does not speak; never anything else.
    """
    try:
        envelope, data = _parsed(frame)
    except DecodeError:
        raise ProtocolViolation(f"a frame of {len(frame)} bytes is no Envelope") from None
    kind = envelope.WhichOneof("body")
    if kind is None or kind not in _READERS:
        raise ProtocolViolation(f"an Envelope with a known body was wanted; got {kind or 'none'}")
    body = getattr(envelope, kind)
    message = _READERS[kind](body) if data is None else _DATA_READERS[kind](body, data)
    for breach in breaches(message):
        raise ProtocolViolation(f"{kind}: {breach}")
    return Envelope(envelope.request_id, envelope.deadline_ms, message)


def _parsed(frame: bytes | bytearray | memoryview) -> tuple[pb.Envelope, memoryview | None]:
    """The envelope; and, where the frame is laid out as `encode` does it, the sealed bytes, which the envelope lacks then.

    Anything else goes through protobuf as a whole, which copies the sealed bytes twice: 50 us for 256 KiB, more in a cold cache.
    """
    view = memoryview(frame)
    if (cut := _find_data(view)) is not None:
        body_at, payload_at = cut
        envelope = pb.Envelope.FromString(cast(bytes, view[: body_at.start]))
        if envelope.WhichOneof("body") is None:
            body = getattr(envelope, _DATA_FIELDS[body_at.number])
            body.ParseFromString(cast(bytes, view[body_at.content : payload_at.start]))
            body.SetInParent()
            return envelope, view[payload_at.content :]
    # Any buffer will do, in fact; the stubs know bytes only.
    return pb.Envelope.FromString(cast(bytes, frame)), None


def _find_data(view: memoryview) -> tuple[Field, Field] | None:
    """The body and, in it, the sealed bytes, if each is the last field of what it is in and the frame is large enough to care."""
    if len(view) < _WORTH_A_VIEW_BYTES:
        return None
    body = last_field(view, 0)
    if body is None or body.number not in _DATA_FIELDS:
        return None
    data = last_field(view, body.content)
    if data is None or data.number != _DATA_NUMBERS[body.number]:
        return None
    return body, data


def _shortened(message: Message) -> Message:
    match message:
        case Refusal(message=text):
            return attrs.evolve(message, message=cut_text(text, MAX_REFUSAL_BYTES))
        case Declared(reason=text):
            return attrs.evolve(message, reason=cut_text(text, MAX_DECLARED_BYTES))
        case HeartbeatAnswer(proofs=ProofRecord(reason=text) as record):
            record = attrs.evolve(record, reason=cut_text(text, MAX_RECORD_BYTES))
            return attrs.evolve(message, proofs=record)
        case ChunksDeleted(failed=failed):
            return ChunksDeleted({replica: cut_text(error, MAX_ERROR_BYTES) for replica, error in failed.items()})
        case ReportLosses(losses=losses):
            return ReportLosses({replica: cut_text(reason, MAX_ERROR_BYTES) for replica, reason in losses.items()})
        case DialedBack(observed, results):
            cut = [attrs.evolve(each, detail=cut_text(each.detail, MAX_DETAIL_BYTES)) for each in results]
            return DialedBack(observed, tuple(cut))
    return message


def _body(message: Message) -> tuple[int, bytes, bytes | memoryview]:
    """The number of the Envelope's field, its content but for the sealed bytes, and these."""
    match message:
        case StoreChunk(replica, root, data):
            stored = pb.StoreChunkRequest(chunk_id=replica.hex, hash=root.hex(), size_bytes=len(data))
            small = stored.SerializeToString() + _data_start(pb.StoreChunkRequest.DATA_FIELD_NUMBER, data)
            return pb.Envelope.STORE_CHUNK_REQUEST_FIELD_NUMBER, small, data
        case ChunkRetrieved(data, total_bytes):
            small = pb.RetrieveChunkResponse(total_bytes=total_bytes).SerializeToString()
            small += _data_start(pb.RetrieveChunkResponse.DATA_FIELD_NUMBER, data)
            return pb.Envelope.RETRIEVE_CHUNK_RESPONSE_FIELD_NUMBER, small, data
        case _:
            number, body = _small_body(message)
            return number, body.SerializeToString(), b""


def _data_start(number: int, data: bytes | memoryview) -> bytes:
    return encode_varint(number << 3 | _LENGTH_DELIMITED) + encode_varint(len(data)) if data else b""


def _small_body(message: _Small) -> tuple[int, ProtobufMessage]:
    match message:
        case ChunkStored(replica):
            return pb.Envelope.STORE_CHUNK_RESPONSE_FIELD_NUMBER, pb.StoreChunkResponse(chunk_id=replica.hex)
        case RetrieveChunk(replica, offset, length):
            wanted = pb.RetrieveChunkRequest(chunk_id=replica.hex, offset=offset, length=length)
            return pb.Envelope.RETRIEVE_CHUNK_REQUEST_FIELD_NUMBER, wanted
        case ProveHeld(challenge, replica, seed, difficulty):
            asked_for = pb.ProofChallenge(
                challenge_id=challenge.hex, chunk_id=replica.hex, seed=seed, difficulty=difficulty
            )
            return pb.Envelope.PROOF_CHALLENGE_FIELD_NUMBER, asked_for
        case HeldProof():
            return pb.Envelope.PROOF_RESPONSE_FIELD_NUMBER, _write_proof(message)
        case DeleteChunks(replicas, to_trash):
            unwanted = pb.DeleteChunkRequest(chunk_ids=[replica.hex for replica in replicas], to_trash=to_trash)
            return pb.Envelope.DELETE_CHUNK_REQUEST_FIELD_NUMBER, unwanted
        case ChunksDeleted(failed):
            results = [pb.DeleteChunkResult(chunk_id=replica.hex, error=error) for replica, error in failed.items()]
            return pb.Envelope.DELETE_CHUNK_RESPONSE_FIELD_NUMBER, pb.DeleteChunkResponse(results=results)
        case Reconcile(level, prefixes, after):
            asked = pb.ReconcileRequest(level=level, prefixes=prefixes, after=after.hex if after else "")
            return pb.Envelope.RECONCILE_REQUEST_FIELD_NUMBER, asked
        case Reconciled():
            return pb.Envelope.RECONCILE_RESPONSE_FIELD_NUMBER, _write_reconciled(message)
        case ReportLosses(losses):
            lost = [pb.LostReplica(chunk_id=replica.hex, reason=reason) for replica, reason in losses.items()]
            return pb.Envelope.REPORT_LOSSES_REQUEST_FIELD_NUMBER, pb.ReportLossesRequest(losses=lost)
        case LossesReported():
            return pb.Envelope.REPORT_LOSSES_RESPONSE_FIELD_NUMBER, pb.ReportLossesResponse()
        case Heartbeat():
            return pb.Envelope.HEARTBEAT_REQUEST_FIELD_NUMBER, pb.HeartbeatRequest(**attrs.asdict(message))
        case HeartbeatAnswer():
            return pb.Envelope.HEARTBEAT_RESPONSE_FIELD_NUMBER, _write_heartbeat_answer(message)
        case Declaration():
            return pb.Envelope.DECLARE_REQUEST_FIELD_NUMBER, pb.DeclareRequest(**attrs.asdict(message))
        case Declared():
            return pb.Envelope.DECLARE_RESPONSE_FIELD_NUMBER, pb.DeclareResponse(**attrs.asdict(message))
        case DialBack(addresses):
            return pb.Envelope.DIAL_BACK_REQUEST_FIELD_NUMBER, pb.DialBackRequest(addresses=addresses)
        case DialedBack(observed, dialled):
            dials = [pb.DialBackResult(**attrs.asdict(each)) for each in dialled]
            done = pb.DialBackResponse(observed_address=observed or "", results=dials)
            return pb.Envelope.DIAL_BACK_RESPONSE_FIELD_NUMBER, done
        case Refusal(code, text, retry_after_ms):
            return pb.Envelope.REFUSAL_FIELD_NUMBER, pb.Refusal(code=code, message=text, retry_after_ms=retry_after_ms)


def _write_proof(message: HeldProof) -> pb.ProofResponse:
    openings = [pb.Opening(leaf=each.leaf, siblings=each.siblings) for each in message.proof.openings]
    return pb.ProofResponse(
        challenge_id=message.challenge_id.hex,
        proof_hash=message.proof.proof_hash.hex(),
        duration_ms=message.duration_ms,
        openings=openings,
    )


def _write_heartbeat_answer(message: HeartbeatAnswer) -> pb.HeartbeatResponse:
    known = [pb.Coordinator(peer_id=contact.peer, addresses=contact.addresses) for contact in message.coordinators]
    return pb.HeartbeatResponse(
        earned_micro_credits=message.earned_micro_credits,
        coordinators=known,
        state=message.state,
        proofs=None if message.proofs is None else pb.ProofRecord(**attrs.asdict(message.proofs)),
        earnings=None if message.earnings is None else pb.Earnings(**attrs.asdict(message.earnings)),
    )


def _write_reconciled(message: Reconciled) -> pb.ReconcileResponse:
    sums = [pb.PrefixSum(prefix=prefix, **attrs.asdict(each)) for prefix, each in message.sums.items()]
    replicas = [
        pb.HeldReplica(id=held.replica.bytes, digest=held.digest, size_bytes=held.size_bytes)
        for held in message.replicas
    ]
    return pb.ReconcileResponse(sums=sums, replicas=replicas, more=message.more)


def _read_store_chunk(body: pb.StoreChunkRequest) -> StoreChunk:
    return _read_stored_data(body, body.data)


def _read_stored_data(body: pb.StoreChunkRequest, data: bytes | memoryview) -> StoreChunk:
    if body.size_bytes != len(data):
        raise ProtocolViolation(f"store_chunk_request: size_bytes is {body.size_bytes}, the data's is {len(data)}")
    if body.chunk_index < 0 or len(body.file_id) > _MAX_FILE_ID_CHARACTERS:
        raise ProtocolViolation("store_chunk_request: chunk_index is negative or file_id over 64 characters long")
    if not _HASH.fullmatch(body.hash):
        raise ProtocolViolation(f"store_chunk_request: hash is 64 lowercase hex digits; got {body.hash[:80]!r}")
    return StoreChunk(_replica(body.chunk_id), bytes.fromhex(body.hash), data)


def _read_chunk_stored(body: pb.StoreChunkResponse) -> ChunkStored:
    return ChunkStored(_replica(body.chunk_id))


def _read_retrieve_chunk(body: pb.RetrieveChunkRequest) -> RetrieveChunk:
    return RetrieveChunk(_replica(body.chunk_id), body.offset, body.length)


def _read_chunk_retrieved(body: pb.RetrieveChunkResponse) -> ChunkRetrieved:
    return _read_retrieved_data(body, body.data)


def _read_retrieved_data(body: pb.RetrieveChunkResponse, data: bytes | memoryview) -> ChunkRetrieved:
    return ChunkRetrieved(data, body.total_bytes)


def _read_prove_held(body: pb.ProofChallenge) -> ProveHeld:
    return ProveHeld(_id(body.challenge_id), _replica(body.chunk_id), body.seed, body.difficulty)


# One element more than allowed is enough for `breaches` to refuse the message: half a million empty elements fit in a
# frame, and none of them is worth an object.


def _read_held_proof(body: pb.ProofResponse) -> HeldProof:
    if not _HASH.fullmatch(body.proof_hash):
        raise ProtocolViolation(f"proof_response: proof_hash is 64 lowercase hex digits; got {body.proof_hash[:80]!r}")
    openings = [
        Opening(each.leaf, tuple(each.siblings[: MAX_PATH + 1])) for each in body.openings[: MAX_DIFFICULTY + 1]
    ]
    proof = Proof(bytes.fromhex(body.proof_hash), tuple(openings))
    return HeldProof(_id(body.challenge_id), proof, body.duration_ms)


def _read_delete_chunks(body: pb.DeleteChunkRequest) -> DeleteChunks:
    return DeleteChunks(tuple(_replica(text) for text in body.chunk_ids[: MAX_DELETIONS + 1]), body.to_trash)


def _read_chunks_deleted(body: pb.DeleteChunkResponse) -> ChunksDeleted:
    results = [(_replica(result.chunk_id), result.error) for result in body.results[: MAX_DELETIONS + 1]]
    if len({replica for replica, _ in results}) != len(results):
        raise ProtocolViolation("delete_chunk_response: one result for each id is wanted; got two for one")
    if len(results) > MAX_DELETIONS:
        raise ProtocolViolation(f"delete_chunk_response: at most {MAX_DELETIONS} results are wanted; got more")
    return ChunksDeleted({replica: error for replica, error in results if error})


def _read_reconcile(body: pb.ReconcileRequest) -> Reconcile:
    if body.level not in _LEVELS:
        raise ProtocolViolation(f"reconcile_request: a level is 0, 1 or 2; got {body.level}")
    after = _replica(body.after) if body.after else None
    return Reconcile(_LEVELS[body.level], tuple(body.prefixes[: MAX_PREFIXES + 1]), after)


def _read_reconciled(body: pb.ReconcileResponse) -> Reconciled:
    rows = body.sums[: MAX_SUMS + 1]
    sums = {row.prefix: PrefixSum(row.count, row.size_bytes, row.high, row.low) for row in rows}
    if len(sums) != len(rows):
        raise ProtocolViolation("reconcile_response: one sum for each prefix is wanted; got two for one")
    return Reconciled(sums, tuple(map(_read_held, body.replicas[: MAX_LISTED + 1])), body.more)


def _read_held(body: pb.HeldReplica) -> HeldReplica:
    if len(body.id) != _ID_BYTES:
        raise ProtocolViolation(f"reconcile_response: an id has 16 bytes; got {len(body.id)}")
    return HeldReplica(ReplicaId(UUID(bytes=body.id)), body.digest, body.size_bytes)


def _read_report_losses(body: pb.ReportLossesRequest) -> ReportLosses:
    losses = {_replica(lost.chunk_id): lost.reason for lost in body.losses[: MAX_LOSSES + 1]}
    if len(losses) != len(body.losses[: MAX_LOSSES + 1]):
        raise ProtocolViolation("report_losses_request: one reason for each id is wanted; got two for one")
    return ReportLosses(losses)


def _read_losses_reported(_: pb.ReportLossesResponse) -> LossesReported:
    return LossesReported()


def _read_heartbeat(body: pb.HeartbeatRequest) -> Heartbeat:
    return Heartbeat(
        chunk_count=body.chunk_count,
        used_bytes=body.used_bytes,
        free_bytes=body.free_bytes,
        version=body.version,
        draining=body.draining,
        addresses=tuple(body.addresses),
    )


def _read_heartbeat_answer(body: pb.HeartbeatResponse) -> HeartbeatAnswer:
    known = body.coordinators[: MAX_COORDINATORS + 1]
    contacts = tuple(Contact(PeerId(each.peer_id), tuple(each.addresses)) for each in known)
    return HeartbeatAnswer(
        body.earned_micro_credits,
        contacts,
        body.state,
        _read_proof_record(body.proofs) if body.HasField("proofs") else None,
        _read_earnings(body.earnings) if body.HasField("earnings") else None,
    )


def _read_proof_record(body: pb.ProofRecord) -> ProofRecord:
    return ProofRecord(
        passed=body.passed,
        missed=body.missed,
        failed=body.failed,
        vetted_proofs=body.vetted_proofs,
        vetting_proofs=body.vetting_proofs,
        vetting_seconds_left=body.vetting_seconds_left,
        score_millionths=body.score_millionths,
        is_suspended=body.is_suspended,
        reason=body.reason,
    )


def _read_earnings(body: pb.Earnings) -> Earnings:
    return Earnings(
        today_micro_credits=body.today_micro_credits,
        balance_micro_credits=body.balance_micro_credits,
        pending_micro_credits=body.pending_micro_credits,
        held_micro_credits=body.held_micro_credits,
    )


def _read_declaration(body: pb.DeclareRequest) -> Declaration:
    standing = _KNOWN_STANDINGS.get(body.standing, body.standing)
    return Declaration(standing, body.remaining_seconds, body.reason)


def _read_declared(body: pb.DeclareResponse) -> Declared:
    return Declared(
        state=body.state,
        since_seconds=body.since_seconds,
        reason=body.reason,
        remaining_seconds=body.remaining_seconds,
        replicas_left=body.replicas_left,
        bytes_left=body.bytes_left,
        replicas_only_here=body.replicas_only_here,
    )


def _read_dial_back(body: pb.DialBackRequest) -> DialBack:
    return DialBack(tuple(body.addresses[: MAX_DIALS + 1]))


def _read_dialed_back(body: pb.DialBackResponse) -> DialedBack:
    results = [
        DialResult(each.address, _KNOWN_OUTCOMES.get(each.outcome, each.outcome), each.detail)
        for each in body.results[: MAX_DIALS + 1]
    ]
    return DialedBack(body.observed_address or None, tuple(results))


def _read_refusal(body: pb.Refusal) -> Refusal:
    return Refusal(_KNOWN_REFUSALS.get(body.code, body.code), body.message, body.retry_after_ms)


def _replica(text: str) -> ReplicaId:
    return ReplicaId(_id(text))


def _id(text: str) -> UUID:
    if not _ID.fullmatch(text):
        raise ProtocolViolation(f"an id is 32 lowercase hex digits; got {text[:40]!r}")
    return UUID(hex=text)


_READERS: Final[Mapping[str, Callable[[Any], Message]]] = {
    "refusal": _read_refusal,
    "store_chunk_request": _read_store_chunk,
    "store_chunk_response": _read_chunk_stored,
    "retrieve_chunk_request": _read_retrieve_chunk,
    "retrieve_chunk_response": _read_chunk_retrieved,
    "proof_challenge": _read_prove_held,
    "proof_response": _read_held_proof,
    "delete_chunk_request": _read_delete_chunks,
    "delete_chunk_response": _read_chunks_deleted,
    "heartbeat_request": _read_heartbeat,
    "heartbeat_response": _read_heartbeat_answer,
    "reconcile_request": _read_reconcile,
    "reconcile_response": _read_reconciled,
    "report_losses_request": _read_report_losses,
    "report_losses_response": _read_losses_reported,
    "declare_request": _read_declaration,
    "declare_response": _read_declared,
    "dial_back_request": _read_dial_back,
    "dial_back_response": _read_dialed_back,
}

_DATA_FIELDS: Final[Mapping[int, str]] = {
    pb.Envelope.STORE_CHUNK_REQUEST_FIELD_NUMBER: "store_chunk_request",
    pb.Envelope.RETRIEVE_CHUNK_RESPONSE_FIELD_NUMBER: "retrieve_chunk_response",
}
_DATA_NUMBERS: Final[Mapping[int, int]] = {
    pb.Envelope.STORE_CHUNK_REQUEST_FIELD_NUMBER: pb.StoreChunkRequest.DATA_FIELD_NUMBER,
    pb.Envelope.RETRIEVE_CHUNK_RESPONSE_FIELD_NUMBER: pb.RetrieveChunkResponse.DATA_FIELD_NUMBER,
}
_DATA_READERS: Final[Mapping[str, Callable[[Any, memoryview], Message]]] = {
    "store_chunk_request": _read_stored_data,
    "retrieve_chunk_response": _read_retrieved_data,
}
